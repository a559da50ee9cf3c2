//! Cargo, called in one way. Every call selects the whole workspace, because a package alone would be resolved with
//! other features and its dependencies compiled a second time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{shell, workspace};

/// What is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The programs.
    Programs,
    /// Programs and tests, with the features that tests turn on: what a test run has compiled already.
    WithTests,
}

impl Build {
    /// With what tests need, or without.
    #[must_use]
    pub fn of(with_tests: bool) -> Self {
        if with_tests { Self::WithTests } else { Self::Programs }
    }
}

/// A cargo command in the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Builds every program of the workspace; returns where each is, by name.
pub fn programs(build: Build) -> Result<BTreeMap<String, PathBuf>> {
    let targets: &[&str] = match build {
        // One test of ours turns on the features that tests have: programs and tests share every object.
        Build::Programs => &["--bins", "--test", "tidy"],
        Build::WithTests => &["--lib", "--bins", "--tests"],
    };
    let mut command = cargo(&["build", "--workspace", "--message-format", "json-render-diagnostics"]);
    command.args(targets).stderr(std::process::Stdio::inherit());
    let messages = shell::capture(&mut command)?;
    messages.lines().map(program).filter_map(Result::transpose).collect()
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The program that a line of cargo's messages is about; the tests of a program are none.
fn program(line: &str) -> Result<Option<(String, PathBuf)>> {
    let message: Message = serde_json::from_str(line).with_context(|| format!("cargo's message {line:?}"))?;
    let (Some(target), Some(executable)) = (message.target, message.executable) else { return Ok(None) };
    let tests = message.profile.is_some_and(|profile| profile.test);
    let is_program = message.reason == "compiler-artifact" && !tests && target.kind.iter().any(|kind| kind == "bin");
    Ok(is_program.then_some((target.name, executable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(kind: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","target":{{"name":"x","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":"/t/x"}}"#
        )
    }

    #[test]
    fn only_programs_are_taken() {
        assert_eq!(program(&artifact("bin", false)).unwrap(), Some(("x".to_owned(), "/t/x".into())));
        assert_eq!(program(&artifact("bin", true)).unwrap(), None);
        assert_eq!(program(&artifact("test", true)).unwrap(), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        assert!(program("warning: no JSON").is_err());
    }
}
