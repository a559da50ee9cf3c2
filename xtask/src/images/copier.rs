//! The static program that runs inside model images, which hold nothing but a model: compiled by rustc alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{shell, workspace};

const SOURCE: &str = "inference-pod/model-copy/main.rs";
const FLAGS: [&str; 5] =
    ["--edition=2024", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"];

/// Compiles the copier, or takes it from the cache.
pub(super) fn build() -> Result<PathBuf> {
    let source = workspace::root().join(SOURCE);
    let text = fs::read(&source).with_context(|| format!("reading {SOURCE}"))?;
    let compiler = shell::capture(Command::new("rustc").arg("--version").current_dir(workspace::root()))?;
    let mut hasher = Sha256::new();
    for part in [text.as_slice(), compiler.as_bytes(), FLAGS.join(" ").as_bytes()] {
        hasher.update(part);
    }
    let folder = workspace::cache("model-copy")?.join(&hex::encode(hasher.finalize())[..16]);
    let program = folder.join("model-copy");
    if !program.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let work = tempfile::tempdir_in(&folder).context("making a folder to compile in")?;
        let output = work.path().join("model-copy");
        let mut rustc = Command::new("rustc");
        rustc.args(FLAGS).arg("-o").arg(&output).arg(&source).current_dir(workspace::root());
        shell::run(&mut rustc).with_context(|| format!("compiling {SOURCE}"))?;
        fs::rename(&output, &program).with_context(|| format!("moving it to {}", program.display()))?;
    }
    Ok(program)
}
