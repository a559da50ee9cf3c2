//! All that can be known to be wrong before llama.cpp is asked to load anything.

use crate::cgroup;
use crate::exit::{Failure, Reason};
use crate::gguf::{Gguf, GgufError, Shape};
use crate::kv::Sharing;
use crate::limits::{EMBEDDING_ROWS, EMBEDDING_TOKENS_MAX};
use crate::memory::{Estimate, KvPrecision, Load, mebibytes};
use crate::speculation::GUESSES_MAX;
use quartermaster_core::wire::serve::ServeConfig;
use std::path::Path;

/// What tells one tokenizer from another.
const VOCABULARY: &str = "tokenizer.ggml.tokens";
/// Architectures that llama.cpp computes without a KV cache: encoders, and those that fill in a whole text at once.
const WITHOUT_CACHE: [&str; 15] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "t5encoder",
    "dream",
    "llada",
    "llada-moe",
    "rnd1",
    "wavtokenizer-dec",
];
/// Elements that a quantised cache keeps together.
const KV_BLOCK: u64 = 32;

/// A model file that was looked through and fits.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The variant's name.
    pub variant: String,
    /// The file's header.
    pub gguf: Gguf,
    /// Its dimensions.
    pub shape: Shape,
    /// What it will need.
    pub estimate: Estimate,
    /// What is to be served.
    pub load: Load,
    /// What embeds texts beside it; none where memory has no room for that.
    pub embedding: Option<Load>,
    /// What guesses ahead for it; none where none is named, or memory has no room for that.
    pub draft: Option<Draft>,
}

/// A variant that guesses ahead.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name.
    pub variant: String,
    /// The file's header.
    pub gguf: Gguf,
    /// Its context: as many sequences as there are slots, each with cells of its own.
    pub load: Load,
}

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Self {
        let reason = match error {
            GgufError::NotFound(_) => Reason::ModelNotFound,
            GgufError::Io { .. } => Reason::SystemFailed,
            GgufError::Corrupt { .. } => Reason::CorruptModel,
        };
        Self::new(reason, error.to_string())
    }
}

/// Reads the header and the dimensions.
///
/// # Errors
/// `ModelNotFound` or `CorruptModel`.
pub fn inspect(path: &Path) -> Result<(Gguf, Shape), Failure> {
    let gguf = Gguf::open(path)?;
    let shape = Shape::of(&gguf)?;
    if gguf.tensors.is_empty() {
        return Err(gguf.corrupt("it holds no tensors").into());
    }
    if WITHOUT_CACHE.contains(&shape.architecture.as_str()) {
        let (path, architecture) = (path.display(), &shape.architecture);
        let message = format!("model file {path}: architecture {architecture} writes no text token by token");
        return Err(Failure::new(Reason::BadConfig, message));
    }
    Ok((gguf, shape))
}

/// Checks the served variant against the config and the memory limit.
///
/// # Errors
/// `BadConfig`, `ModelNotFound`, `CorruptModel` or `ModelTooLarge`, with the numbers.
pub fn prepare(config: &ServeConfig, limits: cgroup::Limits, kv: KvPrecision) -> Result<Prepared, Failure> {
    let file = config.served().ok_or_else(|| Failure::new(Reason::BadConfig, "variant is none of variants"))?;
    let (gguf, shape) = inspect(Path::new(&file.path))?;
    if u64::from(config.context_tokens) > shape.context {
        let (wanted, trained) = (config.context_tokens, shape.context);
        let message = format!("contextTokens is {wanted}; variant {} was trained for at most {trained}", file.name);
        return Err(Failure::new(Reason::BadConfig, message));
    }
    // The way that takes most memory: which one is taken is measured later.
    let head = shape.embedding.checked_div(shape.heads).unwrap_or_default();
    if kv == KvPrecision::Q8_0 && head % KV_BLOCK != 0 {
        let message = format!(
            "kv precision q8_0: variant {} has heads of {head}, not a multiple of {KV_BLOCK}; use f16",
            file.name
        );
        return Err(Failure::new(Reason::BadConfig, message));
    }
    let outputs_per_slot = if config.drafting().is_some() { 1 + GUESSES_MAX } else { 1 };
    let load = Load::new(config.context_tokens, config.slots, false, Sharing::Cells);
    let load = Load { kv, outputs_per_slot, ..load };
    let estimate = Estimate::of(&gguf, &shape, load);
    let limit = config.memory_limit_bytes.into_iter().chain(limits.memory_bytes).min();
    match limit {
        Some(limit) if estimate.total_bytes > limit => {
            let message = format!(
                "variant {} {} (context {} x slots {}); the limit is {} MiB on {} x {}",
                file.name,
                estimate.sentence(),
                config.context_tokens,
                config.slots,
                limit / (1024 * 1024),
                config.devices,
                config.hardware_class
            );
            Err(Failure::new(Reason::ModelTooLarge, message))
        }
        _ => {
            let embedding = Load::new(config.context_tokens.min(EMBEDDING_TOKENS_MAX), 1, false, Sharing::Copies);
            let embedding = Load { outputs_per_slot: EMBEDDING_ROWS, ..embedding };
            let both = estimate.beside(&Estimate::of(&gguf, &shape, embedding));
            let fits = limit.is_none_or(|limit| both.total_bytes <= limit);
            let (estimate, embedding) = if fits { (both, Some(embedding)) } else { (estimate, None) };
            let (need_mib, embeds) = (mebibytes(estimate.total_bytes), fits);
            tracing::info!(variant = file.name, need_mib, embeds, ?limit, "the model fits");
            let (estimate, draft) = draft(config, &gguf, estimate, limit)?;
            Ok(Prepared { variant: file.name.clone(), gguf, shape, estimate, load, embedding, draft })
        }
    }
}

/// The variant that guesses ahead, as far as memory has room for it, and the estimate with it.
fn draft(
    config: &ServeConfig,
    served: &Gguf,
    estimate: Estimate,
    limit: Option<u64>,
) -> Result<(Estimate, Option<Draft>), Failure> {
    let Some(file) = config.drafting() else { return Ok((estimate, None)) };
    let (gguf, shape) = inspect(Path::new(&file.path))?;
    if gguf.list(VOCABULARY) != served.list(VOCABULARY) {
        let message = format!("draft {} has another tokenizer than variant {}", file.name, config.variant);
        return Err(Failure::new(Reason::BadConfig, message));
    }
    if u64::from(config.context_tokens) > shape.context {
        let (wanted, trained) = (config.context_tokens, shape.context);
        let message = format!("contextTokens is {wanted}; draft {} was trained for at most {trained}", file.name);
        return Err(Failure::new(Reason::BadConfig, message));
    }
    let load = Load::new(config.context_tokens, config.slots, true, Sharing::Copies);
    let both = estimate.with(&Estimate::of(&gguf, &shape, load));
    let fits = limit.is_none_or(|limit| both.total_bytes <= limit);
    tracing::info!(draft = file.name, need_mib = mebibytes(both.total_bytes), fits, "a variant that guesses ahead");
    let found = Draft { variant: file.name.clone(), gguf, load };
    Ok(if fits { (both, Some(found)) } else { (estimate, None) })
}
