//! Perplexity: how surprised a model is by a text. The measure of what a precision loses.

use crate::engine::llama::LlamaWeights;
use crate::engine::{Engine, EngineError, Row, Vocabulary};
use crate::exit::{Failure, Reason};
use crate::kv::{KvOp, Sharing};
use crate::memory::Load;
use crate::sampler::{Token, greedy};
use serde::Serialize;

/// Smallest window that makes sense.
const WINDOW_MIN: u32 = 8;
/// Rows that are computed at once.
const CHUNK: usize = 64;
/// Standard errors on either side of a 99 % interval.
const NORMAL_99: f64 = 2.576;

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// e^(mean surprise).
    pub ppl: f64,
    /// Standard error of the mean surprise, in nats.
    pub standard_error: f64,
    /// Tokens that were scored.
    pub tokens: u32,
}

/// What a model would say next at every place of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Greedy {
    /// The text.
    pub tokens: Vec<Token>,
    /// The likeliest token after each.
    pub next: Vec<Token>,
    /// Its logit.
    pub logits: Vec<f32>,
}

/// One perplexity over another on the same text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Relative {
    /// The other's perplexity over ours: 1 is as good.
    pub score: f64,
    /// Lower end of the 99 % interval of the score.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Surprise of each token of the text but the first, once, in windows that overlap by half.
///
/// # Errors
/// Where the text is too short or the engine fails.
pub fn measure(weights: &LlamaWeights, text: &str, window: u32, threads: usize) -> Result<Vec<f64>, Failure> {
    let engine_failed = |error: EngineError| Failure::new(Reason::EngineFailed, error.to_string());
    let tokens = begun(weights, text, window)?;
    let load = whole(window);
    let mut engine = weights.engine(load, threads).map_err(engine_failed)?;
    surprises(&mut engine, &tokens, window).map_err(engine_failed)
}

/// The tokens of a text as the model is asked about it.
fn begun(weights: &LlamaWeights, text: &str, window: u32) -> Result<Vec<Token>, Failure> {
    let specials = weights.specials();
    let tokens: Vec<Token> =
        specials.bos.filter(|_| specials.add_bos).into_iter().chain(weights.tokenize(text)).collect();
    if window < WINDOW_MIN || tokens.len() < 2 {
        let message = format!("a window of {window} on {} tokens: need {WINDOW_MIN} and 2 at least", tokens.len());
        return Err(Failure::new(Reason::BadConfig, message));
    }
    Ok(tokens)
}

fn surprises(engine: &mut dyn Engine, tokens: &[Token], window: u32) -> Result<Vec<f64>, EngineError> {
    let size = usize::try_from(window).unwrap_or(usize::MAX);
    let mut surprises = Vec::with_capacity(tokens.len());
    let mut start = 0;
    while surprises.len() + 1 < tokens.len() {
        let end = tokens.len().min(start + size);
        let window = tokens.get(start..end).unwrap_or_default();
        let known = surprises.len() - start;
        score_window(engine, window, known, &mut surprises)?;
        start += size / 2;
    }
    Ok(surprises)
}

/// Adds the surprise of each token after the first `known + 1` of the window.
fn score_window(
    engine: &mut dyn Engine,
    window: &[Token],
    known: usize,
    surprises: &mut Vec<f64>,
) -> Result<(), EngineError> {
    let targets = window.iter().skip(1).copied().map(Some).chain([None]);
    let rows: Vec<(Row, Option<Token>)> = (0..)
        .zip(window.iter().zip(targets))
        .map(|(position, (token, target))| {
            let wanted = target.filter(|_| usize::try_from(position).is_ok_and(|at| at >= known));
            (Row { sequence: 0, token: *token, position, logits: wanted.is_some() }, wanted)
        })
        .collect();
    for chunk in rows.chunks(CHUNK) {
        let plain: Vec<Row> = chunk.iter().map(|(row, _)| *row).collect();
        engine.step(&plain, &mut |index, logits| {
            if let Some((_, Some(target))) = chunk.get(index) {
                surprises.push(surprise(logits, *target));
            }
        })?;
    }
    engine.apply(KvOp::Keep { sequence: 0, tokens: 0 })
}

/// One text, all of whose logits are read.
fn whole(window: u32) -> Load {
    let rows = u32::try_from(CHUNK).unwrap_or(u32::MAX);
    Load { outputs_per_slot: rows, ..Load::new(window, 1, false, Sharing::Copies) }
}

/// The likeliest next token after each of the first `window` tokens of a text, and those tokens themselves.
///
/// # Errors
/// Where the text is too short or the engine fails.
pub fn likeliest(weights: &LlamaWeights, text: &str, window: u32, threads: usize) -> Result<Greedy, Failure> {
    let engine_failed = |error: EngineError| Failure::new(Reason::EngineFailed, error.to_string());
    let mut tokens = begun(weights, text, window)?;
    tokens.truncate(usize::try_from(window).unwrap_or(usize::MAX));
    let load = whole(window);
    let mut engine = weights.engine(load, threads).map_err(engine_failed)?;
    let rows = (0..).zip(&tokens).map(|(position, token)| Row { sequence: 0, token: *token, position, logits: true });
    let rows: Vec<Row> = rows.collect();
    let mut found = Vec::with_capacity(tokens.len());
    for chunk in rows.chunks(CHUNK) {
        let mut read = |_, logits: &[f32]| found.push(greedy(logits).unwrap_or((-1, f32::NAN)));
        engine.step(chunk, &mut read).map_err(engine_failed)?;
    }
    let (next, logits) = found.into_iter().unzip();
    Ok(Greedy { tokens, next, logits })
}

/// -ln p(target).
fn surprise(logits: &[f32], target: Token) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - f64::from(most)).exp()).sum();
    let own = usize::try_from(target).ok().and_then(|at| logits.get(at)).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() + f64::from(most) - f64::from(own)
}

/// Perplexity of a text whose tokens surprised so much.
#[must_use]
pub fn score(surprises: &[f64]) -> Score {
    let (mean, standard_error) = mean(surprises);
    Score { ppl: mean.exp(), standard_error, tokens: u32::try_from(surprises.len()).unwrap_or(u32::MAX) }
}

/// How `own` compares with `other` on the same tokens. The differences are paired, so what both find hard cancels out.
#[must_use]
pub fn relative(other: &[f64], own: &[f64]) -> Relative {
    let differences: Vec<f64> = other.iter().zip(own).map(|(other, own)| other - own).collect();
    let (mean, error) = mean(&differences);
    Relative { score: mean.exp(), low: (mean - NORMAL_99 * error).exp(), high: (mean + NORMAL_99 * error).exp() }
}

/// Mean and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX).max(1));
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, (variance / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Knows that the next token is one higher, with odds of e^3 to 1 against each other token.
    struct Counting {
        rows: usize,
    }

    impl Engine for Counting {
        fn step(&mut self, rows: &[Row], read: &mut dyn FnMut(usize, &[f32])) -> Result<Duration, EngineError> {
            self.rows += rows.len();
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.logits) {
                let mut logits = [0_f32; 64];
                logits[usize::try_from(row.token).unwrap() + 1] = 3.0;
                read(index, &logits);
            }
            Ok(Duration::ZERO)
        }

        fn apply(&mut self, _: KvOp) -> Result<(), EngineError> {
            Ok(())
        }
    }

    #[test]
    fn each_token_is_scored_once_with_its_softmax() {
        let tokens: Vec<Token> = (0..50).collect();
        let surprises = surprises(&mut Counting { rows: 0 }, &tokens, 16).unwrap();
        assert_eq!(surprises.len(), 49);
        let expected = (3_f64.exp() + 63.0) / 3_f64.exp();
        let score = score(&surprises);
        assert!((score.ppl - expected).abs() < 1e-6, "{score:?} {expected}");
        assert!(score.standard_error < 1e-6);
        assert_eq!(score.tokens, 49);
    }

    #[test]
    fn the_same_model_is_exactly_as_good_and_a_worse_one_is_not() {
        let best = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(relative(&best, &best), Relative { score: 1.0, low: 1.0, high: 1.0 });
        let worse: Vec<f64> = best.iter().zip([0.1, 0.2, 0.1, 0.2]).map(|(surprise, more)| surprise + more).collect();
        let relative = relative(&best, &worse);
        assert!(relative.low < relative.score && relative.score < relative.high && relative.high < 1.0, "{relative:?}");
    }

    #[test]
    fn a_wrong_guess_costs_more() {
        assert!(surprise(&[0.0, 3.0], 0) > surprise(&[0.0, 3.0], 1));
        assert!((surprise(&[1.0, 1.0], 0) - 2_f64.ln()).abs() < 1e-9);
    }
}
