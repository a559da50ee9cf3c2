//! What one step of an engine costs: every running request gets a token, and beside them prompts are computed in chunks.
//!
//! `t = overhead + base + sequence·B + context·ctx + prompt·p + attention·a`, in milliseconds: `B` sequences that decode with
//! `ctx` tokens of context together, `p` tokens of prompts, and `a` the growth of the squares of their lengths. Kernels are
//! measured (`profile`), what the engine spends around them is learnt ([`StepCost::overhead_ms`]).

use serde::{Deserialize, Serialize};

/// The coefficients of one variant on one replica of a hardware class, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepCost {
    /// Of any step: what the engine does around its kernels.
    pub overhead_ms: f64,
    /// Of any step: the weights are read once.
    pub base_ms: f64,
    /// Of each sequence that gets a token.
    pub sequence_ms: f64,
    /// Of each token of context of such a sequence.
    pub context_ms: f64,
    /// Of a step with a prompt in it, instead of `base_ms` where that is less.
    pub prompt_base_ms: f64,
    /// Of each token of a prompt.
    pub prompt_ms: f64,
    /// Of a prompt, for each unit of its length squared.
    pub attention_ms: f64,
}

/// What a step computes. In a mean over steps these are no whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLoad {
    /// Sequences that get a token.
    pub sequences: f64,
    /// Tokens of their context, together.
    pub context_tokens: f64,
    /// Tokens of prompts.
    pub prompt_tokens: f64,
    /// By how much these let the squares of their prompts' computed lengths grow.
    pub prompt_squares: f64,
}

impl StepCost {
    /// Milliseconds of a step.
    #[must_use]
    pub fn of(&self, load: StepLoad) -> f64 {
        let base = if load.prompt_tokens > 0.0 { self.base_ms.max(self.prompt_base_ms) } else { self.base_ms };
        self.overhead_ms + base + self.marginal(load)
    }

    /// What the load itself adds to a step.
    #[must_use]
    pub fn marginal(&self, load: StepLoad) -> f64 {
        self.sequence_ms * load.sequences
            + self.context_ms * load.context_tokens
            + self.prompt_ms * load.prompt_tokens
            + self.attention_ms * load.prompt_squares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_costs_its_parts() {
        let cost = StepCost {
            overhead_ms: 2.0,
            base_ms: 6.0,
            sequence_ms: 0.01,
            context_ms: 1e-4,
            prompt_base_ms: 7.0,
            prompt_ms: 0.02,
            attention_ms: 1e-6,
        };
        let decode = StepLoad { sequences: 10.0, context_tokens: 5_000.0, ..StepLoad::default() };
        assert!((cost.of(decode) - 8.6).abs() < 1e-9);
        let mixed = StepLoad { prompt_tokens: 100.0, prompt_squares: 10_000.0, ..decode };
        assert!((cost.of(mixed) - (2.0 + 7.0 + 0.6 + 2.0 + 0.01)).abs() < 1e-9, "the weights are read once");
    }
}
