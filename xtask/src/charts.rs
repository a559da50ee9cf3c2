//! The charts, rendered and checked by the real Helm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use quartermaster_cluster::build::{HELM, build};

use crate::{shell, workspace};

/// The charts, by folder.
pub const CHARTS: [&str; 2] = ["charts/quartermaster", "charts/quartermaster-crds"];
/// Sets of values that are rendered and compared with what is committed.
pub const VALUES: &str = "charts/quartermaster/tests/values";
const GOLDEN: &str = "charts/quartermaster/tests/golden";

/// A chart rendered with a set of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Golden {
    /// Where it is committed, from the repository's root.
    pub path: String,
    /// Every object, in an order that does not depend on Helm's version.
    pub content: String,
}

/// Helm: the one that the cluster harness has built, else the machine's, else it is built now.
pub fn helm() -> Result<PathBuf> {
    let ours = HELM.binary()?;
    if ours.exists() {
        return Ok(ours);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join("helm")).find(|file| file.is_file()) {
        return Ok(found);
    }
    build(&[HELM]).context("building Helm, which the charts are rendered with")?;
    Ok(ours)
}

/// `helm lint --strict`.
pub fn lint(chart: &str) -> Result<String> {
    shell::capture(Command::new(helm()?).args(["lint", "--strict", chart]).current_dir(workspace::root()))
}

/// Renders the application's chart with further arguments.
pub fn render(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(helm()?);
    command.args(["template", "quartermaster", CHARTS[0], "--namespace", "quartermaster-system"]).args(arguments);
    let text = shell::capture(command.current_dir(workspace::root()))?;
    Ok(stable(&text))
}

/// The chart rendered with each set of values.
pub fn goldens() -> Result<Vec<Golden>> {
    let folder = workspace::root().join(VALUES);
    let entries = fs::read_dir(&folder).with_context(|| format!("listing {VALUES}"))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| golden(file)).collect()
}

fn golden(values: &Path) -> Result<Golden> {
    let name = values.file_name().with_context(|| format!("{} has no name", values.display()))?.to_string_lossy();
    let content = render(&["--values", &values.to_string_lossy()])?;
    Ok(Golden { path: format!("{GOLDEN}/{name}"), content })
}

/// Objects sorted by the template that they come from, and without what is random.
fn stable(rendered: &str) -> String {
    let text = format!("\n{rendered}");
    let mut documents: Vec<&str> = text.split("\n---\n").map(str::trim).filter(|text| !text.is_empty()).collect();
    documents.sort_by_key(|document| document.lines().next().unwrap_or_default().to_owned());
    let documents: Vec<String> = documents.into_iter().map(without_random).collect();
    format!("{}\n", documents.join("\n---\n"))
}

fn without_random(document: &str) -> String {
    if !document.contains("\nkind: Secret\n") {
        return document.to_owned();
    }
    let mask = |line: &str| match line.split_once(": ") {
        Some((key @ ("  token" | "  salt"), _)) => format!("{key}: RANDOM"),
        _ => line.to_owned(),
    };
    document.lines().map(mask).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_random_values_do_not_matter() {
        let one = "---\n# Source: b.yaml\nkind: Secret\ndata:\n  token: abc\n\n---\n# Source: a.yaml\nkind: X\n  token: kept\n";
        let other =
            "---\n# Source: a.yaml\nkind: X\n  token: kept\n---\n# Source: b.yaml\nkind: Secret\ndata:\n  token: xyz\n";
        assert_eq!(stable(one), stable(other));
        assert!(stable(one).contains("token: kept") && stable(one).contains("token: RANDOM"));
    }
}
