//! Speculative decoding: a smaller variant guesses the next tokens, the served one computes them all in one pass and keeps
//! those that it would have said itself. The answer is the same, token by token; only the time differs.
//!
//! ```text
//! tokens ─▶ Drafter: k guesses ─▶ Scheduler: 1 + k rows ─▶ engine ─▶ sampler says which hold ─▶ Policy learns
//! ```

mod drafter;
mod policy;

pub use drafter::{Drafter, Guessed, Wanted};
pub use policy::{GUESSES_MAX, Policy};
