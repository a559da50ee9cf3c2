//! An inference pod of our own, for a file that nobody serves.

use anyhow::{Context, Result};
use quartermaster_core::units::NanoUsd;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use super::outcome::ServedFile;
use super::prices::Price;
use crate::bench::inference::host::{MODEL, Pod, Room, Server, Variant};

/// Requests side by side.
const SLOTS: u32 = 16;
/// Tokens of one request: the longest question and the longest answer.
const CONTEXT: u32 = 512;

/// A file that is served. Dropping it ends that.
#[derive(Debug)]
pub struct Served(Server);

impl Served {
    /// Serves `file` with this inference server.
    ///
    /// # Errors
    /// Where it does not come up, with its last words.
    pub async fn start(program: &Path, file: PathBuf) -> Result<Self> {
        let variants = [Variant { name: MODEL, file }];
        let threads = Self::threads()?;
        let room = Room { slots: SLOTS, context: CONTEXT };
        let pod = Pod { program, variants: &variants, room, threads, profiles: None, admin_token: None };
        Ok(Self(Server::pod(&pod).await?))
    }

    /// What a token costs on a machine like this one, at so much an hour.
    ///
    /// # Errors
    /// Where its metrics do not say how fast it is.
    pub async fn price(&self, per_hour: NanoUsd) -> Result<Price> {
        Price::of_machine(&self.0.metrics().await?, per_hour)
    }

    /// Threads of the server.
    ///
    /// # Errors
    /// Where the system does not say how many there may be.
    pub fn threads() -> Result<u32> {
        Ok(available_parallelism()?.get().try_into()?)
    }

    /// Where its API is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.0.base()
    }

    /// `model` of requests to it.
    #[must_use]
    pub fn model(&self) -> &str {
        MODEL
    }
}

impl ServedFile {
    /// Reads the file once.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn of(path: &Path, checkpoint: String, precision: String) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let (size, sha256) = (bytes.len().try_into()?, hex::encode(Sha256::digest(&bytes)));
        Ok(Self { checkpoint, precision, size, sha256, threads: Served::threads()? })
    }
}
