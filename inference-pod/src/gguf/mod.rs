//! A GGUF file's header, read and checked by ourselves.
//!
//! llama.cpp asserts (and so kills the process) on some broken files; whatever passes here has whole tensors inside the
//! file and metadata of the right types.

mod read;
mod shape;
mod types;

pub use read::{Gguf, GgufError, Tensor, Value};
pub use shape::Shape;
