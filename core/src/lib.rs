//! Quartermaster's decisions, as pure functions of values.
//!
//! ```text
//! telemetry ─▶ demand ─▶ plan ─▶ actuate          (operator)
//!      └────── Snapshot ──▲  └── Plan, Reason
//! ```
//!
//! Nothing here reads a clock, a file, a socket or a random number: time is an argument, and the same input gives the
//! same plan. [`snapshot`] is all that a decision may read, [`plan`] makes it, [`wire`] is what the binaries say to each
//! other, [`chat`] renders prompts the same way in gateway and engine, [`capacity`] says what a variant can do, [`demand`] what will
//! be asked for, and [`tokens`] how many of them an answer is worth. The plan does not use the last two yet.
//!
//! Read [`units`] first, then [`snapshot`], then [`plan`].
#![forbid(unsafe_code)]

pub mod capacity;
pub mod chat;
pub mod demand;
pub mod plan;
pub mod snapshot;
pub mod tokens;
pub mod units;
pub mod wire;
