//! What a step costs on this hardware with this file: measured at the first start, kept for the next ones.
//!
//! ```text
//! decode step: α + β·sequences + γ·tokens of context        prompt: seconds a token
//! ```
//! The operator's plan takes its capacities from here. On the same occasion it is measured how the KV cache is best
//! held and whether flash attention pays, since both differ from CPU to CPU.

mod fit;
mod store;

pub use fit::{Sample, fit};
pub use store::Store;

use crate::engine::llama::{LlamaEngine, LlamaWeights};
use crate::engine::{Engine, EngineError, Row, Vocabulary};
use crate::kv::{KvOp, Sequence, Sharing};
use crate::limits::{PREFILL_TOKENS_MAX, PROFILE_CONTEXT, PROFILE_MAX, PROFILE_STEPS};
use crate::memory::Load;
use crate::sampler::Token;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Costs and choices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// α: seconds of a decode step, whatever is in it.
    pub step_seconds: f64,
    /// β: seconds more for each sequence in it.
    pub sequence_seconds: f64,
    /// γ: seconds more for each token that the sequences hold.
    pub context_token_seconds: f64,
    /// Seconds of a prompt's token.
    pub prompt_token_seconds: f64,
    /// Whether flash attention is quicker.
    pub flash_attention: bool,
    /// Whether one cache for all is quicker than one for each sequence.
    pub shared_cells: bool,
}

impl Profile {
    /// Seconds of a step that decodes in so many sequences of so many tokens each.
    #[must_use]
    pub fn decode_seconds(&self, sequences: u32, context: u32) -> f64 {
        let (sequences, context) = (f64::from(sequences), f64::from(context));
        self.step_seconds + sequences * (self.sequence_seconds + context * self.context_token_seconds)
    }

    /// How the cache is held.
    #[must_use]
    pub fn way(&self) -> Way {
        (self.flash_attention, if self.shared_cells { Sharing::Cells } else { Sharing::Copies })
    }

    /// The load as this profile has it.
    #[must_use]
    pub fn choose(&self, load: Load) -> Load {
        let (flash_attention, sharing) = self.way();
        load.held(flash_attention, sharing)
    }
}

/// A way to hold the cache: with flash attention or not, and whether sequences share cells.
pub type Way = (bool, Sharing);
/// All that make sense, the one that is never bad on a CPU first; one cache for all without flash attention computes every sequence's tokens for every other.
pub const WAYS: [Way; 3] = [(true, Sharing::Copies), (true, Sharing::Cells), (false, Sharing::Copies)];

/// Measures each way to hold the cache and the costs of the best one, in about [`PROFILE_MAX`]: where the hardware is too
/// slow to try all ways in that time, the first ones decide.
///
/// # Errors
/// Where the engine fails.
pub fn measure(weights: &LlamaWeights, load: Load, threads: usize, ways: &[Way]) -> Result<Profile, EngineError> {
    let begin = Instant::now();
    let token = weights.specials().eos.unwrap_or_default();
    let share = PROFILE_MAX / u32::try_from(ways.len()).unwrap_or(1);
    let mut best: Option<(f64, Profile)> = None;
    for (at, (flash, sharing)) in (0..).zip(ways.iter().copied()) {
        if begin.elapsed() > share * at + share / 2 {
            break;
        }
        let load = load.held(flash, sharing);
        let mut engine = weights.engine(load, threads)?;
        let profile = costs(&mut engine, load, token, Instant::now() + share)?;
        let seconds = profile.decode_seconds(load.slots, PROFILE_CONTEXT.min(load.context / 2));
        let (step_ms, prompt_ms) = (seconds * 1000.0, profile.prompt_token_seconds * 1000.0);
        tracing::info!(flash, ?sharing, step_ms, prompt_ms, "measured");
        if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
            best = Some((seconds, profile));
        }
    }
    let missing = || EngineError { attempt: "measuring the engine", cause: "there was no time".into() };
    best.map(|(_, profile)| profile).ok_or_else(missing)
}

/// The costs of one engine, in about the time until `until`.
fn costs(engine: &mut LlamaEngine<'_>, load: Load, token: Token, until: Instant) -> Result<Profile, EngineError> {
    let most = PROFILE_CONTEXT.min(load.context.saturating_sub(PROFILE_STEPS * 3)).max(1);
    let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
    let (depth, prompts) = fill(engine, most, token, half)?;
    // Alone and deep, wide and deep, wide and shallow: three points for three coefficients.
    let mut steps = decode(engine, 1, depth, token, until)?;
    let tokens = usize::try_from(depth).unwrap_or(1);
    engine.apply(KvOp::Keep { sequence: 0, tokens })?;
    // Each with cells of its own, as texts that differ have them: shared ones would make a cache for all look cheap.
    engine.duplicate(0, 1..all(load.slots))?;
    steps.extend(decode(engine, load.slots, depth, token, until)?);
    let shallow = depth.min(SHALLOW);
    let tokens = usize::try_from(shallow).unwrap_or(1);
    (0..all(load.slots)).try_for_each(|sequence| engine.apply(KvOp::Keep { sequence, tokens }))?;
    steps.extend(decode(engine, load.slots, shallow, token, until)?);
    let [step_seconds, sequence_seconds, context_token_seconds] = fit(&steps);
    let [prompt_token_seconds] = fit(&prompts);
    Ok(Profile {
        step_seconds,
        sequence_seconds,
        context_token_seconds,
        prompt_token_seconds,
        flash_attention: load.flash_attention,
        shared_cells: load.sharing == Sharing::Cells,
    })
}

/// Context of the shallow point.
const SHALLOW: u32 = 16;

fn all(sequences: u32) -> Sequence {
    Sequence::try_from(sequences).unwrap_or(1)
}

/// Fills the first sequence up to `most` tokens, or as far as time allows: how far, and what each chunk took.
fn fill(
    engine: &mut dyn Engine,
    most: u32,
    token: Token,
    until: Instant,
) -> Result<(u32, Vec<Sample<1>>), EngineError> {
    let mut samples = Vec::new();
    let mut depth = 0;
    while depth < most && (depth == 0 || Instant::now() < until) {
        let count = CHUNK.min(most - depth);
        let rows: Vec<Row> =
            (depth..depth + count).map(|position| Row { sequence: 0, token, position, logits: false }).collect();
        let seconds = timed(engine, &rows)?.as_secs_f64();
        samples.push(Sample { x: [f64::from(count)], seconds });
        depth += count;
    }
    Ok((depth, samples))
}

/// Tokens of a prompt that are computed at once.
const CHUNK: u32 = if PREFILL_TOKENS_MAX < 64 { PREFILL_TOKENS_MAX } else { 64 };

fn decode(
    engine: &mut dyn Engine,
    sequences: u32,
    depth: u32,
    token: Token,
    until: Instant,
) -> Result<Vec<Sample<3>>, EngineError> {
    let mut samples = Vec::new();
    for step in 0..PROFILE_STEPS {
        if step > 1 && Instant::now() > until {
            break;
        }
        let position = depth + step;
        let rows = (0..all(sequences)).map(|sequence| Row { sequence, token, position, logits: true });
        let took = timed(engine, &rows.collect::<Vec<_>>())?;
        let context = f64::from(sequences) * f64::from(position);
        let sample = Sample { x: [1.0, f64::from(sequences), context], seconds: took.as_secs_f64() };
        // The first one of a shape also lays out the graph.
        if step > 0 {
            samples.push(sample);
        }
    }
    // Whatever else runs on the machine only adds to a step: the quicker half is what the step costs.
    samples.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    samples.truncate(samples.len().div_ceil(2));
    Ok(samples)
}

fn timed(engine: &mut dyn Engine, rows: &[Row]) -> Result<Duration, EngineError> {
    engine.step(rows, &mut |_, _| {})
}
