//! The one place where the wall clock is read.

use quartermaster_core::units::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch that never run backwards: a window that has turned does not come back when the
/// machine's clock is set back.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Fn() -> Millis + Send + Sync>,
    latest: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        })
    }

    /// A clock that asks `source`.
    pub fn from_fn(source: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), latest: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// Now, and never before an earlier answer.
    #[must_use]
    pub fn now(&self) -> Millis {
        let now = (self.source)().0;
        Millis(self.latest.fetch_max(now, Ordering::AcqRel).max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let hand = Arc::new(AtomicI64::new(50));
        let clock = Clock::from_fn({
            let hand = Arc::clone(&hand);
            move || Millis(hand.load(Ordering::Relaxed))
        });
        assert_eq!(clock.now(), Millis(50));
        hand.store(20, Ordering::Relaxed);
        assert_eq!(clock.clone().now(), Millis(50));
        hand.store(70, Ordering::Relaxed);
        assert_eq!(clock.now(), Millis(70));
    }
}
