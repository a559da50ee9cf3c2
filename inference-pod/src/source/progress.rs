//! What the log says while a file comes.

use std::time::{Duration, Instant};

/// A download's progress.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    place: String,
    total: Option<u64>,
    first_bytes: u64,
    begun: Instant,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
}

impl Progress {
    /// Begins with `first_bytes` that are there already.
    pub(super) fn new(place: &str, first_bytes: u64, total: Option<u64>) -> Self {
        tracing::info!(source = place, bytes = first_bytes, total, "fetching");
        Self { place: place.to_owned(), total, first_bytes, begun: Instant::now() }
    }

    /// Logs how far it is.
    pub(super) fn log(&self, bytes: u64) {
        let rate = self.rate(bytes, self.begun.elapsed());
        tracing::info!(
            source = self.place,
            bytes,
            total = self.total,
            bytes_per_second = rate.bytes_per_second,
            eta_seconds = rate.eta_seconds,
            "fetching"
        );
    }

    fn rate(&self, bytes: u64, elapsed: Duration) -> Rate {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let bytes_per_second = bytes.saturating_sub(self.first_bytes).saturating_mul(1000) / millis;
        let rest = self.total.map(|total| total.saturating_sub(bytes));
        let eta_seconds = rest.and_then(|rest| rest.checked_div(bytes_per_second));
        Rate { bytes_per_second, eta_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_no_speed() {
        let progress = Progress::new("x", 1000, Some(5000));
        let rate = progress.rate(3000, Duration::from_secs(2));
        assert_eq!(rate, Rate { bytes_per_second: 1000, eta_seconds: Some(2) });
        assert_eq!(progress.rate(1000, Duration::ZERO), Rate { bytes_per_second: 0, eta_seconds: None });
    }
}
