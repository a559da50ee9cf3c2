//! What goes into the driver and what comes out.

use crate::constraint::Constraint;
use crate::metrics::Outcome;
use crate::sampler::{Sampling, Token};
use crate::scheduler::Flow;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// A request as the driver takes it.
#[derive(Debug)]
pub struct Job {
    /// Tokens of the prompt.
    pub prompt: Vec<Token>,
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// How to draw them.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Goes on after the model's own end, for measurements.
    pub ignore_end: bool,
    /// Where tokens go. Unbounded, yet it never holds more than `max_tokens` events.
    pub events: UnboundedSender<Event>,
    /// Its place among the requests that this pod takes at once.
    pub permit: Option<OwnedSemaphorePermit>,
    /// When it came.
    pub arrived: Instant,
    /// Whose, and how important.
    pub flow: Flow,
    /// Until when it may wait for a place.
    pub deadline: Option<Instant>,
}

/// What the inbox takes.
#[derive(Debug)]
pub enum Message {
    /// A request.
    Run(Box<Job>),
    /// Give everything up and return.
    Stop,
}

/// What a request hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was generated; `text` is what became certain by it, maybe nothing.
    Token {
        /// New text.
        text: String,
        /// The token, where the request wants to know.
        said: Option<Box<Said>>,
    },
    /// The last token was generated.
    Done {
        /// The rest of the text.
        text: String,
        /// The token, where the request wants to know.
        said: Option<Box<Said>>,
        /// Stop or length.
        outcome: Outcome,
    },
    /// Its prompt is about to be computed, but for these tokens, which the cache holds. Said once.
    Begun {
        /// Tokens of the prompt that need not be computed.
        cached: u32,
    },
    /// It waited too long for a place.
    Expired,
    /// It can't go on.
    Failed(String),
}

/// A token and its odds.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The token's bytes; none for one that ends the answer.
    pub bytes: Vec<u8>,
    /// ln p(token).
    pub logprob: f32,
    /// The likeliest tokens' bytes and log odds.
    pub top: Vec<(Vec<u8>, f32)>,
    /// Of the distribution, in nats.
    pub entropy: Option<f32>,
    /// Whether the token ends the answer and so is no part of it.
    pub ends: bool,
}
