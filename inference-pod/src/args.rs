//! The command line; every flag of `serve` can come from the environment.

use crate::limits;
use crate::memory::KvPrecision;
use crate::source::Options;
use crate::speculation::GUESSES_MAX;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Bring a model file into this node's cache; prints JSON.
    Fetch(FetchArgs),
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
    /// SHA-256, in hex, of the bearer token of the admin endpoints; without one they are closed. The pod need not know the
    /// token itself, so no Secret is needed.
    #[arg(long, env = "QM_ADMIN_TOKEN_SHA256", value_parser = token_sha256)]
    pub admin_token_sha256: Option<TokenSha256>,
    /// Flash attention; by default as measured at the first start.
    #[arg(long, env = "QM_FLASH_ATTENTION", value_enum, default_value_t = Choice::Auto)]
    pub flash_attention: Choice,
    /// One KV cache for all requests, so that what they share is there once; by default as measured at the first start.
    #[arg(long, env = "QM_UNIFIED_KV", value_enum, default_value_t = Choice::Auto)]
    pub unified_kv: Choice,
    /// How the KV cache is kept: q8_0 takes half the memory of f16, costs a little quality and needs flash attention.
    #[arg(long, env = "QM_KV_PRECISION", value_enum, default_value_t = KvPrecision::F16)]
    pub kv_precision: KvPrecision,
    /// Tokens that the draft named in serve.json guesses ahead; 0 is none. By default as many as pay, by the measured costs and
    /// the share of guesses that held.
    #[arg(long, env = "QM_DRAFT_TOKENS", value_parser = clap::value_parser!(u32).range(0..=i64::from(GUESSES_MAX)))]
    pub draft_tokens: Option<u32>,
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
    #[arg(long, conflicts_with = "greedy")]
    pub relative_to: Option<PathBuf>,
    /// Print the tokens of the first window and the likeliest token after each instead, to compare with another engine.
    #[arg(long)]
    pub greedy: bool,
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

/// `fetch`.
#[derive(Clone, Debug, Parser)]
pub struct FetchArgs {
    /// file:///PATH, https://HOST/PATH, hf://ORG/REPO[@REVISION]/PATH, oci://REGISTRY/REPO:TAG#/PATH, s3://BUCKET/KEY,
    /// gs://BUCKET/KEY or pvc://CLAIM/PATH.
    #[arg(long)]
    pub source: String,
    /// SHA-256 that the file must have; with it, a file that is in the cache is found without asking the source.
    #[arg(long)]
    pub sha256: Option<String>,
    /// Also put the file here: as a hard link where the cache's file system allows it, so never write to it; else as a copy.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Where and how.
    #[command(flatten)]
    pub options: SourceArgs,
}

/// Where model files come from and go to. Buckets' endpoints and credentials are read from the environment (`AWS_*`,
/// `GOOGLE_*`), Hugging Face's token from `HF_TOKEN`.
#[derive(Clone, Debug, Parser)]
pub struct SourceArgs {
    /// Folder that the pods of a node share.
    #[arg(long, env = "QM_CACHE", default_value = "/var/cache/quartermaster")]
    pub cache: PathBuf,
    /// Most bytes in the cache: what was used least recently goes first, what is in use never. By default the disk decides.
    #[arg(long, env = "QM_CACHE_LIMIT_BYTES")]
    pub cache_limit_bytes: Option<u64>,
    /// Folder under which claims are mounted, each under its name.
    #[arg(long, env = "QM_PVC_ROOT", default_value = "/mnt/pvc")]
    pub pvc_root: PathBuf,
    /// CA certificates in PEM to trust beside the system's.
    #[arg(long, env = "QM_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Docker's config.json with credentials for registries; by default $DOCKER_CONFIG/config.json or ~/.docker/config.json.
    #[arg(long, env = "QM_DOCKER_CONFIG")]
    pub docker_config: Option<PathBuf>,
    /// Hugging Face, or what speaks its protocol.
    #[arg(long, env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
    pub hf_endpoint: String,
    /// Longest time for one file; what came by then is kept, and gone on with the next time.
    #[arg(long, env = "QM_FETCH_TIMEOUT_SECONDS", default_value_t = limits::FETCH_SECONDS_MAX)]
    pub fetch_timeout_seconds: u64,
    /// Seconds between two lines of progress in the log.
    #[arg(long, env = "QM_PROGRESS_SECONDS", default_value_t = limits::PROGRESS_SECONDS,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub progress_seconds: u64,
}

impl SourceArgs {
    /// The same for the library, with the token out of the environment.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            cache: self.cache.clone(),
            cache_limit_bytes: self.cache_limit_bytes,
            pvc_root: self.pvc_root.clone(),
            ca_file: self.ca_file.clone(),
            docker_config: self.docker_config.clone(),
            hf_endpoint: self.hf_endpoint.clone(),
            hf_token: std::env::var("HF_TOKEN").ok(),
            patience: Duration::from_secs(self.fetch_timeout_seconds),
            log_every: Duration::from_secs(self.progress_seconds),
        }
    }
}

/// What a bearer token is recognised by.
pub type TokenSha256 = [u8; 32];

fn token_sha256(text: &str) -> Result<TokenSha256, String> {
    let mut digest = TokenSha256::default();
    hex::decode_to_slice(text.trim(), &mut digest).map_err(|error| format!("not 64 hex digits: {error}"))?;
    Ok(digest)
}
