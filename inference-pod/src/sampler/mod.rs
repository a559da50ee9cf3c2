//! From logits to a token: bias, penalties and constraint, then greedy or temperature, top-k, min-p and nucleus with a
//! seeded generator.

mod adjust;
mod report;

pub use adjust::{Bias, Penalties};
pub use report::{Report, TokenOdds};

use crate::constraint::{Constraint, ConstraintError};
use adjust::Adjust;

/// A token's number in the vocabulary.
pub type Token = i32;

/// How a request wants its tokens drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Smallest probability mass to draw from.
    pub top_p: f64,
    /// Most tokens to draw from; 0 is all.
    pub top_k: usize,
    /// Least odds of a token to draw, as a share of the best one's.
    pub min_p: f64,
    /// Start of the generator.
    pub seed: u64,
    /// For tokens that were there before.
    pub penalties: Penalties,
    /// Added to the logits of these tokens.
    pub bias: Bias,
    /// What is told of each token.
    pub report: Report,
}

impl Sampling {
    /// Greedy or not, all tokens, nothing told.
    #[must_use]
    pub fn plain(temperature: f64, top_p: f64, seed: u64) -> Self {
        let (penalties, bias, report) = (Penalties::default(), Bias::default(), Report::default());
        Self { temperature, top_p, top_k: 0, min_p: 0.0, seed, penalties, bias, report }
    }
}

/// A token that was drawn, and what the request wants to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: Token,
    /// Where [`Report`] asks for it.
    pub odds: Option<TokenOdds>,
}

/// Why no token was drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// The model computes nonsense.
    #[error("the model's output is no number")]
    NotANumber,
    /// The constraint failed or leaves no token.
    #[error("the grammar or schema: {0}")]
    Constraint(#[from] ConstraintError),
}

/// Odds below e^-30 of the best are never drawn.
const NEGLIGIBLE: f64 = -30.0;

/// Draws one request's tokens.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    adjust: Adjust,
    constraint: Option<Constraint>,
    state: u64,
    weights: Vec<(f64, Token)>,
    adjusted: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of its seed, for a request with this prompt.
    #[must_use]
    pub fn new(sampling: Sampling, constraint: Option<Constraint>, prompt: &[Token]) -> Self {
        let adjust = Adjust::new(sampling.penalties, sampling.bias.clone(), prompt);
        let (state, weights, adjusted) = (sampling.seed, Vec::new(), Vec::new());
        Self { sampling, adjust, constraint, state, weights, adjusted }
    }

    /// The next token.
    ///
    /// # Errors
    /// Where no logit is a number, or the constraint allows no token.
    pub fn draw(&mut self, logits: &[f32]) -> Result<Drawn, DrawError> {
        let token = if self.adjust.is_idle() && self.constraint.is_none() {
            self.choose(logits)?
        } else {
            let mut adjusted = std::mem::take(&mut self.adjusted);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust.apply(&mut adjusted);
            if let Some(constraint) = &mut self.constraint {
                constraint.mask(&mut adjusted)?;
            }
            let token = self.choose(&adjusted);
            self.adjusted = adjusted;
            token?
        };
        self.adjust.saw(token);
        if let Some(constraint) = &mut self.constraint {
            constraint.take(token)?;
        }
        Ok(Drawn { token, odds: self.sampling.report.of(token, logits) })
    }

    /// Whether the constraint is complete, so that nothing may follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_complete)
    }

    fn choose(&mut self, logits: &[f32]) -> Result<Token, DrawError> {
        let (best, most) = greedy(logits).ok_or(DrawError::NotANumber)?;
        if self.sampling.temperature <= 0.0 {
            return Ok(best);
        }
        let least = NEGLIGIBLE.max(if self.sampling.min_p > 0.0 { self.sampling.min_p.ln() } else { NEGLIGIBLE });
        self.weights.clear();
        let mut total = 0.0;
        for (token, logit) in (0..).zip(logits) {
            let power = (f64::from(*logit) - f64::from(most)) / self.sampling.temperature;
            if power >= least {
                let weight = power.exp();
                total += weight;
                self.weights.push((weight, token));
            }
        }
        if self.sampling.top_k > 0 && self.sampling.top_k < self.weights.len() {
            total = self.keep_best(self.sampling.top_k);
        }
        if self.sampling.top_p < 1.0 {
            total = self.keep_nucleus(total);
        }
        let mut left = self.uniform() * total;
        for (weight, token) in &self.weights {
            left -= weight;
            if left < 0.0 {
                return Ok(*token);
            }
        }
        Ok(best)
    }

    /// Keeps the `count` likeliest tokens and returns their weight.
    fn keep_best(&mut self, count: usize) -> f64 {
        self.weights.select_nth_unstable_by(count, by_weight);
        self.weights.truncate(count);
        self.weights.sort_unstable_by(by_weight);
        self.weights.iter().map(|(weight, _)| weight).sum()
    }

    /// Keeps the likeliest tokens that together reach `top_p`, and returns their weight.
    fn keep_nucleus(&mut self, total: f64) -> f64 {
        self.weights.sort_unstable_by(by_weight);
        let wanted = self.sampling.top_p * total;
        let mut mass = 0.0;
        let mut kept = 0;
        for (weight, _) in &self.weights {
            mass += weight;
            kept += 1;
            if mass >= wanted {
                break;
            }
        }
        self.weights.truncate(kept);
        mass
    }

    /// A number in [0, 1): SplitMix64, its upper 32 bits.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let upper = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The heavier first; ties go to the lower token, so that the order is the same on every machine.
fn by_weight(a: &(f64, Token), b: &(f64, Token)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The likeliest token and its logit; the first of equals. None where no logit is a number.
#[must_use]
pub fn greedy(logits: &[f32]) -> Option<(Token, f32)> {
    // The maximum of a block is found without a branch, many at once; only a block that holds a better one is looked through.
    let mut best: Option<(usize, f32)> = None;
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        let most = values.iter().fold(f32::NEG_INFINITY, |most, logit| if *logit > most { *logit } else { most });
        if most < f32::INFINITY && best.is_some_and(|(_, found)| most <= found) {
            continue;
        }
        for (at, logit) in values.iter().enumerate().filter(|(_, logit)| logit.is_finite()) {
            if best.is_none_or(|(_, found)| *logit > found) {
                best = Some((block * BLOCK + at, *logit));
            }
        }
    }
    best.and_then(|(at, logit)| Some((Token::try_from(at).ok()?, logit)))
}

/// Logits whose maximum is taken at once.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests;
