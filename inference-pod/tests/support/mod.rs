//! Shared by the tests: a tiny model file, and a server on loopback.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test crate uses a part of it")]

pub mod gguf;
pub mod process;
pub mod server;
pub mod strings;
