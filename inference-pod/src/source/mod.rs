//! Where model files come from: a source is named by a URI, fetched once per node, and kept in a cache that pods share.
//!
//! ```text
//! URI ─ uri: parsed ─ resolve: size, hash, version ─▶ cache: there already? ─ no ─▶ download: ranges, retries ─▶ cache
//!                      https · hf · oci · bucket       content by its SHA-256          partial file, one writer
//! ```
//! Nothing is believed that can be checked: where the source names a hash, the content has it or is thrown away. Nobody
//! waits for ever: every wait, size and number of attempts has its limit. Every error names the URL (without its query,
//! which may be a secret), the status, and what to do.
//!
//! Read [`fetch`] first, then [`cache`], then [`download`].

mod bucket;
pub mod cache;
mod digest;
mod download;
mod error;
mod fetch;
mod hf;
mod http;
mod image;
mod local;
mod oci;
mod patience;
mod progress;
mod remote;
mod uri;

pub use digest::Digest;
pub use error::{Kind, SourceError};
pub use fetch::{Fetched, Options, Request, fetch};
pub use uri::{Bucket, OciFile, Source};

/// Shorthand of this module.
pub type Result<T, E = SourceError> = std::result::Result<T, E>;
