//! How the process ends when it can't serve: a reason that the operator turns into a condition, and an exit code.

use parking_lot::Mutex;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Where Kubernetes reads a container's last words.
const KUBERNETES_LOG: &str = "/dev/termination-log";
/// Kubernetes keeps this much.
const MESSAGE_BYTES_MAX: usize = 3500;

/// Why the pod can't serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// `serve.json` is missing or wrong.
    BadConfig,
    /// The model file is not there.
    ModelNotFound,
    /// The model file is broken.
    CorruptModel,
    /// The model does not fit the memory limit.
    ModelTooLarge,
    /// The model's source can't be reached, or does not let us in.
    SourceUnavailable,
    /// The model's file does not fit the disk or the cache.
    DiskFull,
    /// The engine failed while it served.
    EngineFailed,
    /// The address can't be listened on, or the system refused something else.
    SystemFailed,
}

impl Reason {
    /// The exit code, after `sysexits.h` where that has one.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::BadConfig => 78,
            Self::ModelNotFound => 66,
            Self::CorruptModel => 65,
            Self::ModelTooLarge => 77,
            Self::SourceUnavailable => 69,
            Self::DiskFull => 73,
            Self::EngineFailed => 70,
            Self::SystemFailed => 71,
        }
    }
}

/// A reason and its sentence: one line of JSON in the termination log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason:?}: {message}")]
pub struct Failure {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(end);
        }
        Self { reason, message }
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.reason.code())
    }
}

/// The file for last words.
#[derive(Clone, Debug)]
pub struct TerminationLog {
    path: Option<PathBuf>,
    /// Once the process has said how it ends, an engine that still loads has no say.
    ended: Arc<Mutex<bool>>,
}

impl TerminationLog {
    /// The given file, or Kubernetes' own where there is one.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        let path = path.or_else(|| Some(PathBuf::from(KUBERNETES_LOG)).filter(|path| path.exists()));
        Self { path, ended: Arc::default() }
    }

    /// Writes what is true unless the process says otherwise before it ends: where a library aborts it, it can't.
    pub fn write_ahead(&self, failure: &Failure) {
        self.put(Some(failure), false);
    }

    /// Takes back what was written ahead.
    pub fn clear(&self) {
        self.put(None, false);
    }

    /// The last word: nothing is written after it.
    pub fn end(&self, failure: Option<&Failure>) {
        self.put(failure, true);
    }

    /// What can't be written is logged: it must not hide the failure itself.
    fn put(&self, failure: Option<&Failure>, last: bool) {
        let mut ended = self.ended.lock();
        let Some(path) = self.path.as_deref().filter(|_| !*ended) else { return };
        *ended = last;
        if let Err(error) = write(path, failure) {
            tracing::error!(path = %path.display(), %error, "writing the termination log");
        }
    }
}

fn write(path: &Path, failure: Option<&Failure>) -> std::io::Result<()> {
    let line = failure.map(serde_json::to_string).transpose()?;
    fs::write(path, line.map(|line| format!("{line}\n")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Failure, Reason, TerminationLog};

    #[test]
    fn nothing_is_written_after_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination");
        let read = || std::fs::read_to_string(&path).unwrap();
        let log = TerminationLog::new(Some(path.clone()));
        let loading = log.clone();
        let ahead = Failure::new(Reason::CorruptModel, "ahead");
        loading.write_ahead(&ahead);
        assert_eq!(read(), "{\"reason\":\"CorruptModel\",\"message\":\"ahead\"}\n");
        log.end(None);
        loading.write_ahead(&ahead);
        assert_eq!(read(), "", "told to stop, and the engine goes on loading");
        let log = TerminationLog::new(Some(path.clone()));
        log.end(Some(&Failure::new(Reason::EngineFailed, "last")));
        log.clear();
        assert_eq!(read(), "{\"reason\":\"EngineFailed\",\"message\":\"last\"}\n");
    }
}
