//! A benchmark without a goal measures nothing that anybody decides by.

use super::TextFile;

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let benches = files.iter().filter(|file| file.path.contains("/benches/") && file.path.ends_with(".rs"));
    let without = benches.filter(|file| !header(&file.text).contains("goal:"));
    without.map(|file| format!("{} names no goal: write `//! Goal: …` at its top", file.path)).collect()
}

fn header(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with("//!"));
    lines.collect::<Vec<_>>().join("\n").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn a_goal_stands_at_the_top() {
        assert!(check(&[file("a/benches/x.rs", "//! Times x.\n//! Goal: 1 µs.\nfn main() {}\n")]).is_empty());
        assert_eq!(check(&[file("a/benches/x.rs", "//! Times x.\nfn main() {} // goal: none\n")]).len(), 1);
    }
}
