//! What came of a task set: one outcome for every item, budget and choice.

use anyhow::{Context, Result, ensure};
use quartermaster_core::units::NanoUsd;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Grows when a field changes its meaning.
const VERSION: u32 = 1;

/// One variant on a task set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    version: u32,
    /// The variant; several runs may be of one, such as students of several training seeds.
    pub variant: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// All outcomes.
    pub outcomes: Vec<Outcome>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The item.
    pub item: String,
    /// Its difficulty.
    pub difficulty: String,
    /// Most tokens that it might think for.
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
    pub fn new(variant: String, seconds: f64, outcomes: Vec<Outcome>) -> Self {
        Self { version: VERSION, variant, seconds, outcomes }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec(self)?).with_context(|| format!("could not write {}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_written_and_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let run = Run::new("q8-0".into(), 12.5, vec![outcome("a", "easy", 8, true)]);
        run.write(file.path()).unwrap();
        assert_eq!(Run::read(file.path()).unwrap(), run);
        Run { version: 9, ..run }.write(file.path()).unwrap();
        assert!(Run::read(file.path()).unwrap_err().to_string().contains("version 9"));
    }
}
