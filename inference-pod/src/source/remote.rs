//! A file elsewhere, of which any rest can be read.

use super::bucket::Object;
use super::http::WebFile;
use super::{Digest, Result};
use bytes::Bytes;
use futures::stream::BoxStream;

/// What is known of a file before it is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its length.
    pub(super) bytes: Option<u64>,
    /// Its content.
    pub(super) digest: Option<Digest>,
    /// Its version: an ETag, or the time of its last change.
    pub(super) validator: Option<String>,
}

/// A part of a file, from some place to its end.
pub(super) struct Part {
    /// Where it begins: where it was asked to, or at 0.
    pub(super) from: u64,
    /// Its bytes.
    pub(super) stream: BoxStream<'static, Result<Bytes>>,
}

/// Where the bytes come from.
pub(super) enum Remote {
    /// A web server, Hugging Face or a registry.
    Web(WebFile),
    /// A bucket.
    Object(Object),
}

impl Remote {
    /// How errors and logs call it.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::Web(file) => &file.place,
            Self::Object(object) => &object.place,
        }
    }

    /// Reads from `from` to the end.
    ///
    /// # Errors
    /// `Changed` when it is no longer the file of the facts.
    pub(super) async fn open(&self, from: u64, facts: &Facts) -> Result<Part> {
        match self {
            Self::Web(file) => file.open(from, facts).await,
            Self::Object(object) => object.open(from, facts).await,
        }
    }
}
