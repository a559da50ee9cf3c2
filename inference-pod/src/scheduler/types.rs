//! What goes into the scheduler and what comes out.

use crate::kv::{KvCapacity, KvOp, Sequence};
use crate::queue::Flow;
use crate::sampler::Token;
use std::time::Duration;

/// A request, numbered by the driver in the order of arrival.
pub type RequestId = u64;

/// What the engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Requests that compute side by side.
    pub places: usize,
    /// Tokens of one request, prompt and answer.
    pub context: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Sequences and cells.
    pub kv: KvCapacity,
}

/// A request as it comes.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The prompt.
    pub tokens: Vec<Token>,
    /// Most tokens to generate.
    pub generate: usize,
    /// Whose, and how important.
    pub flow: Flow,
    /// Until when it may wait for a place.
    pub deadline: Option<Duration>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every place is taken and the queue is full.
    #[error("the queue is full")]
    QueueFull,
    /// It would never fit.
    #[error("it needs more tokens than a sequence has")]
    TooLarge,
    /// No prompt, or nothing to generate.
    #[error("it has no prompt or nothing to generate")]
    Empty,
    /// The number is in use.
    #[error("its number is in use")]
    Duplicate,
}

/// What one request computes in a step: tokens `from..from + count` of its text, then what was guessed to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub id: RequestId,
    /// In which sequence.
    pub sequence: Sequence,
    /// Position of the first token.
    pub from: usize,
    /// How many tokens, at least one.
    pub count: usize,
    /// Whether the last of them yields a new token.
    pub yields: bool,
    /// Tokens that may follow on the last one; each yields the one after it, if it holds.
    pub guesses: Vec<Token>,
}

/// A request that waits for its next token, and how many tokens may be guessed beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Which.
    pub id: RequestId,
    /// Most guesses: what is guessed and held counts as generated.
    pub most: usize,
}

/// A request that begins to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which.
    pub id: RequestId,
    /// How many of its tokens need not be computed.
    pub cached: usize,
}

/// One step: at most one [`Work`] for each running request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Requests that waited too long; they are gone.
    pub expired: Vec<RequestId>,
    /// Requests that got their sequence in this step.
    pub begun: Vec<Begun>,
    /// Requests that must wait and compute again, since the KV cache ran out.
    pub preempted: Vec<RequestId>,
    /// What the engine does before it computes.
    pub ops: Vec<KvOp>,
    /// What it computes; those who wait for their next token first.
    pub work: Vec<Work>,
}

impl Step {
    /// Tokens in the batch.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.work.iter().map(|work| work.count + work.guesses.len()).sum()
    }
}
