//! What a variant can do: how good its answers are, and at how many tokens.

pub mod quality_curve;
