//! How often something is tried again, and when.

use super::{Result, SourceError};
use crate::limits::{FETCH_ATTEMPTS_MAX, FETCH_BACKOFF_MAX, FETCH_BACKOFF_MIN, FETCH_CUTS_MAX, RETRY_AFTER_MAX};
use std::time::Duration;
use uuid::Uuid;

/// Attempts that failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// In a row, none of which got on.
    failures: u32,
    /// All of them.
    cuts: u32,
}

impl Patience {
    /// The last attempt got on.
    pub(super) fn got_on(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure itself, when there is no next attempt.
    pub(super) async fn after(&mut self, error: SourceError) -> Result<()> {
        let pause = self.pause(error)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&mut self, error: SourceError) -> Result<Duration> {
        self.failures += 1;
        self.cuts += 1;
        if !error.transient || self.failures >= FETCH_ATTEMPTS_MAX || self.cuts >= FETCH_CUTS_MAX {
            return Err(if self.cuts > 1 { error.after(self.cuts) } else { error });
        }
        let doubled = FETCH_BACKOFF_MIN.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        // Between half and the whole, so that the pods of a node do not come back all at once.
        let part = u32::from(Uuid::new_v4().as_bytes().first().copied().unwrap_or_default());
        let backoff = doubled.min(FETCH_BACKOFF_MAX);
        let jittered = backoff / 2 + backoff / 2 * part / 256;
        let pause = jittered.max(error.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
        tracing::warn!(%error, attempt = self.cuts, pause_ms = pause.as_millis(), "trying again");
        Ok(pause)
    }
}

/// Tries until it goes well, or for good wrong.
pub(super) async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut patience = Patience::default();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => patience.after(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    fn failure(transient: bool) -> SourceError {
        SourceError { transient, ..SourceError::new(Kind::Unreachable, "https://h/x", "HTTP 503", "wait") }
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut patience = Patience::default();
        let pauses: Vec<_> = (1..FETCH_ATTEMPTS_MAX).map(|_| patience.pause(failure(true)).unwrap()).collect();
        for (pause, attempt) in pauses.iter().zip(0..) {
            let whole = FETCH_BACKOFF_MIN * 2_u32.pow(attempt);
            assert!(*pause >= whole.min(FETCH_BACKOFF_MAX) / 2 && *pause <= whole, "{attempt}: {pause:?}");
        }
        let last = patience.pause(failure(true)).unwrap_err();
        assert!(last.to_string().contains(&format!("after {FETCH_ATTEMPTS_MAX} attempts")), "{last}");
    }

    #[test]
    fn what_gets_on_may_fail_more_often_but_not_for_ever() {
        let mut patience = Patience::default();
        let failures = (0..10_000).take_while(|_| {
            patience.got_on();
            patience.pause(failure(true)).is_ok()
        });
        assert_eq!(failures.count() + 1, usize::try_from(FETCH_CUTS_MAX).unwrap());
    }

    #[test]
    fn the_server_may_ask_for_more_and_for_not_too_much() {
        let asked = |seconds| SourceError { retry_after: Some(Duration::from_secs(seconds)), ..failure(true) };
        assert_eq!(Patience::default().pause(asked(7)).unwrap(), Duration::from_secs(7));
        assert_eq!(Patience::default().pause(asked(86_400)).unwrap(), RETRY_AFTER_MAX);
        assert!(Patience::default().pause(failure(false)).is_err());
    }
}
