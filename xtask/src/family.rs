//! `cargo xtask models`: trains the model family, brings it into its precisions, measures it, writes what is committed
//! under `models/`. Half a day on two cores; every part that is done is kept in the user's cache and not done again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cargo::{self, Build};
use crate::{python, shell, workspace};

const RECIPE: &str = "models/recipe";
const TASKS: &str = "models/tasks";
const WEIGHTS: &str = "models/weights";
const PRICES: &str = "models/prices.json";
const PAGE: &str = "docs/models.md";
/// The tables in the page stand between these.
const BEGIN: &str = "<!-- tables: written by `cargo xtask models --only report` -->";
const END: &str = "<!-- end of tables -->";
/// Names the task set in the results; another one when `tasks.py` changes what it asks.
const TASK_SET: &str = "steps-1";
const DIFFICULTIES: [&str; 3] = ["easy", "medium", "hard"];
/// Training seeds of the student.
const SEEDS: [u32; 3] = [1, 2, 3];
/// Share of places where the engine must say what the trained model says.
const SAME_MIN: f64 = 0.99;
/// Tokens that are compared.
const WINDOW: &str = "512";
const ALL_BUDGETS: &str = "0,2,4,8,16,32,64,128";
const SOME_BUDGETS: &str = "4,16,128";

/// What is trained, and how it is served. The first of each checkpoint is what the others are compared with.
const VARIANTS: [Variant; 6] = [
    Variant { name: "teacher-f16", checkpoint: "teacher", precision: None, budgets: SOME_BUDGETS },
    Variant { name: "teacher-q8-0", checkpoint: "teacher", precision: Some("Q8_0"), budgets: ALL_BUDGETS },
    Variant { name: "teacher-q4-k-m", checkpoint: "teacher", precision: Some("Q4_K_M"), budgets: SOME_BUDGETS },
    Variant { name: "teacher-q2-k", checkpoint: "teacher", precision: Some("Q2_K"), budgets: SOME_BUDGETS },
    Variant { name: "student-q8-0", checkpoint: "student-1", precision: Some("Q8_0"), budgets: SOME_BUDGETS },
    Variant { name: "pruned-q8-0", checkpoint: "pruned", precision: Some("Q8_0"), budgets: SOME_BUDGETS },
];

struct Variant {
    name: &'static str,
    checkpoint: &'static str,
    precision: Option<&'static str>,
    budgets: &'static str,
}

/// Which parts to do; by default all, one after another.
#[derive(Debug, Parser)]
pub struct Options {
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Write the task sets.
    Tasks,
    /// Train teacher, students and pruned teacher.
    Train,
    /// Write the files that are served.
    Weights,
    /// See that the engine says what the trained models say.
    Logits,
    /// Ask every variant the task sets.
    Evaluate,
    /// Make curves, tables and pictures.
    Report,
}

/// Does the parts.
pub fn run(options: &Options) -> Result<()> {
    let family = Family::new()?;
    for part in Part::value_variants() {
        if !options.only.is_empty() && !options.only.contains(part) {
            continue;
        }
        match part {
            Part::Tasks => shell::step("task sets", || family.tasks())?,
            Part::Train => family.train()?,
            Part::Weights => shell::step("weights", || family.weights())?,
            Part::Logits => shell::step("logits", || family.logits())?,
            Part::Evaluate => family.evaluate()?,
            Part::Report => shell::step("report", || family.report())?,
        }
    }
    Ok(())
}

struct Family {
    python: PathBuf,
    engine: PathBuf,
    evaluate: PathBuf,
    /// Checkpoints and outcomes of this recipe.
    work: PathBuf,
}

/// What `logits.py` prints.
#[derive(Deserialize)]
struct Same {
    same: f64,
    positions: u32,
    largest_lead: f64,
}

impl Family {
    fn new() -> Result<Self> {
        let mut built = cargo::programs(Build::Programs)?;
        let mut program = |name: &str| built.remove(name).with_context(|| format!("cargo built no {name}"));
        let work = workspace::cache("family")?.join(recipe_hash()?);
        fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        eprintln!("checkpoints and outcomes: {}", work.display());
        Ok(Self {
            python: python::environment()?,
            engine: program("quartermaster-inference-pod")?,
            evaluate: program("evaluate")?,
            work,
        })
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(workspace::root().join(RECIPE).join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn tasks(&self) -> Result<()> {
        let folder = workspace::root().join(TASKS);
        fs::create_dir_all(&folder)?;
        shell::run(self.script("write_tasks.py").arg(folder))
    }

    fn train(&self) -> Result<()> {
        self.train_one("teacher", &[])?;
        let teacher = self.checkpoint("teacher").display().to_string();
        for seed in SEEDS {
            self.train_one("student", &["--teacher", &teacher, "--seed", &seed.to_string()])?;
        }
        self.train_one("pruned", &["--teacher", &teacher])
    }

    fn train_one(&self, what: &str, arguments: &[&str]) -> Result<()> {
        shell::step(&format!("training: {what} {}", arguments.join(" ")), || {
            shell::run(self.script("train.py").arg(what).arg("--out").arg(&self.work).args(arguments))
        })
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.pt"))
    }

    /// A checkpoint as the engine reads it, in one precision.
    fn file(&self, checkpoint: &str, precision: Option<&str>) -> Result<PathBuf> {
        let whole = self.work.join(format!("{checkpoint}.gguf"));
        if !whole.exists() {
            shell::run(self.script("convert.py").arg(self.checkpoint(checkpoint)).arg(&whole))?;
        }
        let Some(precision) = precision else { return Ok(whole) };
        let file = self.work.join(format!("{checkpoint}-{precision}.gguf"));
        if !file.exists() {
            let mut quantize = Command::new(&self.engine);
            quantize.args(["quantize", "--type", precision, "--in"]).arg(&whole).arg("--out").arg(&file);
            shell::capture(&mut quantize)?;
        }
        Ok(file)
    }

    fn weights(&self) -> Result<()> {
        let folder = workspace::root().join(WEIGHTS);
        fs::create_dir_all(&folder)?;
        for Variant { name, checkpoint, precision, .. } in VARIANTS {
            let target = folder.join(format!("{name}.gguf"));
            fs::copy(self.file(checkpoint, precision)?, &target)
                .with_context(|| format!("writing {}", target.display()))?;
        }
        Ok(())
    }

    fn logits(&self) -> Result<()> {
        let text = workspace::root().join(TASKS).join("medium.jsonl");
        for checkpoint in ["teacher", "student-1", "pruned"] {
            let mut ask = Command::new(&self.engine);
            ask.args(["perplexity", "--greedy", "--window", WINDOW, "--model"]).arg(self.file(checkpoint, None)?);
            let said = self.work.join(format!("{checkpoint}-greedy.json"));
            fs::write(&said, shell::capture(ask.arg("--text").arg(&text))?)?;
            let answer = shell::capture(self.script("logits.py").arg(self.checkpoint(checkpoint)).arg(&said))?;
            let Same { same, positions, largest_lead } = serde_json::from_str(&answer).context("logits.py's answer")?;
            eprintln!(
                "{checkpoint}: the same at {same:.4} of {positions} places; else a lead of {largest_lead:.4} at most"
            );
            ensure!(same >= SAME_MIN, "{checkpoint}: the engine says something else at too many places");
        }
        Ok(())
    }

    fn evaluate(&self) -> Result<()> {
        for Variant { name, checkpoint, precision, budgets } in VARIANTS {
            self.ask(name, &self.file(checkpoint, precision)?, name, &["--budgets", budgets])?;
        }
        for seed in SEEDS.into_iter().skip(1) {
            let file = self.file(&format!("student-{seed}"), Some("Q8_0"))?;
            self.ask(&format!("student-{seed}"), &file, "student-q8-0", &["--budgets", SOME_BUDGETS])?;
        }
        // Self-consistency: nine answers to a part of the questions.
        let voted = ["--budgets", "8,32,128", "--choices", "9", "--temperature", "0.8", "--limit", "200"];
        self.ask("votes", &self.file("teacher", Some("Q8_0"))?, "teacher-q8-0", &voted)
    }

    fn outcome(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.run.json"))
    }

    fn ask(&self, name: &str, file: &Path, variant: &str, arguments: &[&str]) -> Result<()> {
        let out = self.outcome(name);
        if out.exists() {
            return Ok(());
        }
        shell::step(&format!("evaluating {name}"), || {
            let root = workspace::root();
            let sets = DIFFICULTIES.map(|difficulty| root.join(TASKS).join(format!("{difficulty}.jsonl")));
            let mut command = Command::new(&self.evaluate);
            command.arg("run").arg("--gguf").arg(file).args(["--variant", variant]).args(arguments);
            command.arg("--price-book").arg(root.join(PRICES)).arg("--items").args(sets).arg("--out").arg(&out);
            shell::run(&mut command)
        })
    }

    fn report(&self) -> Result<()> {
        let students = SEEDS.into_iter().skip(1).map(|seed| format!("student-{seed}"));
        let names = VARIANTS.iter().map(|variant| variant.name.to_owned()).chain(students).chain(["votes".to_owned()]);
        let root = workspace::root();
        let mut command = Command::new(&self.evaluate);
        command.args(["report", "--tasks", TASK_SET, "--data"]).arg(root.join("models")).arg("--pictures");
        command.arg(root.join("docs")).args(names.map(|name| self.outcome(&name)));
        let pictures = DIFFICULTIES.map(|difficulty| format!("![{difficulty}](models-{difficulty}.svg)")).join("\n");
        let tables = format!("{pictures}\n\n{}", shell::capture(&mut command)?);
        let page = root.join(PAGE);
        let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        fs::write(&page, between(&text, &tables)?).with_context(|| format!("writing {}", page.display()))?;
        VARIANTS.iter().try_for_each(|variant| self.card(variant))
    }

    /// What somebody should know who finds the file alone.
    fn card(&self, variant: &Variant) -> Result<()> {
        let folder = workspace::root().join(WEIGHTS);
        let bytes = fs::read(folder.join(format!("{}.gguf", variant.name)))?;
        let run: Outcomes = serde_json::from_slice(&fs::read(self.outcome(variant.name))?)?;
        let tokens: f64 = run.outcomes.iter().map(|outcome| outcome.completion_tokens).sum();
        let quality: Quality = serde_json::from_slice(&fs::read(workspace::root().join("models/quality.json"))?)?;
        let mut rows = String::new();
        for curve in quality.curves.iter().filter(|curve| curve.variant == variant.name) {
            for Point { tokens, accuracy, low, high } in &curve.points {
                writeln!(rows, "| {} | {tokens} | {accuracy:.3} ({low:.3} to {high:.3}) |", curve.difficulty)?;
            }
        }
        let text = format!(
            "# {name}\n\n\
             - File: `{name}.gguf`, {size} bytes, SHA-256 `{hash}`\n\
             - Precision: {precision}\n\
             - Architecture: Llama with a tokenizer of its own; the sizes are in `RECIPES` of `models/recipe/train.py`\n\
             - Data: task set `{TASK_SET}`, drawn from seeds by `models/recipe/tasks.py`; nobody's text is in it\n\
             - Recipe: `models/recipe/train.py`, checkpoint `{checkpoint}`; `make models` trains it anew\n\
             - Licence: Apache-2.0\n\
             - Use: demonstrations and tests of Quartermaster. It can do nothing but these tasks\n\
             - Speed: {speed:.0} tokens/s drawn, 16 requests at once, while it was measured\n\n\
             | difficulty | tokens to think for | right answers (95 % interval) |\n|---|---|---|\n{rows}",
            name = variant.name,
            size = bytes.len(),
            hash = hex::encode(Sha256::digest(&bytes)),
            precision = variant.precision.unwrap_or("F16"),
            checkpoint = variant.checkpoint,
            speed = tokens / run.seconds,
        );
        let path = folder.join(format!("{}.md", variant.name));
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// What a card tells of a run.
#[derive(Deserialize)]
struct Outcomes {
    seconds: f64,
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    completion_tokens: f64,
}

/// What a card tells of `quality.json`.
#[derive(Deserialize)]
struct Quality {
    curves: Vec<Curve>,
}

#[derive(Deserialize)]
struct Curve {
    variant: String,
    difficulty: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    tokens: u32,
    accuracy: f64,
    low: f64,
    high: f64,
}

/// The page with these tables between its marks.
fn between(page: &str, tables: &str) -> Result<String> {
    let cut = |text: &str, mark: &str| {
        let (before, after) = text.split_once(mark).with_context(|| format!("{PAGE} has no {mark}"))?;
        Ok::<_, anyhow::Error>((before.to_owned(), after.to_owned()))
    };
    let (before, rest) = cut(page, BEGIN)?;
    let (_, after) = cut(&rest, END)?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

/// Other text of a recipe is another recipe, with checkpoints of its own.
fn recipe_hash() -> Result<String> {
    let mut hash = Sha256::new();
    for name in ["tasks.py", "tokenizer.py", "model.py", "train.py"] {
        let path = workspace::root().join(RECIPE).join(name);
        hash.update(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(hex::encode(hash.finalize())[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_replace_those_before_them() {
        let page = format!("# Models\n{BEGIN}\nold\n{END}\nmore\n");
        let new = between(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("# Models\n{BEGIN}\n\n| new |\n\n{END}\nmore\n"));
        assert_eq!(between(&new, "| new |").unwrap(), new);
        assert!(between("# Models", "").is_err());
    }
}
