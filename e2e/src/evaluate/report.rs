//! From outcomes to data, tables, pictures and cards.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::QualityCurve;
use std::fs;
use std::path::Path;

use super::curves::{DIFFICULTIES, curves};
use super::outcome::Run;
use super::{cards, claims, example, picture, tables};

/// Where a report goes.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// Folder of `quality.json`.
    pub data: &'a Path,
    /// Folder of the pictures, one for each difficulty.
    pub pictures: &'a Path,
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
            picture::draw(&to.pictures.join(format!("models-{difficulty}.svg")), difficulty, &drawn)?;
        }
    }
    if let Some(folder) = to.cards {
        cards::write(folder, runs, &all)?;
    }
    if let Some(path) = to.example {
        example::write(path, runs, &all)?;
    }
    let sections = [
        ("What the family is to show", claims::claims(&all)?),
        ("Quality at the most tokens", tables::quality(&all)?),
        ("Quality over tokens", tables::lines(&all)?),
        ("Self-consistency", tables::votes(&all)?),
        ("What it costs", tables::costs(runs)?),
    ];
    Ok(sections.map(|(title, table)| format!("### {title}\n\n{table}")).join("\n"))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::run;
    use super::*;
    use quartermaster_core::capacity::quality_curve::QualityCurves;

    #[test]
    fn a_family_gets_curves_tables_and_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [run("q8-0", 0), run("student", 0), run("student", 0)];
        let text = report(
            &runs,
            "test",
            &Targets { data: folder.path(), pictures: folder.path(), cards: None, example: None },
        )
        .unwrap();
        assert!(text.contains("| q8-0 | – | 0.500 (0."), "{text}");
        assert!(text.contains("| student | medium | 0.000 + 0.144 ln T | 1.000 | 4 to 16 |"), "{text}");
        let written = fs::read(folder.path().join("quality.json")).unwrap();
        let curves: QualityCurves = serde_json::from_slice(&written).unwrap();
        assert_eq!((curves.curves.len(), curves.curves[0].points.len()), (2, 5));
        let picture = fs::read_to_string(folder.path().join("models-medium.svg")).unwrap();
        assert!(picture.contains("<svg") && picture.contains("q8-0"), "{picture}");
    }
}
