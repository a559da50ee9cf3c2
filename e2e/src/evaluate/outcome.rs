//! What came of a task set: one outcome for every item, budget and choice.

use anyhow::{Context, Result, ensure};
use quartermaster_core::units::NanoUsd;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

use super::prices::Price;

/// Grows when a field changes its meaning.
const VERSION: u32 = 3;

/// One variant on a task set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    version: u32,
    /// The variant; several runs may be of one, such as students of several training seeds.
    pub variant: String,
    /// What its tokens cost.
    pub price: Price,
    /// The file that was served, where it was ours to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ServedFile>,
    /// Requests at once.
    pub concurrency: u32,
    /// Seconds that it took.
    pub seconds: f64,
    /// All outcomes.
    pub outcomes: Vec<Outcome>,
}

/// A file that was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedFile {
    /// The trained model that it was made of.
    pub checkpoint: String,
    /// As the field writes it, such as `Q8_0`.
    pub precision: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, in hex.
    pub sha256: String,
    /// Threads of the server.
    pub threads: u32,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The item.
    pub item: String,
    /// Its difficulty.
    pub difficulty: String,
    /// Most tokens that it might have.
    pub budget: u32,
    /// Which of the answers to the same question.
    pub choice: u32,
    /// What it said, where it came to an answer.
    pub said: Option<String>,
    /// Whether that is right.
    pub right: bool,
    /// Tokens of the question; with several choices, on the first one alone.
    pub prompt_tokens: u32,
    /// Tokens of the answer; with several choices, an even share.
    pub completion_tokens: f64,
    /// What these tokens cost.
    pub cost: NanoUsd,
    /// From request to answer.
    pub latency_ms: f64,
    /// Mean log probability of its tokens, where the server tells.
    pub mean_logprob: Option<f64>,
    /// The least one.
    pub min_logprob: Option<f64>,
}

impl Run {
    /// A run that is done.
    #[must_use]
    pub fn new(variant: String, price: Price, concurrency: u32, seconds: f64, outcomes: Vec<Outcome>) -> Self {
        Self { version: VERSION, variant, price, file: None, concurrency, seconds, outcomes }
    }

    /// Outcomes at the most tokens.
    ///
    /// # Errors
    /// Where there are none.
    pub fn at_most(&self) -> Result<Vec<&Outcome>> {
        let most = self.outcomes.iter().map(|outcome| outcome.budget).max().context("a run without outcomes")?;
        Ok(self.outcomes.iter().filter(|outcome| outcome.budget == most).collect())
    }

    /// Tokens drawn in a second at the most tokens, all requests together: each of those that run at once draws its own.
    ///
    /// # Errors
    /// Where there are no outcomes.
    pub fn tokens_per_second(&self) -> Result<f64> {
        let at_most = self.at_most()?;
        let sum = |of: fn(&Outcome) -> f64| at_most.iter().map(|outcome| of(outcome)).sum::<f64>();
        let seconds = sum(|outcome| outcome.latency_ms) / 1e3;
        Ok(f64::from(self.concurrency) * sum(|outcome| outcome.completion_tokens) / seconds)
    }

    /// Writes it as JSON, whole or not at all.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("partial");
        fs::write(&beside, serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// Names the file that is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let run: Self = serde_json::from_slice(&text).with_context(|| format!("{} is no run", path.display()))?;
        ensure!(run.version == VERSION, "{}: version {} is not {VERSION}", path.display(), run.version);
        Ok(run)
    }
}

#[cfg(test)]
pub(super) fn outcome(item: &str, difficulty: &str, budget: u32, right: bool) -> Outcome {
    Outcome {
        item: item.into(),
        difficulty: difficulty.into(),
        budget,
        choice: 0,
        said: Some(if right { "1" } else { "2" }.into()),
        right,
        prompt_tokens: 10,
        completion_tokens: f64::from(budget) + 4.0,
        cost: NanoUsd(100),
        latency_ms: 5.0,
        mean_logprob: Some(if right { -0.1 } else { -0.5 }),
        min_logprob: None,
    }
}

/// A tenth of 40 items is right at 2 tokens, and another tenth each time they double; `more` tenths at the most.
#[cfg(test)]
pub(super) fn run(variant: &str, more: u32) -> Run {
    let outcomes = (1_u32..6).flat_map(|place| {
        let right = (place + if place == 5 { more } else { 0 }) * 4;
        (0..40).map(move |item| outcome(&format!("i{item:02}"), "medium", 1 << place, item < right))
    });
    Run::new(variant.into(), Price::default(), 2, 1.0, outcomes.collect())
}

/// As if a file of ours had been served.
#[cfg(test)]
pub(super) fn served(variant: &str) -> Run {
    let (checkpoint, precision, sha256) = ("teacher".into(), "Q8_0".into(), "ab12".into());
    let file = Some(ServedFile { checkpoint, precision, size: 7, sha256, threads: 2 });
    Run { file, ..run(variant, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_written_and_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let outcomes = vec![outcome("a", "easy", 8, true), outcome("a", "easy", 4, true)];
        let run = Run::new("q8-0".into(), Price::default(), 3, 12.5, outcomes);
        assert_eq!(run.tokens_per_second().unwrap(), 3.0 * 12.0 / 0.005);
        run.write(file.path()).unwrap();
        assert_eq!(Run::read(file.path()).unwrap(), run);
        Run { version: 9, ..run }.write(file.path()).unwrap();
        assert!(Run::read(file.path()).unwrap_err().to_string().contains("version 9"));
    }
}
