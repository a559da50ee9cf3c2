//! `cargo xtask gen`: files that come from code. Tests compare them, so that none goes stale.

use std::fs;

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::{charts, shell, workspace};

/// Writes every generated file that differs.
pub fn run() -> Result<()> {
    for file in quartermaster_crds::render::files()? {
        write(&file.path, &file.content)?;
    }
    for golden in charts::goldens()? {
        write(&golden.path, &golden.content)?;
    }
    metrics()
}

/// The page of metrics is written by its test: to ask the programs from here, they would have to be built before us. The
/// test fails where it writes, and passes after that.
fn metrics() -> Result<()> {
    let arguments = ["test", "--quiet", "--workspace", "--test", "metrics_page"];
    let test = || shell::run(cargo(&arguments).env_remove("CI"));
    test().or_else(|_| test())
}

fn write(path: &str, content: &str) -> Result<()> {
    let full = workspace::root().join(path);
    if fs::read_to_string(&full).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = full.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(&full, content).with_context(|| format!("writing {path}"))?;
    eprintln!("wrote {path}");
    Ok(())
}
