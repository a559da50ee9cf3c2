//! What was measured of variants: what more tokens buy, what a step costs, and how many requests a replica takes.

pub mod quality_curve;
pub mod queueing;
pub mod step;
