//! `cargo xtask images`: container images as OCI tars, from the very programs that the tests run, without an engine.
//! A tar is written again only when what goes into it has changed; the same input gives the same bytes.

mod copier;
pub(crate) mod models;
mod programs;
mod stamp;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::{self, Build};
use crate::{shell, workspace};

/// Registry and tag of images that are built here.
const REGISTRY: &str = "quartermaster.dev";
const TAG: &str = "dev";

/// What `cargo xtask images` can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Folder that gets `images/` and `models/`.
    #[arg(long, default_value = "dist")]
    pub out: PathBuf,
    /// The demo's model too: downloads 93 MB once, keeps it in the user's cache.
    #[arg(long)]
    pub models: bool,
    /// Use the build that has the features of tests, which a test run leaves behind.
    #[arg(long)]
    pub with_tests: bool,
    /// Take the programs that lie in this folder instead of building any.
    #[arg(long, value_name = "FOLDER", conflicts_with = "with_tests")]
    pub from: Option<PathBuf>,
    /// Load the images into this cluster of `quartermaster-cluster`.
    #[arg(long, value_name = "CLUSTER")]
    pub load: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { out: PathBuf::from("dist"), models: false, with_tests: false, from: None, load: None }
    }
}

/// Builds what is asked for.
pub fn run(options: &Options) -> Result<()> {
    let built = match &options.from {
        Some(folder) => found(folder)?,
        None => shell::step("programs", || cargo::programs(Build::of(options.with_tests)))?,
    };
    let out = workspace::root().join(&options.out);
    let mut tars = shell::step("images", || programs::write_all(&built, &out.join("images")))?;
    if options.models {
        let server = built.get("quartermaster-inference-pod").context("cargo built no quartermaster-inference-pod")?;
        tars.extend(shell::step("model images", || {
            let folder = out.join("models");
            Ok([models::write_all(server, &folder)?, models::write_family(&folder)?].concat())
        })?);
    }
    if let Some(cluster) = &options.load {
        let harness = built.get("quartermaster-cluster").context("cargo built no quartermaster-cluster")?;
        shell::run(Command::new(harness).args(["--name", cluster, "load"]).args(&tars))?;
    }
    Ok(())
}

/// Programs by name, as they lie in a folder.
fn found(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("--from: listing {}", folder.display()))?;
    let files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let programs = files.into_iter().filter(|file| file.is_file() && file.extension().is_none());
    Ok(programs.filter_map(|file| Some((file.file_name()?.to_string_lossy().into_owned(), file))).collect())
}
