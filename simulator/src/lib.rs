//! Discrete-event simulation of what the operator steers. So far its smallest part: one [`replica`], step by step.
//!
//! Time and randomness are arguments; the same input gives the same run.
#![forbid(unsafe_code)]

pub mod replica;
