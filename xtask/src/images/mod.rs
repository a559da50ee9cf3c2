//! `cargo xtask images`: container images as OCI tars, from the very programs that the tests run, without an engine.
//! A tar is written again only when what goes into it has changed; the same input gives the same bytes.

mod copier;
mod models;
mod programs;
mod stamp;

use std::path::PathBuf;

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
    /// Load the images into this cluster of `quartermaster-cluster`.
    #[arg(long, value_name = "CLUSTER")]
    pub load: Option<String>,
}

/// Builds what is asked for.
pub fn run(options: &Options) -> Result<()> {
    let build = if options.with_tests { Build::WithTests } else { Build::Programs };
    let built = shell::step("programs", || cargo::programs(build))?;
    let out = workspace::root().join(&options.out);
    let mut tars = shell::step("images", || programs::write_all(&built, &out.join("images")))?;
    if options.models {
        let server = built.get("quartermaster-inference-pod").context("cargo built no quartermaster-inference-pod")?;
        tars.extend(shell::step("model images", || models::write_all(server, &out.join("models")))?);
    }
    if let Some(cluster) = &options.load {
        let harness = built.get("quartermaster-cluster").context("cargo built no quartermaster-cluster")?;
        shell::run(std::process::Command::new(harness).args(["--name", cluster, "load"]).args(&tars))?;
    }
    Ok(())
}
