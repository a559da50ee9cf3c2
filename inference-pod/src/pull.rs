//! How long an init container took to bring a model file: it writes that beside the file, the server exports it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Added to the file's name. `model-copy`, which shares no code with us, writes the same.
const SUFFIX: &str = "pull-seconds";

fn beside(file: &Path) -> PathBuf {
    file.with_added_extension(SUFFIX)
}

/// Notes it. Where that fails, nothing is lost but the figure.
pub(crate) fn took(file: &Path, time: Duration) {
    if let Err(error) = fs::write(beside(file), format!("{:.3}\n", time.as_secs_f64())) {
        tracing::warn!(file = %file.display(), %error, "how long the pull took is not noted");
    }
}

/// What was noted; none where nobody did, as for files that were there before the pod.
pub(crate) fn time_of(file: &Path) -> Option<Duration> {
    let seconds: f64 = fs::read_to_string(beside(file)).ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("q4.gguf");
        assert_eq!(time_of(&file), None);
        took(&file, Duration::from_millis(12_345));
        took(Path::new("/proc/nowhere/q4.gguf"), Duration::ZERO);
        assert_eq!(time_of(&file), Some(Duration::from_millis(12_345)));
        for nonsense in ["", "soon", "-1", "NaN", "inf"] {
            fs::write(beside(&file), nonsense).unwrap();
            assert_eq!(time_of(&file), None, "{nonsense}");
        }
    }
}
