//! `fetch`, the program itself, against servers that this test runs on loopback: HTTPS, Hugging Face's protocol, an OCI
//! registry, S3 and Google Cloud Storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]
#![allow(unreachable_pub, missing_docs, reason = "tests")]

mod bucket;
mod content;
mod https;
mod hub;
mod local;
mod oci;
mod run;
mod server;
mod sharing;
