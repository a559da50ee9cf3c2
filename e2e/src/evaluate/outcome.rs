//! What came of a task set: one outcome for every item, budget and choice.

use anyhow::{Context, Result, ensure};
use quartermaster_core::units::{Millis, NanoUsd};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

use super::prices::Price;

/// Grows when a field changes its meaning.
const VERSION: u32 = 4;

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
    /// Its sort of task.
    pub kind: String,
    /// Its difficulty.
    pub difficulty: String,
    /// Most tokens that it might have.
    pub budget: u32,
    /// Which of the answers to the same question.
    pub choice: u32,
    /// Whether it was cut off at the most tokens.
    pub cut: bool,
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
    /// When it was asked, from the begin of the run.
    pub begun_ms: f64,
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

    /// Tokens drawn in a second at the most tokens, all requests together, from the first question to the last answer.
    ///
    /// # Errors
    /// Where there are no outcomes.
    pub fn tokens_per_second(&self) -> Result<f64> {
        let at_most = self.at_most()?;
        let tokens: f64 = at_most.iter().map(|outcome| outcome.completion_tokens).sum();
        let begin = at_most.iter().map(|outcome| outcome.begun_ms).fold(f64::INFINITY, f64::min);
        let end = at_most.iter().map(|outcome| outcome.begun_ms + outcome.latency_ms).fold(0.0, f64::max);
        Ok(tokens / (end - begin) * 1e3)
    }

    /// The same run where what it cost is what the machine costs for as long as it took; prices and costs keep their ratios.
    ///
    /// # Errors
    /// Where that is no amount of money.
    pub fn on_machine(mut self, per_hour: NanoUsd) -> Result<Self> {
        let millis: i64 = format!("{:.0}", self.seconds * 1e3).parse()?;
        let (paid, priced) = (
            per_hour.per_hour_for(Millis(millis)),
            self.outcomes.iter().map(|each| i128::from(each.cost.0)).sum::<i128>(),
        );
        ensure!(priced > 0, "answers that cost nothing have no price on a machine");
        let scaled = |cost: NanoUsd| {
            let exact = i128::from(cost.0) * i128::from(paid.0);
            i64::try_from(exact.div_euclid(priced) + i128::from(exact.rem_euclid(priced) > 0)).map(NanoUsd)
        };
        for outcome in &mut self.outcomes {
            outcome.cost = scaled(outcome.cost)?;
        }
        self.price = Price { prompt: scaled(self.price.prompt)?, completion: scaled(self.price.completion)? };
        Ok(self)
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
        kind: "sum".into(),
        difficulty: difficulty.into(),
        budget,
        choice: 0,
        cut: false,
        said: Some(if right { "1" } else { "2" }.into()),
        right,
        prompt_tokens: 10,
        completion_tokens: f64::from(budget) + 4.0,
        cost: NanoUsd(100),
        begun_ms: f64::from(budget) * 10.0,
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
        assert_eq!(run.tokens_per_second().unwrap(), 12.0 / 0.005);
        run.write(file.path()).unwrap();
        assert_eq!(Run::read(file.path()).unwrap(), run);
        Run { version: 9, ..run }.write(file.path()).unwrap();
        assert!(Run::read(file.path()).unwrap_err().to_string().contains("version 9"));
    }

    #[test]
    fn a_run_costs_what_its_machine_does_meanwhile() {
        let outcomes = vec![outcome("a", "easy", 8, true), outcome("b", "easy", 8, true)];
        let price = Price { prompt: NanoUsd(30), completion: NanoUsd(70) };
        let run = Run::new("q8-0".into(), price, 3, 36.0, outcomes).on_machine(NanoUsd(100_000)).unwrap();
        assert_eq!(
            run.outcomes.iter().map(|each| each.cost.0).collect::<Vec<_>>(),
            [500, 500],
            "a hundredth of an hour"
        );
        assert_eq!(run.price, Price { prompt: NanoUsd(150), completion: NanoUsd(350) });
        assert!(Run::new("q8-0".into(), price, 3, 36.0, Vec::new()).on_machine(NanoUsd(1)).is_err());
    }
}
