//! What a request wants to know of each token: its odds, the likeliest others, and how sure the model was.

use super::Token;

/// What to tell. By default nothing, which costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The token's log odds.
    pub logprob: bool,
    /// How many of the likeliest tokens to tell.
    pub top: usize,
    /// The entropy of all tokens' odds.
    pub entropy: bool,
}

/// Of one token, under the model's own odds: before bias, penalties, temperature and constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenOdds {
    /// ln p(token).
    pub logprob: f32,
    /// The likeliest tokens with theirs, the likeliest first.
    pub top: Vec<(Token, f32)>,
    /// Of the distribution, in nats.
    pub entropy: Option<f32>,
}

/// JSON knows no infinity: log odds of a token that can't be. The value is vLLM's and OpenAI's.
const IMPOSSIBLE: f32 = -9999.0;

impl Report {
    pub(super) fn of(&self, token: Token, logits: &[f32]) -> Option<TokenOdds> {
        if !self.logprob && !self.entropy && self.top == 0 {
            return None;
        }
        let most = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut weighted) = (0.0_f64, 0.0_f64);
        for logit in logits.iter().filter(|logit| logit.is_finite()) {
            let below = f64::from(*logit) - f64::from(most);
            sum += below.exp();
            weighted += below * below.exp();
        }
        let normal = f64::from(most) + sum.ln();
        let logprob = |logit: f32| {
            let odds = narrow(f64::from(logit) - normal);
            if odds.is_finite() { odds.max(IMPOSSIBLE) } else { IMPOSSIBLE }
        };
        let own = usize::try_from(token).ok().and_then(|at| logits.get(at)).copied().unwrap_or(f32::NEG_INFINITY);
        let top = likeliest(logits, self.top).into_iter().map(|(token, logit)| (token, logprob(logit))).collect();
        let entropy = self.entropy.then(|| narrow(sum.ln() - weighted / sum).max(0.0));
        Some(TokenOdds { logprob: logprob(own), top, entropy })
    }
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the nearest float is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// The `count` highest, the highest first; ties go to the lower token.
fn likeliest(logits: &[f32], count: usize) -> Vec<(Token, f32)> {
    let mut best: Vec<(Token, f32)> = Vec::with_capacity(count.saturating_add(1));
    for (token, logit) in (0..).zip(logits.iter().copied()) {
        if best.len() == count && best.last().is_none_or(|(_, least)| logit <= *least) {
            continue;
        }
        let at = best.partition_point(|(_, other)| *other >= logit);
        best.insert(at, (token, logit));
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_entropy_and_the_likeliest() {
        let logits = [0.5_f32.ln(), 0.25_f32.ln(), 0.125_f32.ln(), 0.125_f32.ln(), f32::NEG_INFINITY];
        let odds = Report { logprob: true, top: 3, entropy: true }.of(1, &logits).unwrap();
        assert!((odds.logprob - 0.25_f32.ln()).abs() < 1e-6);
        assert_eq!(odds.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1, 2]);
        assert!((odds.entropy.unwrap() - 1.75 * 2_f32.ln()).abs() < 1e-6);
        let report = Report { logprob: true, ..Report::default() };
        assert!((report.of(4, &logits).unwrap().logprob - IMPOSSIBLE).abs() < 1.0);
    }

    #[test]
    fn nothing_asked_is_nothing_computed() {
        assert_eq!(Report::default().of(0, &[1.0]), None);
    }
}
