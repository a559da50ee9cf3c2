//! How long files and functions are, tests left out.

use super::TextFile;
use super::source::{functions, is_program, program_lines};
use crate::limits::{FILE_LINES, FILE_LINES_HARD, FUNCTION_LINES};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Function,
}

/// A file or a function with its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    pub(super) path: String,
    pub(super) name: String,
    pub(super) lines: usize,
}

impl Kind {
    /// The limit, and the one that no exception passes.
    pub(super) fn limits(self) -> (usize, usize) {
        match self {
            Self::File => (FILE_LINES, FILE_LINES_HARD),
            Self::Function => (FUNCTION_LINES, usize::MAX),
        }
    }
}

impl Measured {
    /// How a complaint calls it.
    pub(super) fn what(&self) -> String {
        match self.kind {
            Kind::File => self.path.clone(),
            Kind::Function => format!("{}: function {}", self.path, self.name),
        }
    }
}

/// Every program file and every function in it.
pub(super) fn measure(files: &[TextFile]) -> Vec<Measured> {
    files.iter().filter(|file| is_program(file)).flat_map(measure_file).collect()
}

fn measure_file(file: &TextFile) -> Vec<Measured> {
    let lines = program_lines(&file.text);
    let path = || file.path.clone();
    let whole = Measured { kind: Kind::File, path: path(), name: String::new(), lines: lines.len() };
    let functions = functions(&lines).into_iter();
    let functions = functions.map(|(name, lines)| Measured { kind: Kind::Function, path: path(), name, lines });
    std::iter::once(whole).chain(functions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn a_file_and_its_functions_are_measured() {
        let measured = measure(&[file("a.rs", "fn one() {\n    two();\n}\n"), file("a.md", "text")]);
        let summary: Vec<_> = measured.iter().map(|one| (one.what(), one.lines)).collect();
        assert_eq!(summary, [("a.rs".to_owned(), 3), ("a.rs: function one".to_owned(), 3)]);
    }
}
