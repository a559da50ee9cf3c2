//! How the process ends when it can't serve: a reason that the operator turns into a condition, and an exit code.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
pub struct TerminationLog(Option<PathBuf>);

impl TerminationLog {
    /// The given file, or Kubernetes' own where there is one.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path.or_else(|| Some(PathBuf::from(KUBERNETES_LOG)).filter(|path| path.exists())))
    }

    /// Writes a failure. What can't be written is logged: it must not hide the failure itself.
    pub fn write(&self, failure: &Failure) {
        match serde_json::to_string(failure) {
            Ok(line) => self.put(&format!("{line}\n")),
            Err(error) => tracing::error!(%error, "encoding the termination message"),
        }
    }

    /// Takes back what was written ahead.
    pub fn clear(&self) {
        self.put("");
    }

    fn put(&self, text: &str) {
        let Some(path) = self.0.as_deref() else { return };
        if let Err(error) = write(path, text) {
            tracing::error!(path = %path.display(), %error, "writing the termination log");
        }
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, text)
}
