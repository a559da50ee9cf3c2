//! No float in the API's types or in what the ledger is told: money and tokens are integers, decimals are strings.

use super::TextFile;
use super::source::{code, has_word, is_program, program_lines};

const EXACT: [&str; 3] = ["crds/src/v1alpha1/", "crds/src/money.rs", "core/src/wire/ledger.rs"];

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let exact = files.iter().filter(|file| EXACT.iter().any(|place| file.path.starts_with(place)) && is_program(file));
    exact.flat_map(complaints).collect()
}

fn complaints(file: &TextFile) -> Vec<String> {
    let floats = |line: &str| ["f32", "f64"].into_iter().find(|word| has_word(code(line), word));
    let lines = program_lines(&file.text).into_iter();
    lines
        .filter_map(|(number, line)| {
            floats(line)
                .map(|word| format!("{}:{number}: {word} is not exact; use an integer or a decimal string", file.path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn floats_are_refused_where_figures_are_exact() {
        let text = "struct A {\n    price: f64,\n    name: af64,\n}\n";
        let complaints = check(&[file("crds/src/v1alpha1/a.rs", text), file("crds/src/number.rs", text)]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("crds/src/v1alpha1/a.rs:2:"));
    }
}
