//! One leader at a time: a Lease, a pure rule about it, and a loop around the rule.
//!
//! The *epoch* is the lease's `leaseTransitions`: each new leader has a higher one. Ledger and gateways refuse what comes
//! with a lower epoch than they have seen, so a deposed leader that has not noticed yet can't spend money. A new
//! installation begins with a new lease and may find an old ledger: then who truly holds the lease raises the epoch.

mod decide;
mod run;

pub use decide::{Action, Lease, Observed, decide, raised};
pub use run::{Elector, Error, run};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether we lead, and until when we may act on it.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    held: Option<Held>,
    /// The last epoch that the ledger said has passed.
    passed: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    until: Instant,
}

impl Claim {
    /// The epoch, while the claim holds.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let held = self.state().held;
        held.filter(|held| Instant::now() < held.until).map(|held| held.epoch)
    }

    /// Holds from `from` (taken before the call that renewed) for `life`.
    pub fn hold(&self, epoch: u64, from: Instant, life: Duration) {
        self.state().held = Some(Held { epoch, until: from + life });
    }

    /// The ledger says that `epoch` has passed. Either we were deposed, or the ledger is older than the lease.
    pub fn passed(&self, epoch: u64) {
        self.state().passed = Some(epoch);
    }

    /// The epoch to renew the lease with: the same, unless it is said to have passed though the lease is ours.
    #[must_use]
    pub fn renewal(&self, epoch: u64) -> u64 {
        if self.state().passed == Some(epoch) { raised(epoch) } else { epoch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds no more.
    pub fn drop_now(&self) {
        self.state().held = None;
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

    #[test]
    fn an_epoch_that_has_passed_is_raised_and_no_other() {
        let claim = Claim::default();
        assert_eq!(claim.renewal(3), 3);
        claim.passed(3);
        assert_eq!((claim.renewal(3), claim.renewal(4), claim.renewal(6)), (6, 4, 6));
    }
}
