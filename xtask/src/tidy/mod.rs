//! The house rules, checked on the text of the tree. Each rule is a function from files to complaints; what the
//! compiler, clippy and rustfmt check already is not checked again here.

mod allow;
mod benches;
mod core_purity;
mod crate_docs;
mod floats;
mod machine;
mod size;
mod source;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::workspace;
use allow::AllowList;

const ALLOW_LIST: &str = "xtask/tidy-allow.txt";

/// A text file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextFile {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// Prints every complaint; an error when there is one.
pub fn run() -> Result<()> {
    let complaints = complaints()?;
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} house rules are broken", complaints.len());
    }
    Ok(())
}

/// Everything that is wrong with the tree.
pub fn complaints() -> Result<Vec<String>> {
    let files = read_tree()?;
    let allowed = fs::read_to_string(workspace::root().join(ALLOW_LIST)).context("reading the allow list")?;
    let allowed = AllowList::parse(&allowed)?;
    let mut complaints = allowed.judge(&size::measure(&files));
    complaints.extend(crate_docs::check(&files));
    complaints.extend(core_purity::check(&files));
    complaints.extend(floats::check(&files));
    complaints.extend(machine::check(&files, &machine::Machine::this()));
    complaints.extend(benches::check(&files));
    Ok(complaints)
}

/// Text files that are in git or would be.
fn read_tree() -> Result<Vec<TextFile>> {
    let root = workspace::root();
    let read = |path: String| {
        let bytes = fs::read(root.join(&path)).with_context(|| format!("reading {path}"))?;
        Ok(String::from_utf8(bytes).ok().map(|text| TextFile { path, text }))
    };
    workspace::files()?.into_iter().map(read).filter_map(Result::transpose).collect()
}

#[cfg(test)]
pub(crate) fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}
