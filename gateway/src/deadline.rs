//! How long one request may take, from its headers to the last byte of its answer.

use crate::respond::Refusal;
use std::time::{Duration, Instant};

/// Outcome and error code of a request that took too long.
pub const DEADLINE_EXCEEDED: &str = "deadline_exceeded";

/// The time of one request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    begun: Instant,
    patience: Duration,
}

impl Deadline {
    /// A request that comes now and may take so long.
    pub fn begin(patience: Duration) -> Self {
        Self { begun: Instant::now(), patience }
    }

    /// Time since the request came.
    pub fn elapsed(self) -> Duration {
        self.begun.elapsed()
    }

    /// What is left of its time.
    pub fn left(self) -> Duration {
        self.patience.saturating_sub(self.elapsed())
    }

    /// Whether its time is over.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// What the client is told then.
    pub fn refusal(self) -> Refusal {
        Refusal::late(self.patience)
    }

    /// The work's result, or the refusal when it is not there in time. Work that is cut off is dropped: its meter settles.
    pub async fn within<T>(self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        tokio::time::timeout(self.left(), work).await.unwrap_or_else(|_| Err(self.refusal()))
    }
}
