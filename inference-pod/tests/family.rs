//! Our own model family in the engine: what it says of worked problems is what the model said where it was trained, and what each
//! file said when its quality was measured (`models/logits`, written by `cargo xtask models --only logits`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use quartermaster_inference_pod::gguf::Gguf;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::process::BINARY;

/// Of so many places one may be another: sums are rounded in another order, and few choices are close.
const OTHERS_PER: usize = 100;
/// How far logits may be apart: the engine multiplies half precision, training single.
const APART_MAX: f32 = 0.1;
/// How far logits of the same file in the same engine may be apart: threads add in another order.
const AGAIN_MAX: f32 = 1e-3;
/// All files together.
const WEIGHTS_MAX: u64 = 40_000_000;

/// What a model says after each token of a text, and the logit of that.
#[derive(Deserialize)]
struct Said {
    tokens: Vec<u32>,
    next: Vec<u32>,
    logits: Vec<f32>,
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn greedy(file: &str) -> Said {
    let mut ask = Command::new(BINARY);
    ask.args(["perplexity", "--greedy", "--window", "512", "--model"]).arg(models().join("weights").join(file));
    let output = ask.arg("--text").arg(models().join("logits/text.txt")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_engine_says_what_the_trained_teacher_said() {
    let trained = std::fs::read(models().join("logits/teacher.json")).unwrap();
    let (trained, served): (Said, Said) = (serde_json::from_slice(&trained).unwrap(), greedy("teacher-f16.gguf"));
    assert_eq!(trained.tokens, served.tokens, "two tokenizers");
    let places = trained.next.len();
    let apart = |place: usize| (served.logits[place] - trained.logits[place]).abs();
    let other: Vec<(usize, u32, u32, f32)> = (0..places)
        .filter(|place| trained.next[*place] != served.next[*place] || apart(*place) > APART_MAX)
        .map(|place| (place, trained.next[place], served.next[place], apart(place)))
        .collect();
    assert!(other.len() * OTHERS_PER <= places, "of {places} places these are others: {other:?}");
}

#[test]
fn every_file_says_what_it_said_when_it_was_measured() {
    let variants = ["teacher-f16", "teacher-q8-0", "teacher-q4-k-m", "student-q8-0", "pruned-q8-0", "teacher-q2-k"];
    for variant in variants {
        let before = std::fs::read(models().join(format!("logits/{variant}.json"))).unwrap();
        let (before, now): (Said, Said) =
            (serde_json::from_slice(&before).unwrap(), greedy(&format!("{variant}.gguf")));
        assert_eq!((&before.tokens, &before.next), (&now.tokens, &now.next), "{variant}");
        let apart = before.logits.iter().zip(&now.logits).map(|(before, now)| (before - now).abs());
        let most = apart.fold(0.0, f32::max);
        assert!(most <= AGAIN_MAX && !before.logits.is_empty(), "{variant}: logits apart by {most}");
    }
}

#[test]
fn every_file_is_whole_and_together_they_are_small() {
    let entries = std::fs::read_dir(models().join("weights")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|is| is == "gguf")).collect();
    let sizes: Vec<u64> = files.iter().map(|file| Gguf::open(file).unwrap().file_bytes).collect();
    assert!(files.len() >= 6, "{files:?}");
    assert!(sizes.iter().sum::<u64>() <= WEIGHTS_MAX, "{sizes:?}");
    for file in files {
        let card = file.with_extension("md");
        assert!(card.exists(), "{} has no card", file.display());
    }
}
