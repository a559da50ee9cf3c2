//! Shared by the tests: a tiny model file, and a server on loopback.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::as_conversions)]

pub mod gguf;
pub mod process;
pub mod server;
pub mod strings;
