//! A model card beside each file.

use anyhow::{Context, Result};
use quartermaster_core::capacity::quality_curve::QualityCurves;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::curves::by_variant;
use super::outcome::Run;
use super::tables::shown;

/// Writes `VARIANT.md` into `folder` for each variant whose file was served: what somebody should know who finds the file
/// alone.
pub(super) fn write(folder: &Path, runs: &[Run], all: &QualityCurves) -> Result<()> {
    for (variant, runs) in by_variant(runs) {
        let Some(run) = runs.first().filter(|run| run.file.is_some()) else { continue };
        let path = folder.join(format!("{variant}.md"));
        fs::write(&path, card(variant, run, all)?).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

fn card(variant: &str, run: &Run, all: &QualityCurves) -> Result<String> {
    let file = run.file.as_ref().context("no file was served")?;
    let mut text = format!(
        "# {variant}\n\n\
         - What: the {checkpoint} of the family, in {precision}\n\
         - File: `{variant}.gguf`, {size} bytes, SHA-256 `{hash}`\n\
         - Architecture: Llama, with a tokenizer of its own; sizes are `RECIPES` in `models/recipe/train.py`\n\
         - Data: task set `{tasks}`, drawn from seeds by `models/recipe/tasks.py`; no text of anybody's is in it\n\
         - Recipe: `models/recipe/train.py`; `make models` trains it anew\n\
         - Licence: Apache-2.0, the Quartermaster authors\n\
         - Use: demonstrations and tests of Quartermaster. It can do nothing but these tasks\n\
         - Speed: {speed:.0} tokens/s drawn, {concurrency} requests at once on {threads} threads, while it was measured\n",
        checkpoint = file.checkpoint,
        precision = file.precision,
        size = file.size,
        hash = file.sha256,
        tasks = all.tasks,
        speed = run.tokens_per_second()?,
        concurrency = run.concurrency,
        threads = file.threads,
    );
    text.push_str("\n| difficulty | most tokens | tokens taken | right answers (95 % interval) |\n|---|---|---|---|\n");
    for curve in all.curves.iter().filter(|curve| curve.variant == variant) {
        for point in &curve.points {
            let (tokens, spent) = (point.tokens, point.spent);
            writeln!(text, "| {} | {tokens} | {spent:.1} | {} |", curve.difficulty, shown(point.accuracy))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::curves::curves;
    use super::super::outcome::{run, served};
    use super::*;

    #[test]
    fn a_file_gets_a_card_and_an_endpoint_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [served("q8-0"), run("elsewhere", 0)];
        write(folder.path(), &runs, &curves(&runs, "steps-2").unwrap()).unwrap();
        let card = fs::read_to_string(folder.path().join("q8-0.md")).unwrap();
        for part in
            ["the teacher of the family, in Q8_0", "7 bytes", "`ab12`", "`steps-2`", "| medium | 2 | 6.0 | 0.100 ("]
        {
            assert!(card.contains(part), "{part}: {card}");
        }
        assert!(!folder.path().join("elsewhere.md").exists());
    }
}
