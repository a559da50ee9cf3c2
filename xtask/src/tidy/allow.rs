//! Sizes against their limits, with a list of exceptions that only shrinks.

use anyhow::{Context, Result, ensure};

use super::size::{Kind, Measured};

/// What may be larger than the rule says, and how large at most.
#[derive(Debug, Default)]
pub(super) struct AllowList(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    kind: Kind,
    path: String,
    lines: usize,
}

impl AllowList {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(parse_entry).collect::<Result<Vec<_>>>().map(Self)
    }

    /// Complaints about what is too large, and about entries that are too generous.
    pub(super) fn judge(&self, measured: &[Measured]) -> Vec<String> {
        let too_large = measured.iter().filter_map(|one| self.excess(one));
        let stale = self.0.iter().filter_map(|entry| entry.stale(measured));
        too_large.chain(stale).collect()
    }

    fn excess(&self, one: &Measured) -> Option<String> {
        let (limit, hard) = one.kind.limits();
        let entry = self.0.iter().find(|entry| entry.kind == one.kind && entry.path == one.path);
        let allowed = entry.map_or(limit, |entry| entry.lines).min(hard);
        let what = one.what();
        (one.lines > allowed).then(|| format!("{what} has {} lines; {allowed} are the limit: split it", one.lines))
    }
}

impl Entry {
    fn stale(&self, measured: &[Measured]) -> Option<String> {
        let same = measured.iter().filter(|one| one.kind == self.kind && one.path == self.path);
        let largest = same.map(|one| one.lines).max().unwrap_or(0);
        let (limit, _) = self.kind.limits();
        let path = &self.path;
        if largest <= limit {
            return Some(format!("the allow list still has {path}, which keeps the rule now: remove the entry"));
        }
        (largest < self.lines)
            .then(|| format!("the allow list gives {path} {} lines: shrink it to {largest}", self.lines))
    }
}

fn parse_entry(line: &str) -> Result<Entry> {
    let wrong = || format!("allow list: {line:?} is not RULE PATH LINES");
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words.len() == 3, wrong());
    let kind = match words[0] {
        "file" => Kind::File,
        "function" => Kind::Function,
        _ => anyhow::bail!(wrong()),
    };
    Ok(Entry { kind, path: words[1].to_owned(), lines: words[2].parse().with_context(wrong)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize) -> Vec<Measured> {
        vec![Measured { kind: Kind::File, path: "a.rs".to_owned(), name: String::new(), lines }]
    }

    #[test]
    fn the_limit_holds_unless_listed_and_the_hard_one_always() {
        let none = AllowList::default();
        assert!(none.judge(&file(400)).is_empty());
        assert!(none.judge(&file(401))[0].contains("401 lines"));
        let listed = AllowList::parse("# why\nfile a.rs 500\n").unwrap();
        assert!(listed.judge(&file(500)).is_empty());
        assert_eq!(listed.judge(&file(501)).len(), 1);
        assert!(AllowList::parse("file a.rs 900").unwrap().judge(&file(601))[0].contains("600 are the limit"));
    }

    #[test]
    fn entries_only_shrink() {
        let listed = AllowList::parse("file a.rs 500").unwrap();
        assert!(listed.judge(&file(450))[0].contains("shrink it to 450"));
        assert!(listed.judge(&file(300))[0].contains("remove the entry"));
        assert!(listed.judge(&[])[0].contains("remove the entry"));
        assert!(AllowList::parse("file a.rs").is_err() && AllowList::parse("folder a 1").is_err());
    }
}
