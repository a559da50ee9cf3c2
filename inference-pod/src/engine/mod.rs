//! The engine behind a trait: one forward pass over rows of many sequences, and a vocabulary.
//!
//! The driver owns the engine on one thread; nothing else touches it. The vocabulary is shared and read only.

pub mod embed;
pub mod llama;
mod raw;
pub mod thread;
pub mod warm_up;

use crate::kv::{KvOp, Sequence};
use crate::sampler::Token;
use crate::tokenizer::Specials;
use std::time::Duration;

/// One token of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its sequence.
    pub sequence: Sequence,
    /// The token.
    pub token: Token,
    /// Its place in the sequence.
    pub position: u32,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// A step or a sequence's end that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{attempt}: {cause}")]
pub struct EngineError {
    /// What was attempted.
    pub attempt: &'static str,
    /// What the engine said.
    pub cause: String,
}

/// Computes rows.
pub trait Engine {
    /// Computes all rows in one pass, then calls `read` with the index of each row that wanted logits, and these.
    /// Gives how long it computed, without the wait for its turn.
    ///
    /// # Errors
    /// Where the pass failed: the sequences in it are then of no use.
    fn step(&mut self, rows: &[Row], read: &mut dyn FnMut(usize, &[f32])) -> Result<Duration, EngineError>;

    /// Follows the scheduler's account of the KV cache.
    ///
    /// # Errors
    /// Where the engine refuses.
    fn apply(&mut self, op: KvOp) -> Result<(), EngineError>;
}

/// Text ↔ tokens.
pub trait Vocabulary: Send + Sync {
    /// The tokens of `text`, special tokens in it included, none added.
    fn tokenize(&self, text: &str) -> Vec<Token>;
    /// The bytes that a token stands for; none for a special token.
    fn piece(&self, token: Token) -> Vec<u8>;
    /// Whether this token ends an answer.
    fn ends(&self, token: Token) -> bool;
    /// Special tokens and when they are added.
    fn specials(&self) -> Specials;
    /// Bytes of the longest token: a text of `n` bytes has at least `n / this` tokens.
    fn longest_token_bytes(&self) -> usize;
    /// Size of the vocabulary: its tokens are 0 up to this.
    fn tokens(&self) -> usize;
}
