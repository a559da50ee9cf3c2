//! Nothing of the machine that somebody works on gets into the tree: no home folder or checkout path, no package mirror.
//! The machine is asked what those are, so the rule is the same everywhere and names nothing itself.

use std::path::PathBuf;

use super::TextFile;
use crate::limits::MACHINE_PATH_LENGTH;
use crate::workspace;

/// Variables that hold the addresses of mirrors.
const MIRRORS: [&str; 7] =
    ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "GOPROXY", "GONOSUMDB", "HTTPS_PROXY", "https_proxy"];
/// Hosts that are not one machine's secret: everybody's defaults.
const PUBLIC: [&str; 3] = ["localhost", "127.0.0.1", "off"];

/// What may not be named.
#[derive(Debug, Default)]
pub(super) struct Machine {
    words: Vec<String>,
}

impl Machine {
    /// The machine that this runs on.
    pub(super) fn this() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let root = workspace::root();
        let around = root.parent().map(PathBuf::from);
        let paths = home.into_iter().chain(around).chain([root]).map(|path| path.to_string_lossy().into_owned());
        let mirrors = MIRRORS.iter().filter_map(|name| std::env::var(name).ok());
        Self::of(paths, mirrors)
    }

    fn of(paths: impl Iterator<Item = String>, mirrors: impl Iterator<Item = String>) -> Self {
        let paths = paths.filter(|path| path.len() >= MACHINE_PATH_LENGTH).map(|path| format!("{path}/"));
        let hosts = mirrors.flat_map(|value| value.split([',', '|', ' ']).filter_map(host).collect::<Vec<_>>());
        Self { words: paths.chain(hosts).collect() }
    }
}

pub(super) fn check(files: &[TextFile], machine: &Machine) -> Vec<String> {
    let lines =
        files.iter().flat_map(|file| (1..).zip(file.text.lines()).map(move |(number, line)| (file, number, line)));
    lines
        .filter_map(|(file, number, line)| {
            let word = machine.words.iter().find(|word| line.contains(word.as_str()))?;
            Some(format!("{}:{number}: {word} is of this machine only", file.path))
        })
        .collect()
}

fn host(address: &str) -> Option<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    (name.contains('.') && !PUBLIC.contains(&name)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn paths_and_mirrors_of_the_machine_are_found() {
        let paths = ["/home/someone".to_owned(), "/x".to_owned()];
        let mirrors =
            ["https://user:secret@mirror.example.net:8443/go,direct".to_owned(), "http://127.0.0.1:1".to_owned()];
        let machine = Machine::of(paths.into_iter(), mirrors.into_iter());
        let text = "cd /home/someone/src\n/x/ is fine\nuse mirror.example.net:8443 here\n127.0.0.1 is fine\n";
        let complaints = check(&[file("a.md", text)], &machine);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("a.md:1:") && complaints[1].starts_with("a.md:3:"));
        assert!(!complaints.join("").contains("secret"));
    }
}
