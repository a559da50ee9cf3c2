//! What a model will need, computed before it is loaded, so that a pod says "too large" with numbers and is not killed.

use crate::gguf::{Gguf, Shape};
use crate::kv::{KvCapacity, Sharing};
use crate::limits::{KEPT_SEQUENCES, PREFILL_TOKENS_MAX, SEQUENCES_MAX};
use clap::ValueEnum;
use serde::Serialize;

/// llama.cpp rounds a sequence's context up to this.
const CONTEXT_PADDING: u64 = 256;
/// Bytes that a vocabulary entry costs in llama.cpp's tables: the token, its merge, and their hash maps.
const VOCABULARY_ENTRY_BYTES: u64 = 480;
/// The process itself: code, runtime, threads, and the requests that are in its hands.
const PROCESS_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of a float in an activation.
const FLOAT_BYTES: u64 = 4;

/// How the KV cache is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvPrecision {
    /// Two bytes an element.
    #[default]
    F16,
    /// About half of that: blocks of 32 elements in 34 bytes. It needs flash attention.
    #[value(name = "q8_0")]
    Q8_0,
}

impl KvPrecision {
    /// Bytes of so many elements.
    #[must_use]
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::F16 => elements.saturating_mul(2),
            Self::Q8_0 => elements.div_ceil(32).saturating_mul(34),
        }
    }
}

/// What is to be served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Tokens of one request.
    pub context: u32,
    /// Requests side by side.
    pub slots: u32,
    /// Whether attention is computed without the score matrix.
    pub flash_attention: bool,
    /// Sequences of the KV cache: one a slot, and those that are kept for what begins like them.
    pub sequences: u32,
    /// How they share cells.
    pub sharing: Sharing,
    /// How it is kept.
    pub kv: KvPrecision,
    /// Rows of one request whose logits are read in one step: its next token's, and one for each guess of a draft.
    pub outputs_per_slot: u32,
}

impl Load {
    /// A load with a cache for `slots` requests of `context` tokens.
    #[must_use]
    pub fn new(context: u32, slots: u32, flash_attention: bool, sharing: Sharing) -> Self {
        let sequences = match sharing {
            Sharing::Cells => slots.saturating_add(KEPT_SEQUENCES).min(SEQUENCES_MAX),
            Sharing::Copies => slots,
        };
        Self { context, slots, flash_attention, sequences, sharing, kv: KvPrecision::F16, outputs_per_slot: 1 }
    }

    /// The same requests with another way to hold their cache.
    #[must_use]
    pub fn held(self, flash_attention: bool, sharing: Sharing) -> Self {
        let Self { kv, outputs_per_slot, .. } = self;
        Self { kv, outputs_per_slot, ..Self::new(self.context, self.slots, flash_attention, sharing) }
    }

    /// Tokens of one sequence as llama.cpp allocates them.
    #[must_use]
    pub fn padded_context(&self) -> u64 {
        u64::from(self.context).next_multiple_of(CONTEXT_PADDING)
    }

    /// Cells of the KV cache, for all sequences together.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.padded_context().saturating_mul(u64::from(self.slots))
    }

    /// What the scheduler may count on.
    #[must_use]
    pub fn capacity(&self) -> KvCapacity {
        let usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        KvCapacity { sequences: usize(self.sequences.into()), cells: usize(self.cells()), sharing: self.sharing }
    }

    /// Rows of the engine's batch: a chunk of prompt, and those of every slot that are read.
    #[must_use]
    pub fn batch(&self) -> u32 {
        PREFILL_TOKENS_MAX.saturating_add(self.slots.saturating_mul(self.outputs_per_slot))
    }

    /// Rows of a batch whose logits are read, at most. llama.cpp wants one for every sequence.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.slots.saturating_mul(self.outputs_per_slot).max(self.sequences)
    }
}

/// The estimate, part by part, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Tensors of the file.
    pub weights_bytes: u64,
    /// KV cache of every slot.
    pub kv_bytes: u64,
    /// Activations and logits of one batch.
    pub compute_bytes: u64,
    /// Vocabulary and the process.
    pub process_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// KV cache of one token.
    pub kv_bytes_per_token: u64,
}

impl Estimate {
    /// The estimate for this file under this load.
    #[must_use]
    pub fn of(gguf: &Gguf, shape: &Shape, load: Load) -> Self {
        let kv_bytes_per_token = load.kv.bytes(shape.kv_elements_per_token);
        let tokens = load.cells();
        let weights_bytes = gguf.tensor_bytes();
        let kv_bytes = kv_bytes_per_token.saturating_mul(tokens);
        let compute_bytes = compute_bytes(shape, load);
        let process_bytes = PROCESS_BYTES.saturating_add(shape.vocabulary.saturating_mul(VOCABULARY_ENTRY_BYTES));
        let parts = [weights_bytes, kv_bytes, compute_bytes, process_bytes];
        let total_bytes = parts.into_iter().fold(0, u64::saturating_add);
        Self { weights_bytes, kv_bytes, compute_bytes, process_bytes, total_bytes, kv_bytes_per_token }
    }

    /// With a second context on the same weights.
    #[must_use]
    pub fn beside(self, other: &Self) -> Self {
        let kv_bytes = self.kv_bytes.saturating_add(other.kv_bytes);
        let compute_bytes = self.compute_bytes.saturating_add(other.compute_bytes);
        let more = other.kv_bytes.saturating_add(other.compute_bytes);
        Self { kv_bytes, compute_bytes, total_bytes: self.total_bytes.saturating_add(more), ..self }
    }

    /// With another model in the same process.
    #[must_use]
    pub fn with(self, other: &Self) -> Self {
        let both = |own: u64, others: u64| own.saturating_add(others);
        let process_bytes = self.process_bytes.max(other.process_bytes);
        let total_bytes =
            both(self.total_bytes, other.total_bytes).saturating_sub(self.process_bytes.min(other.process_bytes));
        Self {
            weights_bytes: both(self.weights_bytes, other.weights_bytes),
            kv_bytes: both(self.kv_bytes, other.kv_bytes),
            compute_bytes: both(self.compute_bytes, other.compute_bytes),
            process_bytes,
            total_bytes,
            ..self
        }
    }

    /// One sentence with the numbers.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "needs {} MiB: weights {}, KV cache {}, buffers {}, process {}",
            mebibytes(self.total_bytes),
            mebibytes(self.weights_bytes),
            mebibytes(self.kv_bytes),
            mebibytes(self.compute_bytes),
            mebibytes(self.process_bytes)
        )
    }
}

/// Rounded up, so that a need never reads as less than it is.
#[must_use]
pub fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

/// llama.cpp's graph reuses its buffers, so the widest few tensors alive together count: the logits that are read, or the
/// feed-forward net's, or the attention scores.
fn compute_bytes(shape: &Shape, load: Load) -> u64 {
    let rows = u64::from(load.batch());
    let product = |factors: &[u64]| factors.iter().copied().fold(FLOAT_BYTES, u64::saturating_mul);
    let outputs = product(&[u64::from(load.outputs()), shape.vocabulary]);
    let feed_forward = product(&[rows, shape.feed_forward.saturating_mul(2).saturating_add(shape.embedding)]);
    let scores = match load.flash_attention {
        true => product(&[rows, shape.embedding, 4]),
        false => product(&[rows, shape.heads, load.padded_context(), 2]),
    };
    let activations = product(&[rows, shape.embedding]);
    // Once in the graph, once where they are read.
    outputs.max(feed_forward).max(scores).saturating_add(activations).saturating_add(outputs)
}
