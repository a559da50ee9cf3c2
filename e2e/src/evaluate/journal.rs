//! What was asked already, beside the file that a run will become: a run that breaks off goes on where it was.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::outcome::Outcome;

/// First line: outcomes of another asking are not these.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    asking: String,
}

/// Answers that are there, one question a line.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    answers: BTreeMap<(String, u32), Vec<Outcome>>,
}

impl Journal {
    /// Opens the journal beside `out`, or begins it. `asking` tells runs apart: all that an answer depends on.
    ///
    /// # Errors
    /// Where the file can't be written, or is of another run.
    pub fn open(out: &Path, asking: &str) -> Result<Self> {
        let path = out.with_extension("journal");
        let attempt = || format!("could not use {}", path.display());
        let head = Head { asking: asking.to_owned() };
        let text = if path.exists() { fs::read_to_string(&path).with_context(attempt)? } else { String::new() };
        // A line that was cut off with the run is asked again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text.get(..whole).unwrap_or_default().lines();
        let mut answers = BTreeMap::new();
        if let Some(first) = lines.next() {
            let found: Head = serde_json::from_str(first).with_context(attempt)?;
            ensure!(
                found == head,
                "{} is of a run that asks otherwise: delete it, or choose another --out",
                path.display()
            );
            for line in lines {
                let outcomes: Vec<Outcome> = serde_json::from_str(line).with_context(attempt)?;
                let Some(first) = outcomes.first() else { continue };
                answers.insert((first.item.clone(), first.budget), outcomes);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(attempt)?;
        file.set_len(u64::try_from(whole)?).with_context(attempt)?;
        let mut journal = Self { path, file, answers };
        if whole == 0 {
            journal.line(&head)?;
        }
        Ok(journal)
    }

    fn line(&mut self, what: &impl Serialize) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(what)?);
        self.file.write_all(line.as_bytes()).with_context(|| format!("could not write {}", self.path.display()))
    }

    /// Whether a question was answered.
    pub(super) fn has(&self, item: &str, budget: u32) -> bool {
        self.answers.contains_key(&(item.to_owned(), budget))
    }

    /// The outcomes of a question.
    pub(super) fn of(&self, item: &str, budget: u32) -> Vec<Outcome> {
        self.answers.get(&(item.to_owned(), budget)).cloned().unwrap_or_default()
    }

    /// Adds the outcomes of one question.
    pub(super) fn add(&mut self, outcomes: &[Outcome]) -> Result<()> {
        self.line(&outcomes)?;
        if let Some(first) = outcomes.first() {
            self.answers.insert((first.item.clone(), first.budget), outcomes.to_vec());
        }
        Ok(())
    }

    /// Seconds from the begin to the last answer.
    pub(super) fn seconds(&self) -> f64 {
        let ends = self.answers.values().flatten().map(|each| each.begun_ms + each.latency_ms);
        ends.fold(0.0, f64::max) / 1e3
    }

    /// The run is written: what led to it goes.
    ///
    /// # Errors
    /// Where it can't be deleted.
    pub fn done(out: &Path) -> Result<()> {
        let path = out.with_extension("journal");
        fs::remove_file(&path).with_context(|| format!("could not delete {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::outcome;
    use super::*;

    #[test]
    fn what_was_answered_is_not_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run.json");
        let mut journal = Journal::open(&out, "q8 of a").unwrap();
        assert!(!journal.has("a", 8) && journal.seconds() == 0.0);
        journal.add(&[outcome("a", "easy", 8, true)]).unwrap();
        journal.add(&[outcome("b", "easy", 8, false)]).unwrap();
        let path = folder.path().join("run.journal");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let mut again = Journal::open(&out, "q8 of a").unwrap();
        assert_eq!(
            (again.has("a", 8), again.has("b", 8), again.has("a", 4)),
            (true, false, false),
            "the last was cut off"
        );
        assert_eq!((again.of("a", 8), again.seconds()), (vec![outcome("a", "easy", 8, true)], 0.085));
        again.add(&[outcome("b", "easy", 8, false)]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        let error = Journal::open(&out, "q4 of a").unwrap_err().to_string();
        assert!(error.contains("of a run that asks otherwise"), "{error}");
        Journal::done(&out).unwrap();
        assert!(!path.exists());
        assert!(Journal::open(Path::new("/nowhere/run.json"), "x").is_err(), "known before anything is asked");
    }
}
