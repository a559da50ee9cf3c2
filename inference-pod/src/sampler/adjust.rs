//! What a request changes in the logits before anything is drawn: bias for tokens it names, penalties for tokens that
//! were there before.

use super::Token;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Added to the logits of tokens (OpenAI's `logit_bias`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bias(pub Arc<[(Token, f32)]>);

/// Penalties as OpenAI and vLLM define them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Taken off once a token was generated.
    pub presence: f32,
    /// Taken off for each time that a token was generated.
    pub frequency: f32,
    /// Divides the positive logits, and multiplies the negative ones, of tokens in the prompt or the answer; 1 is none.
    pub repetition: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { presence: 0.0, frequency: 0.0, repetition: 1.0 }
    }
}

impl Penalties {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The request's changes, and what they depend on.
#[derive(Clone, Debug)]
pub(super) struct Adjust {
    penalties: Penalties,
    bias: Bias,
    prompt: BTreeSet<Token>,
    generated: BTreeMap<Token, u16>,
}

impl Adjust {
    pub(super) fn new(penalties: Penalties, bias: Bias, prompt: &[Token]) -> Self {
        let repeats = penalties.repetition != Penalties::default().repetition;
        let prompt = if repeats { prompt.iter().copied().collect() } else { BTreeSet::new() };
        Self { penalties, bias, prompt, generated: BTreeMap::new() }
    }

    /// Whether it changes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.bias.0.is_empty() && self.penalties.is_none()
    }

    pub(super) fn saw(&mut self, token: Token) {
        if !self.penalties.is_none() {
            let times = self.generated.entry(token).or_default();
            *times = times.saturating_add(1);
        }
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        for token in self.prompt.iter().filter(|token| !self.generated.contains_key(token)) {
            change(logits, *token, |logit| self.repeated(logit));
        }
        for (token, times) in &self.generated {
            let off = self.penalties.presence + self.penalties.frequency * f32::from(*times);
            change(logits, *token, |logit| self.repeated(logit) - off);
        }
        for (token, bias) in self.bias.0.iter() {
            change(logits, *token, |logit| logit + bias);
        }
    }

    fn repeated(&self, logit: f32) -> f32 {
        if logit > 0.0 { logit / self.penalties.repetition } else { logit * self.penalties.repetition }
    }
}

fn change(logits: &mut [f32], token: Token, by: impl Fn(f32) -> f32) {
    if let Some(logit) = usize::try_from(token).ok().and_then(|at| logits.get_mut(at)) {
        *logit = by(*logit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_penalty_counts_what_it_should() {
        let penalties = Penalties { presence: 1.0, frequency: 0.5, repetition: 2.0 };
        let mut adjust = Adjust::new(penalties, Bias(Arc::from([(3, -10.0)])), &[0, 1]);
        [1, 2, 2].into_iter().for_each(|token| adjust.saw(token));
        let mut logits = [4.0, -4.0, 4.0, 4.0, 4.0];
        adjust.apply(&mut logits);
        // In the prompt; in the prompt and once generated; twice generated; biased; untouched.
        assert_eq!(logits, [2.0, -8.0 - 1.5, 2.0 - 2.0, -6.0, 4.0]);
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        let mut adjust = Adjust::new(Penalties::default(), Bias::default(), &[1]);
        adjust.saw(1);
        assert!(adjust.is_idle() && adjust.generated.is_empty());
        // A token beyond the vocabulary is nobody's.
        Adjust::new(Penalties::default(), Bias(Arc::from([(99, 1.0)])), &[]).apply(&mut [0.0]);
    }
}
