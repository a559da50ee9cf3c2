//! `cargo xtask models`: trains the model family, brings it into its precisions, measures it, writes what is committed
//! under `models/`. About two hours on two cores; every part that is done is kept in the user's cache and not done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cargo::{self, Build};
use crate::images::models;
use crate::{python, shell, workspace};

const RECIPE: &str = "models/recipe";
const TASKS: &str = "models/tasks";
const WEIGHTS: &str = "models/weights";
const LOGITS: &str = "models/logits";
/// What makes a served file of a checkpoint, beside the engine, ...
const CONVERT: [&str; 1] = ["models/recipe/convert.py"];
/// ... and an outcome of a served file.
const ASKING: [&str; 7] = [
    "e2e/src/evaluate/ask.rs",
    "e2e/src/evaluate/items.rs",
    "e2e/src/evaluate/outcome.rs",
    "e2e/src/evaluate/prices.rs",
    "e2e/src/evaluate/served.rs",
    "e2e/src/evaluate/verify.rs",
    "e2e/src/openai.rs",
];
const EXAMPLE: &str = "examples/family/model.yaml";
const PAGE: &str = "docs/models.md";
/// The tables in the page stand between these.
const BEGIN: &str = "<!-- tables: written by `cargo xtask models --only report` -->";
const END: &str = "<!-- end of tables -->";
/// Names the task set in the results; another one when `tasks.py` changes what it asks.
const TASK_SET: &str = "steps-3";
/// What two virtual cores cost on demand, in dollars an hour: a c6i.large in us-east-1.
const DOLLARS_PER_HOUR: &str = "0.085";
const DIFFICULTIES: [&str; 3] = ["easy", "medium", "hard"];
/// Training seeds of the student.
const SEEDS: [u32; 3] = [1, 2, 3];
/// Share of places where the engine must say what the trained model says, with a logit that is hardly another.
const SAME_MIN: f64 = 0.99;
/// Tokens that are compared.
const WINDOW: &str = "512";
const ALL_BUDGETS: &str = "12,16,24,32,48,64,96,128,192,256";
const SOME_BUDGETS: &str = "16,32,64,128,256";

/// What is trained, and how it is served. The first one is what the others are compared with.
const VARIANTS: [Variant; 6] = [
    Variant { name: "teacher-f16", checkpoint: "teacher", precision: None, budgets: SOME_BUDGETS },
    Variant { name: "teacher-q8-0", checkpoint: "teacher", precision: Some("Q8_0"), budgets: ALL_BUDGETS },
    Variant { name: "teacher-q4-k-m", checkpoint: "teacher", precision: Some("Q4_K_M"), budgets: SOME_BUDGETS },
    Variant { name: "student-q8-0", checkpoint: "student-1", precision: Some("Q8_0"), budgets: SOME_BUDGETS },
    Variant { name: "pruned-q8-0", checkpoint: "pruned", precision: Some("Q8_0"), budgets: SOME_BUDGETS },
    Variant { name: "teacher-q2-k", checkpoint: "teacher", precision: Some("Q2_K"), budgets: SOME_BUDGETS },
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
    apart: f64,
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
        self.train_one("answers", &["--teacher", &teacher])?;
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
        let made_by = &hash_of(&CONVERT, &models::engine()?)?[..8];
        let whole = self.work.join(format!("{checkpoint}-{made_by}.gguf"));
        if !whole.exists() {
            shell::run(self.script("convert.py").arg(self.checkpoint(checkpoint)).arg(&whole))?;
        }
        let Some(precision) = precision else { return Ok(whole) };
        let file = self.work.join(format!("{checkpoint}-{made_by}-{precision}.gguf"));
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
        let folder = workspace::root().join(LOGITS);
        fs::create_dir_all(&folder)?;
        let text = folder.join("text.txt");
        shell::run(self.script("logits.py").arg("text").arg(&text))?;
        for checkpoint in ["teacher", "student-1", "pruned"] {
            let said = self.work.join(format!("{checkpoint}-greedy.json"));
            fs::write(&said, self.greedy(&self.file(checkpoint, None)?, &text)?)?;
            // Tests compare the teacher's file alone: it is the one whose weights are committed as they were trained.
            let own = if checkpoint == "teacher" {
                folder.join("teacher.json")
            } else {
                self.work.join(format!("{checkpoint}-own.json"))
            };
            let mut compare = self.script("logits.py");
            compare.arg("compare").arg(self.checkpoint(checkpoint)).args([&text, &said, &own]);
            let answer = shell::capture(&mut compare)?;
            let Same { same, positions, apart } = serde_json::from_str(&answer).context("logits.py's answer")?;
            eprintln!("{checkpoint}: the same at {same:.4} of {positions} places, logits apart by {apart:.4} at most");
            ensure!(same >= SAME_MIN, "{checkpoint}: the engine says something else than the trained model");
        }
        // What each shipped file says in the engine: a test sees that it says so for ever.
        for Variant { name, checkpoint, precision, .. } in VARIANTS {
            let said = self.greedy(&self.file(checkpoint, precision)?, &text)?;
            fs::write(folder.join(format!("{name}.json")), format!("{}\n", said.trim_end()))?;
        }
        Ok(())
    }

    /// What the engine would say after each token of a text.
    fn greedy(&self, model: &Path, text: &Path) -> Result<String> {
        let mut ask = Command::new(&self.engine);
        ask.args(["perplexity", "--greedy", "--window", WINDOW, "--model"]).arg(model).arg("--text").arg(text);
        shell::capture(&mut ask)
    }

    fn evaluate(&self) -> Result<()> {
        self.runs()?.into_iter().try_for_each(Asked::ask)
    }

    /// All runs of the evaluation, done or not.
    fn runs(&self) -> Result<Vec<Asked>> {
        let mut runs = Vec::new();
        for Variant { name, checkpoint, precision, budgets } in VARIANTS {
            runs.push(self.asked(name, name, checkpoint, precision, &["--budgets", budgets])?);
        }
        for seed in SEEDS.into_iter().skip(1) {
            let name = format!("student-{seed}");
            runs.push(self.asked(&name, "student-q8-0", &name, Some("Q8_0"), &["--budgets", SOME_BUDGETS])?);
        }
        // Self-consistency: nine answers to a part of the questions.
        let voted = ["--budgets", "16,64,256", "--choices", "9", "--temperature", "0.8", "--limit", "200"];
        runs.push(self.asked("votes", "teacher-q8-0", "teacher", Some("Q8_0"), &voted)?);
        Ok(runs)
    }

    fn asked(
        &self,
        name: &str,
        variant: &str,
        checkpoint: &str,
        precision: Option<&str>,
        arguments: &[&str],
    ) -> Result<Asked> {
        let root = workspace::root();
        let file = self.file(checkpoint, precision)?;
        let sets = DIFFICULTIES.map(|difficulty| root.join(TASKS).join(format!("{difficulty}.jsonl")));
        let mut command = Command::new(&self.evaluate);
        command.args(["run", "--variant", variant]);
        command.args(["--checkpoint", checkpoint, "--precision", precision.unwrap_or("F16")]);
        command.args(["--dollars-per-hour", DOLLARS_PER_HOUR]).args(arguments);
        // What was asked otherwise, by other code, or of another file, is another outcome.
        let mut hash = Sha256::new();
        for part in [&file].into_iter().chain(&sets) {
            hash.update(fs::read(part).with_context(|| format!("reading {}", part.display()))?);
        }
        hash.update(format!("{:?}", command.get_args()));
        let key = &hash_of(&ASKING, &hex::encode(hash.finalize()))?[..8];
        let outcome = self.work.join(format!("{name}-{key}.run.json"));
        // Where the files lie makes no difference.
        command.arg("--gguf").arg(&file).arg("--items").args(&sets).arg("--out").arg(&outcome);
        Ok(Asked { name: name.to_owned(), command, outcome })
    }

    fn report(&self) -> Result<()> {
        let root = workspace::root();
        let mut command = Command::new(&self.evaluate);
        command.args(["report", "--tasks", TASK_SET, "--data"]).arg(root.join("models"));
        command.arg("--pictures").arg(root.join("docs")).arg("--cards").arg(root.join(WEIGHTS));
        command.arg("--example").arg(root.join(EXAMPLE)).arg("--training");
        let students = SEEDS.map(|seed| format!("student-{seed}"));
        for name in ["teacher", "answers"].into_iter().chain(students.iter().map(String::as_str)).chain(["pruned"]) {
            command.arg(self.work.join(format!("{name}.json")));
        }
        command.arg("--");
        let runs = self.runs()?;
        if let Some(missing) = runs.iter().find(|run| !run.outcome.exists()) {
            bail!("{} has not been asked as it would be now: run `cargo xtask models --only evaluate`", missing.name);
        }
        command.args(runs.iter().map(|run| &run.outcome));
        let pictures = DIFFICULTIES.iter().chain(&["votes"]);
        let pictures = pictures.map(|name| format!("![{name}](models-{name}.svg)")).collect::<Vec<_>>().join("\n");
        let tables = format!("{pictures}\n\n{}", shell::capture(&mut command)?);
        let page = root.join(PAGE);
        let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        fs::write(&page, between(&text, &tables)?).with_context(|| format!("writing {}", page.display()))
    }
}

/// A run of the evaluation.
struct Asked {
    name: String,
    command: Command,
    outcome: PathBuf,
}

impl Asked {
    fn ask(mut self) -> Result<()> {
        if self.outcome.exists() {
            return Ok(());
        }
        shell::step(&format!("evaluating {}", self.name), || shell::run(&mut self.command))
    }
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
    let names = ["tasks.py", "tokenizer.py", "model.py", "train.py"].map(|name| format!("{RECIPE}/{name}"));
    Ok(hash_of(&names, "")?[..16].to_owned())
}

/// Of files of the repository, and of what else matters.
fn hash_of(files: &[impl AsRef<str>], more: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let path = workspace::root().join(file.as_ref());
        hash.update(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    hash.update(more);
    Ok(hex::encode(hash.finalize()))
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
