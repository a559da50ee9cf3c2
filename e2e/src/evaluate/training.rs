//! What the trainings took, as `train.py` says it of each.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// One training.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Training {
    /// What was trained: the name of its file.
    #[serde(skip)]
    pub name: String,
    /// None for what only writes answers.
    pub parameters: Option<u64>,
    pub steps: Option<u64>,
    /// Where it was trained, such as `cpu`.
    pub device: String,
    pub threads: u32,
    /// All parts of it together.
    pub seconds: f64,
}

/// Reads them.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Training>> {
    let read = |path: &PathBuf| {
        let text = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let training = serde_json::from_slice(&text).with_context(|| format!("{} is no training", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Training { name, ..training })
    };
    paths.iter().map(read).collect()
}

/// A row for each.
pub(super) fn table(trainings: &[Training]) -> Result<String> {
    let mut text = String::from("| Model | parameters | steps | minutes | device, threads |\n|---|---|---|---|---|\n");
    let number = |number: &Option<u64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    for Training { name, parameters, steps, device, threads, seconds } in trainings {
        let (parameters, steps) = (number(parameters), number(steps));
        writeln!(text, "| {name} | {parameters} | {steps} | {:.1} | {device}, {threads} |", seconds / 60.0)?;
    }
    Ok(text)
}

#[cfg(test)]
pub(super) fn training(name: &str, minutes: f64) -> Training {
    let (name, device) = (name.to_owned(), "cpu".to_owned());
    Training { name, parameters: Some(2_730_240), steps: Some(3000), device, threads: 2, seconds: minutes * 60.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_read_and_has_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student-1.json");
        let said = r#"{"parameters": 712704, "steps": 1300, "seed": 1, "device": "cpu", "threads": 2, "seconds": 630}"#;
        fs::write(&path, said).unwrap();
        let text = table(&read(std::slice::from_ref(&path)).unwrap()).unwrap();
        assert!(text.contains("| student-1 | 712704 | 1300 | 10.5 | cpu, 2 |"), "{text}");
        fs::write(&path, r#"{"answers": 8100, "device": "cpu", "threads": 2, "seconds": 180}"#).unwrap();
        let text = table(&read(std::slice::from_ref(&path)).unwrap()).unwrap();
        assert!(text.contains("| – | – | 3.0 | cpu, 2 |"), "{text}");
        fs::write(&path, "{}").unwrap();
        assert!(read(&[path]).unwrap_err().to_string().contains("student-1.json is no training"));
    }
}
