//! The rule: what to do about a lease as it stands. Pure; clocks of other machines are never compared with ours.

use quartermaster_core::units::Millis;

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it; empty or absent when released.
    pub holder: Option<String>,
    /// Leaders so far: the fencing epoch.
    pub transitions: u64,
    /// Its life without renewal, as the holder wrote it.
    pub duration: Millis,
    /// Changes with each renewal; compared for equality only.
    pub version: String,
}

/// A lease, and since when (on our clock) it has stood like this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The lease.
    pub lease: Lease,
    /// When we first saw this version.
    pub since: Millis,
}

impl Observed {
    /// What is known after one more look: the time moves only when the version does.
    #[must_use]
    pub fn update(old: Option<Self>, lease: Lease, now: Millis) -> Self {
        match old {
            Some(old) if old.lease == lease => old,
            _ => Self { lease, since: now },
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no lease: make one with this epoch.
    Create {
        /// The epoch.
        epoch: u64,
    },
    /// It is free or has run out: take it with this epoch.
    Acquire {
        /// The epoch.
        epoch: u64,
    },
    /// It is ours: renew it.
    Renew {
        /// The epoch.
        epoch: u64,
    },
    /// Another holds it for at least so long from now.
    Wait {
        /// How long.
        at_least: Millis,
    },
}

/// The rule.
#[must_use]
pub fn decide(observed: Option<&Observed>, me: &str, now: Millis) -> Action {
    let Some(Observed { lease, since }) = observed else {
        return Action::Create { epoch: 1 };
    };
    let next = lease.transitions.saturating_add(1);
    match lease.holder.as_deref() {
        None | Some("") => Action::Acquire { epoch: next },
        Some(holder) if holder == me => Action::Renew { epoch: lease.transitions },
        Some(_) => {
            let left = since.saturating_add(lease.duration).since(now);
            if left.0 <= 0 { Action::Acquire { epoch: next } } else { Action::Wait { at_least: left } }
        }
    }
}

/// A later epoch than one that has passed. How late it must be is not known: doubled, it gets there in a few renewals.
#[must_use]
pub fn raised(epoch: u64) -> u64 {
    epoch.saturating_mul(2).clamp(1, u64::from(i32::MAX.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, version: &str) -> Lease {
        Lease { holder: Some(holder.into()), transitions: 7, duration: Millis(15_000), version: version.into() }
    }

    #[test]
    fn no_lease_is_made() {
        assert_eq!(decide(None, "a", Millis(0)), Action::Create { epoch: 1 });
    }

    #[test]
    fn ours_is_renewed_in_the_same_epoch() {
        let observed = Observed { lease: held_by("a", "1"), since: Millis(0) };
        assert_eq!(decide(Some(&observed), "a", Millis(1_000_000)), Action::Renew { epoch: 7 });
    }

    #[test]
    fn another_is_waited_for_until_it_has_stood_still_for_its_life() {
        let observed = Observed { lease: held_by("b", "1"), since: Millis(1_000) };
        assert_eq!(decide(Some(&observed), "a", Millis(15_999)), Action::Wait { at_least: Millis(1) });
        assert_eq!(decide(Some(&observed), "a", Millis(16_000)), Action::Acquire { epoch: 8 });
    }

    #[test]
    fn a_released_lease_is_taken_at_once_in_a_new_epoch() {
        for holder in [None, Some(String::new())] {
            let lease = Lease { holder, ..held_by("b", "2") };
            assert_eq!(
                decide(Some(&Observed { lease, since: Millis(0) }), "a", Millis(0)),
                Action::Acquire { epoch: 8 }
            );
        }
    }

    #[test]
    fn a_raised_epoch_is_later_and_fits_the_lease() {
        assert_eq!([0, 1, 7, 1 << 40].map(raised), [1, 2, 14, 2_147_483_647]);
    }

    #[test]
    fn a_renewal_starts_the_time_anew() {
        let first = Observed::update(None, held_by("b", "1"), Millis(0));
        let same = Observed::update(Some(first.clone()), held_by("b", "1"), Millis(9_000));
        assert_eq!(same, first);
        let renewed = Observed::update(Some(same), held_by("b", "2"), Millis(9_000));
        assert_eq!(decide(Some(&renewed), "a", Millis(16_000)), Action::Wait { at_least: Millis(8_000) });
    }
}
