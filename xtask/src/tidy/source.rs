//! What the rules need to know about Rust source, read off its lines. It relies on rustfmt: a block that begins with
//! some indentation ends with a brace at the same.

use super::TextFile;

/// True for Rust that is in a program, not in its tests.
pub(super) fn is_program(file: &TextFile) -> bool {
    let test_folder = file.path.split('/').any(|part| matches!(part, "tests" | "benches" | "testdata"));
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let test_file = name == "tests.rs" || name.ends_with("_tests.rs") || name == "testing.rs";
    name.ends_with(".rs") && !test_folder && !test_file
}

/// The lines outside `#[cfg(test)]` modules, with their numbers from 1.
pub(super) fn program_lines(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut skipped_to: Option<String> = None;
    let mut test_attribute = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(end) = &skipped_to {
            if line == end {
                skipped_to = None;
            }
            continue;
        }
        if test_attribute && opens_module(line) {
            skipped_to = Some(format!("{}}}", indentation(line)));
            lines.pop();
        } else {
            lines.push((number, line));
        }
        test_attribute = line.trim() == "#[cfg(test)]" || (test_attribute && line.trim_start().starts_with("#["));
    }
    lines
}

/// Code of a line: no comment. A `//` in a string ends it too, which is the safe side for what is looked for.
pub(super) fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// True when `word` is in `code`, not as a part of a longer name.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Name and length of each function.
pub(super) fn functions(lines: &[(usize, &str)]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (index, (start, line)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let end = format!("{}}}", indentation(line));
        let no_body = format!("{};", indentation(line));
        let rest =
            lines[index..].iter().find(|(_, line)| *line == end || line.ends_with(';') && line.starts_with(&no_body));
        let one_line = line.trim_end().ends_with(['}', ';']);
        let last = if one_line { *start } else { rest.map_or(*start, |(number, _)| *number) };
        found.push((name.to_owned(), last - start + 1));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = code(line).split_whitespace();
    let qualifier = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "default")
            || word.starts_with("pub(")
            || word == "\"C\""
    };
    let keyword = words.find(|word| !qualifier(word))?;
    let name = words.next().filter(|_| keyword == "fn")?;
    name.split(['(', '<']).next()
}

fn opens_module(line: &str) -> bool {
    let line = line.trim();
    line.ends_with('{')
        && (line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("pub(crate) mod "))
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    const TEXT: &str = "use x;\n\npub async fn one(\n    a: u8,\n) -> u8 {\n    if a {\n    }\n}\n\ntrait T {\n    fn short(&self) -> u8;\n    fn two<A>(a: A) { a }\n}\n\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n    fn in_tests() {\n    }\n}\n";

    #[test]
    fn tests_are_left_out() {
        let lines = program_lines(TEXT);
        assert!(lines.iter().all(|(_, line)| !line.contains("in_tests")));
        assert!(lines.iter().any(|(number, line)| *number == 3 && line.contains("one")));
        assert!(!is_program(&file("core/tests/x.rs", "")) && !is_program(&file("core/src/x_tests.rs", "")));
        assert!(is_program(&file("core/src/x.rs", "")) && !is_program(&file("core/src/x.txt", "")));
    }

    #[test]
    fn functions_are_measured_from_name_to_brace() {
        let lines = program_lines(TEXT);
        let expected = [("one", 6), ("short", 1), ("two", 1)].map(|(name, lines)| (name.to_owned(), lines));
        assert_eq!(functions(&lines), expected);
    }

    #[test]
    fn words_are_whole() {
        assert!(
            has_word("use rand::Rng", "rand") && !has_word("use operand::X", "rand") && !has_word("random", "rand")
        );
        assert_eq!(code("let a = 1; // f64"), "let a = 1; ");
    }
}
