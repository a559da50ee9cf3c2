//! `core` decides and does nothing else: no clock, no I/O, no async, no randomness, and only the dependencies listed here.

use super::TextFile;
use super::source::{code, has_word, is_program, program_lines};

/// What core may depend on. Another name here is a decision, not a detail.
const DEPENDENCIES: [&str; 7] =
    ["jiff", "minijinja", "minijinja-contrib", "schemars", "serde", "serde_json", "thiserror"];
/// Paths and names that mean a clock, I/O, async or chance.
const FORBIDDEN: [&str; 14] = [
    "tokio",
    "kube",
    "reqwest",
    "futures",
    "rand",
    "getrandom",
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "std::process",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
];
const CLOCKS: [&str; 2] = ["std::time::Instant", "Instant::now"];

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let core = files.iter().filter(|file| file.path.starts_with("core/"));
    core.flat_map(|file| if file.path == "core/Cargo.toml" { dependencies(file) } else { imports(file) }).collect()
}

fn imports(file: &TextFile) -> Vec<String> {
    if !is_program(file) {
        return Vec::new();
    }
    let found = |line: &str| FORBIDDEN.iter().chain(&CLOCKS).find(|word| has_word(code(line), word)).copied();
    let lines = program_lines(&file.text).into_iter();
    lines
        .filter_map(|(number, line)| {
            found(line).map(|word| format!("{}:{number}: core may not use {word}: make it an argument", file.path))
        })
        .collect()
}

fn dependencies(file: &TextFile) -> Vec<String> {
    let lines = file.text.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let section = lines.take_while(|line| !line.starts_with('['));
    let names = section.filter_map(|line| line.split(['.', '=', ' ']).next()).filter(|name| !name.is_empty());
    names
        .filter(|name| !name.starts_with('#') && !DEPENDENCIES.contains(name))
        .map(|name| format!("core/Cargo.toml: {name} is not among the dependencies that core may have"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn clocks_and_io_are_found_in_code_only() {
        let text = "//! No tokio here.\nuse std::fs;\nlet now = SystemTime::now();\nlet a = operand; // rand\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        let complaints = check(&[file("core/src/a.rs", text), file("gateway/src/a.rs", text)]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("core/src/a.rs:2:") && complaints[1].contains("SystemTime"));
    }

    #[test]
    fn only_listed_dependencies_pass() {
        let text = "[package]\nname = \"x\"\n[dependencies]\n# why\nserde.workspace = true\ntokio = \"1\"\n\n[dev-dependencies]\nproptest = \"1\"\n";
        let complaints = check(&[file("core/Cargo.toml", text)]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("tokio"));
    }
}
