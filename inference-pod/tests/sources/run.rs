//! Runs the program.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_quartermaster-inference-pod");

/// A folder with a cache, and how the program is called.
pub struct Node {
    pub folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub answer: Value,
    pub log: String,
}

impl Node {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new(), flags: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub fn spawn(&self, source: &str, flags: &[&str]) -> Child {
        let mut command = Command::new(BINARY);
        // Nothing of the machine's own settings: no proxy, no credentials.
        command.env_clear().env("HOME", self.folder.path()).envs(self.environment.iter().cloned());
        command.args(["fetch", "--source", source, "--cache"]).arg(self.path("cache"));
        command.args(&self.flags).args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn fetch(&self, source: &str, flags: &[&str]) -> Ended {
        Ended::of(self.spawn(source, flags))
    }

    /// Names of the files in a part of the cache.
    pub fn cached(&self, part: &str) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.path("cache").join(part)) else { return Vec::new() };
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Length of the only partial file, plans left out.
    pub fn partial_bytes(&self) -> u64 {
        let names = self.cached("partial");
        let name = names.iter().find(|name| !name.contains('.'));
        name.and_then(|name| self.path("cache/partial").join(name).metadata().ok()).map_or(0, |meta| meta.len())
    }
}

impl Ended {
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Self { code: output.status.code(), answer, log: String::from_utf8(output.stderr).unwrap() }
    }

    /// It went well: the file has this content, and so many bytes came over the network.
    #[track_caller]
    pub fn brought(&self, content: &[u8], fetched: usize) -> PathBuf {
        assert_eq!(self.code, Some(0), "{}", self.log);
        let path = PathBuf::from(self.answer["path"].as_str().unwrap());
        assert!(std::fs::read(&path).unwrap() == content, "the file's content is another: {}", self.log);
        assert_eq!(self.answer["fetchedBytes"], fetched, "{}", self.log);
        assert_eq!(self.answer["bytes"], content.len());
        path
    }

    /// It failed for this reason; returns the sentence.
    #[track_caller]
    pub fn refused(&self, reason: &str) -> String {
        assert_ne!(self.code, Some(0), "{}", self.answer);
        let last: Value = serde_json::from_str(self.log.lines().last().unwrap()).unwrap();
        assert_eq!(last["fields"]["reason"], reason, "{}", self.log);
        last["fields"]["message"].as_str().unwrap().to_owned()
    }
}

/// Waits, at most half a minute.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn text(path: &Path) -> String {
    path.display().to_string()
}
