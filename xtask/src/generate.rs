//! `cargo xtask gen`: files that come from code. Tests compare them, so that none goes stale.

use std::fs;

use anyhow::{Context, Result};

use crate::{charts, workspace};

/// Writes every generated file that differs.
pub fn run() -> Result<()> {
    for file in quartermaster_crds::render::files()? {
        write(&file.path, &file.content)?;
    }
    for golden in charts::goldens()? {
        write(&golden.path, &golden.content)?;
    }
    Ok(())
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
