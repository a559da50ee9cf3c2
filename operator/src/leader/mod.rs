//! One leader at a time: a Lease, a pure rule about it, and a loop around the rule.
//!
//! The *epoch* is the lease's `leaseTransitions`: each new leader has a higher one. Ledger and gateways refuse what comes
//! with a lower epoch than they have seen, so a deposed leader that has not noticed yet can't spend money.

mod decide;
mod run;

pub use decide::{Action, Lease, Observed, decide};
pub use run::{Elector, Error, run};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether we lead, and until when we may act on it.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<Mutex<Option<Held>>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    until: Instant,
}

impl Claim {
    /// The epoch, while the claim holds.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let held = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.filter(|held| Instant::now() < held.until).map(|held| held.epoch)
    }

    /// Holds from `from` (taken before the call that renewed) for `life`.
    pub fn hold(&self, epoch: u64, from: Instant, life: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { epoch, until: from + life });
    }

    /// Holds no more.
    pub fn drop_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ends_by_itself() {
        let claim = Claim::default();
        assert_eq!(claim.epoch(), None);
        claim.hold(3, Instant::now(), Duration::from_secs(60));
        assert_eq!(claim.epoch(), Some(3));
        claim.hold(3, Instant::now(), Duration::ZERO);
        assert_eq!(claim.epoch(), None);
        claim.hold(4, Instant::now(), Duration::from_secs(60));
        claim.drop_now();
        assert_eq!(claim.epoch(), None);
    }
}
