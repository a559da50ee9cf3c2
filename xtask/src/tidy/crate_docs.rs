//! Every crate's root says what the crate is in the way of data, what it may not do, and where to read next.

use super::TextFile;
use crate::limits::CRATE_DOC_LINES;

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    files.iter().filter_map(|file| complaint(file, files)).collect()
}

fn complaint(file: &TextFile, files: &[TextFile]) -> Option<String> {
    let folder = file.path.strip_suffix("/src/lib.rs").or_else(|| file.path.strip_suffix("/src/main.rs"))?;
    let beside_library =
        file.path.ends_with("main.rs") && files.iter().any(|other| other.path == format!("{folder}/src/lib.rs"));
    let needed = if beside_library { 1 } else { CRATE_DOC_LINES };
    let found = file.text.lines().take_while(|line| line.starts_with("//!")).count();
    let path = &file.path;
    (found < needed).then(|| {
        format!("{path} begins with {found} lines of `//!`, not {needed}: what is it, what may it not do, where to read next?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn a_library_needs_more_words_than_the_program_beside_it() {
        let good = file("a/src/lib.rs", "//! A.\n//!\n//! B.\n\nuse x;\n");
        assert!(check(&[good.clone(), file("a/src/main.rs", "//! Runs a.\n")]).is_empty());
        assert_eq!(check(&[file("a/src/main.rs", "//! Runs a.\n")]).len(), 1);
        assert!(check(&[good, file("a/src/main.rs", "use x;\n")])[0].starts_with("a/src/main.rs"));
        assert!(check(&[file("a/src/other.rs", "")]).is_empty());
    }
}
