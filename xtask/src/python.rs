//! A Python with PyTorch, for what is trained and compared: some gigabytes, installed once in the user's cache. CI never
//! does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{shell, workspace};

const PACKAGES: [&str; 4] = ["torch==2.15.0", "transformers==5.24.0", "accelerate==1.15.0", "gguf==0.19.0"];

/// Its interpreter.
pub(crate) fn environment() -> Result<PathBuf> {
    shell::step("a Python with PyTorch", || {
        let folder = workspace::cache("reference")?.join(PACKAGES.join("-").replace("==", "-"));
        let python = folder.join("bin/python");
        // Written last: an installation that was cut off is made again.
        let done = folder.join("done");
        if !done.exists() {
            shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            shell::run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
            fs::write(&done, "")?;
        }
        Ok(python)
    })
}
