//! The command line; every flag of `serve` can come from the environment.

use crate::memory::KvPrecision;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Quartermaster's inference server: OpenAI's API on llama.cpp, with continuous batching.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model.
    Serve(ServeArgs),
    /// Write a model file in another precision.
    Quantize(QuantizeArgs),
    /// Measure a model's perplexity on a text; prints JSON.
    Perplexity(PerplexityArgs),
    /// Show what a model file says of itself; prints JSON.
    Inspect {
        /// GGUF file.
        #[arg(long)]
        model: PathBuf,
    },
    /// Tokenize a text as the engine does; prints JSON.
    Tokenize {
        /// GGUF file.
        #[arg(long)]
        model: PathBuf,
        /// The text.
        #[arg(long)]
        text: String,
    },
    /// Let llama.cpp read a model file's vocabulary, and end: a file on which it aborts aborts here and nowhere else.
    #[command(hide = true)]
    Check {
        /// GGUF file.
        #[arg(long)]
        model: PathBuf,
    },
    /// Estimate the memory that serving a model needs; prints JSON.
    Estimate(EstimateArgs),
}

/// On, off, or what is quicker here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Choice {
    Auto,
    On,
    Off,
}

impl Choice {
    /// Whether this is a way that may be taken.
    #[must_use]
    pub fn allows(self, on: bool) -> bool {
        match self {
            Self::Auto => true,
            Self::On => on,
            Self::Off => !on,
        }
    }
}

/// `serve`.
#[derive(Clone, Debug, Parser)]
pub struct ServeArgs {
    /// What to serve.
    #[arg(long, env = "QM_CONFIG", default_value = "/etc/quartermaster/serve.json")]
    pub config: PathBuf,
    /// Address of the API, the probes and the metrics.
    #[arg(long, env = "QM_LISTEN", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// File for the reason when the pod can't serve; by default Kubernetes' /dev/termination-log where that exists.
    #[arg(long, env = "QM_TERMINATION_LOG")]
    pub termination_log: Option<PathBuf>,
    /// Longest time after SIGTERM in which requests in flight are finished.
    #[arg(long, env = "QM_DRAIN_SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,
    /// Time after SIGTERM in which new requests are still taken (while not ready), since routers lag behind.
    #[arg(long, env = "QM_LINGER_SECONDS", default_value_t = 3)]
    pub linger_seconds: u64,
    /// File with the bearer token of the admin endpoints; without one they are closed.
    #[arg(long, env = "QM_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Flash attention; by default as measured at the first start.
    #[arg(long, env = "QM_FLASH_ATTENTION", value_enum, default_value_t = Choice::Auto)]
    pub flash_attention: Choice,
    /// One KV cache for all requests, so that what they share is there once; by default as measured at the first start.
    #[arg(long, env = "QM_UNIFIED_KV", value_enum, default_value_t = Choice::Auto)]
    pub unified_kv: Choice,
    /// How the KV cache is kept: q8_0 takes half the memory of f16, costs a little quality and needs flash attention.
    #[arg(long, env = "QM_KV_PRECISION", value_enum, default_value_t = KvPrecision::F16)]
    pub kv_precision: KvPrecision,
    /// Folder in which measurements are kept for the next start on this hardware.
    #[arg(long, env = "QM_PROFILE_FOLDER")]
    pub profile_folder: Option<PathBuf>,
}

/// `quantize`.
#[derive(Clone, Debug, Parser)]
pub struct QuantizeArgs {
    /// GGUF file to read; it may be quantized already.
    #[arg(long = "in")]
    pub input: PathBuf,
    /// GGUF file to write.
    #[arg(long = "out")]
    pub output: PathBuf,
    /// F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_0, Q5_1, Q4_K_M, Q4_K_S, Q4_0, Q4_1, Q3_K_M or Q2_K.
    #[arg(long = "type")]
    pub precision: String,
}

/// `perplexity`.
#[derive(Clone, Debug, Parser)]
pub struct PerplexityArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Text file.
    #[arg(long)]
    pub text: PathBuf,
    /// Tokens of one window; each token is scored once, with at least half a window before it (but for the first half).
    #[arg(long, default_value_t = 512)]
    pub window: u32,
    /// Threads; by default as many as the CPU limit feeds.
    #[arg(long)]
    pub threads: Option<usize>,
    /// GGUF file to compare with, token by token: adds `relative`, this file's perplexity over the model's, with its 95 %
    /// interval. What differs by less than the interval can't be told apart on this text.
    #[arg(long)]
    pub relative_to: Option<PathBuf>,
}

/// `estimate`.
#[derive(Clone, Debug, Parser)]
pub struct EstimateArgs {
    /// GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// Tokens of one request.
    #[arg(long)]
    pub context: u32,
    /// Requests side by side.
    #[arg(long)]
    pub slots: u32,
    /// With flash attention.
    #[arg(long)]
    pub flash_attention: bool,
}
