//! What goes wrong with a source, in words that help.

use crate::exit::{Failure, Reason};
use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The URI, a hash or an option is wrong.
    Malformed,
    /// Nothing is there.
    NotFound,
    /// Credentials are missing, wrong or don't suffice.
    Denied,
    /// The server can't be reached, or fails.
    Unreachable,
    /// What came is not what was asked for.
    WrongContent,
    /// The file changed while it was fetched.
    Changed,
    /// No room on the disk or in the cache.
    NoSpace,
    /// The time is over.
    Late,
    /// This machine's own fault: a file that can't be written.
    Local,
}

/// A failure: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {fix}")]
pub struct SourceError {
    /// What sort of failure it is.
    pub kind: Kind,
    /// The URL without its query, or the path.
    pub place: String,
    /// The status of HTTP, where it came to one.
    pub status: Option<u16>,
    /// What went wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
    /// Whether the same may go well in a moment.
    pub transient: bool,
    /// The wait that the server asks for.
    pub retry_after: Option<Duration>,
}

impl SourceError {
    /// A failure that stays.
    pub fn new(kind: Kind, place: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let (place, what, fix) = (place.into(), what.into(), fix.into());
        Self { kind, place, status: None, what, fix, transient: false, retry_after: None }
    }

    /// A failure of the network.
    pub fn network(place: impl Into<String>, error: &dyn Error) -> Self {
        let cause = chain(error);
        let is = |words: &[&str]| words.iter().any(|word| cause.contains(word));
        let (transient, fix) = if is(&["certificate", "UnknownIssuer", "InvalidContentType"]) {
            (false, "trust its certificate with --ca-file (QM_CA_FILE), if the server is the one that you mean")
        } else if is(&["redirect"]) {
            (false, "name the URL that the redirects lead to")
        } else if is(&["dns error", "lookup address"]) {
            (true, "check the host's name, the cluster's DNS and the pod's egress rules")
        } else {
            (true, "check that the server is up, and the pod's proxy and egress rules")
        };
        Self { transient, ..Self::new(Kind::Unreachable, place, cause, fix) }
    }

    /// A failure of this machine's disk.
    pub fn local(attempt: &str, path: &Path, error: &io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Local };
        let fix = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "give the cache's volume more room",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "let the pod's user write there (fsGroup, or the volume's owner)"
            }
            _ => "check the volume",
        };
        Self::new(kind, path.display().to_string(), format!("{attempt}: {error}"), fix)
    }

    /// The same, after so many attempts.
    pub(super) fn after(mut self, attempts: u32) -> Self {
        self.what = format!("{} (after {attempts} attempts)", self.what);
        self
    }

    /// Name of the kind, for metrics and events.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self.kind {
            Kind::Malformed => "malformed",
            Kind::NotFound => "not_found",
            Kind::Denied => "denied",
            Kind::Unreachable => "unreachable",
            Kind::WrongContent => "wrong_content",
            Kind::Changed => "changed",
            Kind::NoSpace => "no_space",
            Kind::Late => "late",
            Kind::Local => "local",
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let reason = match error.kind {
            Kind::Malformed => Reason::BadConfig,
            Kind::NotFound => Reason::ModelNotFound,
            Kind::Denied | Kind::Unreachable | Kind::Changed | Kind::Late => Reason::SourceUnavailable,
            Kind::WrongContent => Reason::CorruptModel,
            Kind::NoSpace => Reason::DiskFull,
            Kind::Local => Reason::SystemFailed,
        };
        Self::new(reason, error.to_string())
    }
}

/// An error with its causes, without the URLs' queries.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        // Many errors repeat their cause.
        if words.last().is_none_or(|last| !last.contains(&cause_words)) {
            words.push(cause_words);
        }
        next = cause.source();
    }
    without_queries(&words.join(": "))
}

/// Cuts the query off every URL in a text.
pub(super) fn without_queries(text: &str) -> String {
    let shown = |word: &str| match word.split_once('?') {
        Some((before, _)) if before.contains("://") || before.starts_with('/') => format!("{before}?…"),
        _ => word.to_owned(),
    };
    text.split(' ').map(shown).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_cut_and_questions_stay() {
        let text = "GET https://h/p?X-Amz-Signature=abc failed: what? /v2/a?token=b (see above)";
        assert_eq!(without_queries(text), "GET https://h/p?… failed: what? /v2/a?… (see above)");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let error = |text: &str| SourceError::network("https://h/", &io::Error::other(text.to_owned()));
        assert!(error("connection reset").transient);
        assert!(error("dns error: failed to lookup address").fix.contains("DNS"));
        let tls = error("invalid peer certificate: UnknownIssuer");
        assert!(!tls.transient && tls.fix.contains("QM_CA_FILE"));
    }
}
