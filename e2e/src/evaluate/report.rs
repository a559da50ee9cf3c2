//! From outcomes to data, tables, pictures and cards.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::QualityCurve;
use std::fs;
use std::path::{Path, PathBuf};

use super::curves::{DIFFICULTIES, by_variant, curves};
use super::outcome::Run;
use super::{cards, claims, example, picture, tables, training};

/// Where a report goes.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// Folder of `quality.json`.
    pub data: &'a Path,
    /// Folder of the pictures: one for each difficulty, and one of votes.
    pub pictures: &'a Path,
    /// What was said of the trainings.
    pub training: &'a [PathBuf],
    /// Folder of the model cards of files that were served.
    pub cards: Option<&'a Path>,
    /// The manifest that declares these files.
    pub example: Option<&'a Path>,
}

/// Writes all of it; returns the tables as Markdown. Runs of one variant count as training runs of it.
///
/// # Errors
/// Where runs of one variant are of different items, or a file can't be written.
pub fn report(runs: &[Run], tasks: &str, to: &Targets<'_>) -> Result<String> {
    let all = curves(runs, tasks)?;
    let path = to.data.join("quality.json");
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&all)?))
        .with_context(|| format!("could not write {}", path.display()))?;
    for difficulty in DIFFICULTIES {
        let drawn: Vec<&QualityCurve> = all.curves.iter().filter(|curve| curve.difficulty == difficulty).collect();
        if !drawn.is_empty() {
            picture::tokens(&to.pictures.join(format!("models-{difficulty}.svg")), difficulty, &drawn)?;
        }
    }
    picture::votes(&to.pictures.join("models-votes.svg"), &all.curves)?;
    if to.cards.is_some() || to.example.is_some() {
        // A card and a manifest are of one file, whatever other trainings gave.
        let files = first_of_each(runs);
        let own = curves(&files, tasks)?;
        to.cards.map(|folder| cards::write(folder, &files, &own)).transpose()?;
        to.example.map(|path| example::write(path, &files, &own)).transpose()?;
    }
    let mut sections = vec![
        ("Quality at the most tokens", tables::quality(&all)?),
        ("By sort of task", tables::kinds(runs)?),
        ("Quality over tokens", tables::lines(&all)?),
        ("Cut off", tables::cuts(&all)?),
        ("Self-consistency", tables::votes(&all)?),
        ("What it costs", tables::costs(runs)?),
    ];
    // Claims are made of our own family alone.
    if !to.training.is_empty() {
        let trainings = training::read(to.training)?;
        sections.insert(0, ("What the family is to show", claims::claims(&all, runs, &trainings)?));
        sections.push(("What the trainings took", training::table(&trainings)?));
    }
    let sections = sections.into_iter().map(|(title, table)| format!("### {title}\n\n{table}"));
    Ok(sections.collect::<Vec<_>>().join("\n"))
}

/// The first run of each variant.
fn first_of_each(runs: &[Run]) -> Vec<Run> {
    by_variant(runs).into_iter().filter_map(|(_, runs)| runs.first().map(|run| (*run).clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Outcome, run, served};
    use super::*;
    use quartermaster_core::capacity::quality_curve::QualityCurves;

    #[test]
    fn a_family_gets_curves_tables_and_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let mut several = run("q8-0", 0);
        let again: Vec<Outcome> = several.outcomes.iter().map(|each| Outcome { choice: 1, ..each.clone() }).collect();
        several.outcomes.extend(again);
        let runs = [run("q8-0", 0), run("student", 0), run("student", 0), several];
        let text = report(
            &runs,
            "test",
            &Targets { data: folder.path(), pictures: folder.path(), training: &[], cards: None, example: None },
        )
        .unwrap();
        assert!(text.contains("| q8-0 | – | 0.500 (0."), "{text}");
        assert!(text.contains("| student | medium | 0.000 + 0.144 ln T | 0.144 (0."), "{text}");
        assert!(text.contains(") | 1.000 | 2 to 32 |"), "{text}");
        assert!(text.contains("| Variant | medium, sum |\n|---|---|\n| q8-0 | 0.50 |\n"), "{text}");
        assert!(text.contains("| student | medium | 2: 0.00, 4: 0.00"), "{text}");
        assert!(!text.contains("What the family is to show"), "somebody else's model");
        let written = fs::read(folder.path().join("quality.json")).unwrap();
        let curves: QualityCurves = serde_json::from_slice(&written).unwrap();
        assert_eq!((curves.curves.len(), curves.curves[0].points.len()), (2, 5));
        let picture = fs::read_to_string(folder.path().join("models-medium.svg")).unwrap();
        assert!(picture.contains("<svg") && picture.contains("q8-0"), "{picture}");
        let picture = fs::read_to_string(folder.path().join("models-votes.svg")).unwrap();
        assert!(picture.contains("q8-0, medium, 16 tokens"), "{picture}");
    }

    #[test]
    fn a_card_is_of_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (data, pictures, cards) = (folder.path(), folder.path(), Some(folder.path()));
        let targets =
            Targets { data, pictures, training: &[], cards, example: Some(&folder.path().join("model.yaml")) };
        let text = report(&[served("student"), run("student", 5)], "test", &targets).unwrap();
        assert!(text.contains("| student | – | 0.750 ("), "the mean of two trainings: {text}");
        let card = fs::read_to_string(folder.path().join("student.md")).unwrap();
        assert!(card.contains("| medium | 32 | 36.0 | 0.500 ("), "{card}");
        let example = fs::read_to_string(folder.path().join("model.yaml")).unwrap();
        assert!(example.contains("score: \"0.500\""), "{example}");
    }
}
