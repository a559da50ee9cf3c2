//! What is committed of the family belongs together: files, cards, curves, example and page.

use quartermaster_core::capacity::quality_curve::{QualityCurves, VERSION};
use sha2::{Digest, Sha256};
use std::fs;

use super::tables::{curve, shown, variants};
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
    for variant in variants(&all) {
        let file = fs::read(root().join(format!("models/weights/{variant}.gguf"))).unwrap();
        let card = read(&format!("models/weights/{variant}.md"));
        let stated = format!("{} bytes, SHA-256 `{}`", file.len(), hex::encode(Sha256::digest(&file)));
        assert!(card.contains(&stated), "{variant}: the card is of another file than {stated}");
        let measured = curve(&all, variant, "medium").unwrap().points.last().unwrap().accuracy;
        assert!(page.contains(&shown(measured)), "{variant}: docs/models.md lacks {}", shown(measured));
        let row = card.lines().rfind(|line| line.starts_with("| medium |")).unwrap();
        let own = row.split(" | ").nth(3).unwrap().split(' ').next().unwrap();
        assert!(variant == SEVERAL || own == format!("{:.3}", measured.value), "{variant}: {row}");
        let declared = example.split("    - name: ").find(|declared| declared.starts_with(variant)).unwrap();
        assert!(declared.contains(&format!("score: \"{own}\"")), "{own} on the card, but {declared}");
    }
}
