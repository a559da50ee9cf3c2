//! What is measured on, and for how long.

use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

use super::host::{Pod, Room, Variant};
use crate::narrator::Narrator;

/// Precision of the model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Precision {
    Q8,
    Q4,
}

impl Precision {
    /// As files and variants are named.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_1",
        }
    }
}

/// How long and how often things are measured.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Of one side of a pair, all its turns together.
    pub(super) window: Duration,
    /// The same at mixed lengths, where more differs between two seconds.
    pub(super) azure_window: Duration,
    /// Of one cell of the grid.
    pub(super) grid_window: Duration,
    /// Cells of the grid.
    pub(super) grid: usize,
    /// Interleaved pairs.
    pub(super) pairs: usize,
    /// Turns of each side of a pair.
    pub(super) turns: u32,
    /// Repetitions of what is not a throughput.
    pub(super) repeats: usize,
}

impl Lengths {
    /// What the figures are measured with.
    pub const FULL: Self = Self {
        window: Duration::from_secs(8),
        azure_window: Duration::from_secs(15),
        grid_window: Duration::from_secs(4),
        grid: 8,
        pairs: 5,
        turns: 8,
        repeats: 3,
    };
    /// To see that everything runs. What it prints is no figure.
    pub const SMOKE: Self = Self {
        window: Duration::from_secs(2),
        azure_window: Duration::from_secs(2),
        grid_window: Duration::from_secs(1),
        grid: 1,
        pairs: 2,
        turns: 2,
        repeats: 1,
    };
}

/// What is measured on.
#[derive(Debug)]
pub struct Bench {
    /// Our server.
    pub server: PathBuf,
    /// `llama-server`.
    pub peer: PathBuf,
    /// The model in Q8_0.
    pub q8_0: PathBuf,
    /// The model in Q4_1.
    pub q4_1: PathBuf,
    /// What our server measures at its first start, for its later ones.
    pub profiles: TempDir,
    /// Threads of either engine.
    pub threads: u32,
    /// How long.
    pub lengths: Lengths,
    /// Who hears of it.
    pub narrator: Narrator,
}

impl Bench {
    pub(super) fn file(&self, precision: Precision) -> &Path {
        match precision {
            Precision::Q8 => &self.q8_0,
            Precision::Q4 => &self.q4_1,
        }
    }

    /// The variants in this order; the first is served.
    pub(super) fn variants(&self, precisions: &[Precision]) -> Vec<Variant> {
        let variant =
            |precision: &Precision| Variant { name: precision.name(), file: self.file(*precision).to_owned() };
        precisions.iter().map(variant).collect()
    }

    pub(super) fn pod<'a>(&'a self, variants: &'a [Variant], room: Room) -> Pod<'a> {
        Pod {
            program: &self.server,
            variants,
            room,
            threads: self.threads,
            profiles: Some(self.profiles.path()),
            admin_token: None,
        }
    }
}
