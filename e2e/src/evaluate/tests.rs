//! What is committed of the family belongs together: files, cards, curves, example and page.

use quartermaster_core::capacity::quality_curve::{QualityCurves, VERSION};
use sha2::{Digest, Sha256};
use std::fs;

use super::tables::{curve, cuts, lines, quality, variants, votes};
use crate::stage::root;

/// Of it there are several trainings: its curve is that of all, its card and its declaration are of the file.
const SEVERAL: &str = "student-q8-0";

#[test]
fn every_committed_figure_is_the_measured_one() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let all: QualityCurves = serde_json::from_str(&read("models/quality.json")).unwrap();
    let (example, page) = (read("examples/family/model.yaml"), read("docs/models.md"));
    assert_eq!(all.version, VERSION);
    assert!(variants(&all).len() >= 6 && variants(&all).contains(&SEVERAL));
    for table in [quality(&all), lines(&all), cuts(&all), votes(&all)] {
        let table = table.unwrap();
        assert!(page.contains(&table), "docs/models.md lacks\n{table}");
    }
    for variant in variants(&all) {
        let file = fs::read(root().join(format!("models/weights/{variant}.gguf"))).unwrap();
        let card = read(&format!("models/weights/{variant}.md"));
        let stated = format!("{} bytes, SHA-256 `{}`", file.len(), hex::encode(Sha256::digest(&file)));
        assert!(card.contains(&stated), "{variant}: the card is of another file than {stated}");
        let measured = curve(&all, variant, "medium").unwrap().points.last().unwrap().accuracy;
        let row = card.lines().rfind(|line| line.starts_with("| medium |")).unwrap();
        let own = row.split(" | ").nth(3).unwrap().split(' ').next().unwrap();
        assert!(variant == SEVERAL || own == format!("{:.3}", measured.value), "{variant}: {row}");
        let declared = example.split("    - name: ").find(|declared| declared.starts_with(variant)).unwrap();
        assert!(declared.contains(&format!("score: \"{own}\"")), "{own} on the card, but {declared}");
        let fit = curve(&all, variant, "medium").unwrap().fit.filter(|_| variant != SEVERAL);
        let line = fit.map(|fit| {
            format!("curve: {{a: \"{:.3}\", b: \"{:.3}\", tMin: {}, tMax: {}}}", fit.a, fit.b, fit.t_min, fit.t_max)
        });
        assert!(line.as_ref().is_none_or(|line| declared.contains(line)), "{variant}: {line:?} is not declared");
    }
}
