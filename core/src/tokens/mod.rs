//! How many tokens an answer is worth, how many samples, and when the stronger model is.
//!
//! Accuracy grows with the logarithm of tokens, `A(T) = a + b·ln T`, and cost with tokens. So there is a best number of them: where
//! one more costs as much as it wins, `b·v/T = c`. All functions here are of a request's own figures and of prices, which
//! the plan's shadow prices are part of: a budget that runs hot or a pool that is full makes tokens dearer, and answers shorter.
//!
//! Money is nano-USD as a float: these are weights of a decision. What is charged is the ledger's, in whole numbers.

pub mod allocate;
pub mod cascade;
pub mod learn;
pub mod sampling;
