//! One short measurement before serving: it proves that the engine computes, and says how fast at full slots.

use super::{Engine, EngineError, Row};
use crate::kv::{KvOp, Sequence};
use crate::limits::{WARM_UP_MAX, WARM_UP_PROMPT_TOKENS, WARM_UP_STEPS_MAX};
use std::time::{Duration, Instant};

/// What the warm-up saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp {
    /// Tokens of all slots together in a second, each slot decoding.
    pub decode_tokens_per_second: f64,
    /// Steps that were measured.
    pub steps: u32,
}

/// Decodes in the first `slots` sequences at once, then forgets it all. `token` is any token of the vocabulary; a sequence holds `context`.
///
/// # Errors
/// Where the engine fails, or its first logits are no numbers.
pub fn run(engine: &mut dyn Engine, slots: u32, context: u32, token: i32) -> Result<WarmUp, EngineError> {
    let sequences = 0..Sequence::try_from(slots).unwrap_or(1);
    let prompts: Vec<Row> = sequences
        .clone()
        .flat_map(|sequence| {
            let row = move |position| Row { sequence, token, position, logits: position + 1 == WARM_UP_PROMPT_TOKENS };
            (0..WARM_UP_PROMPT_TOKENS).map(row)
        })
        .collect();
    let rows = usize::try_from(WARM_UP_PROMPT_TOKENS).unwrap_or(1).saturating_mul(8).max(1);
    for chunk in prompts.chunks(rows) {
        checked_step(engine, chunk)?;
    }
    let steps_max = WARM_UP_STEPS_MAX.min(context.saturating_sub(WARM_UP_PROMPT_TOKENS));
    let begin = Instant::now();
    let mut steps = 0;
    while steps == 0 || (steps < steps_max && begin.elapsed() < WARM_UP_MAX) {
        let position = WARM_UP_PROMPT_TOKENS + steps;
        let rows = sequences.clone().map(|sequence| Row { sequence, token, position, logits: true });
        let rows: Vec<Row> = rows.collect();
        checked_step(engine, &rows)?;
        steps += 1;
    }
    let seconds = begin.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    sequences.into_iter().try_for_each(|sequence| engine.apply(KvOp::Keep { sequence, tokens: 0 }))?;
    Ok(WarmUp { decode_tokens_per_second: f64::from(slots) * f64::from(steps) / seconds, steps })
}

fn checked_step(engine: &mut dyn Engine, rows: &[Row]) -> Result<(), EngineError> {
    let mut finite = true;
    engine.step(rows, &mut |_, logits| finite &= logits.first().is_some_and(|logit| logit.is_finite()))?;
    if finite {
        Ok(())
    } else {
        Err(EngineError { attempt: "warming up", cause: "the model's logits are no numbers".into() })
    }
}
