//! The snapshot in force, and those who wait for the next.

use quartermaster_core::units::Millis;
use quartermaster_core::wire::gateway::GatewaySnapshot;
use std::sync::Arc;
use tokio::sync::watch;

/// What gateways get; none while this replica does not lead.
pub type Published = Option<Arc<GatewaySnapshot>>;

/// Gives out the snapshot in force; a change is a new version.
#[derive(Clone, Debug)]
pub struct Publisher(watch::Sender<Published>);

impl Default for Publisher {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Publisher {
    /// Those who wait.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.0.subscribe()
    }

    /// Puts a snapshot in force. Its version is the instant of the change in milliseconds (or one more than the last):
    /// it grows across restarts too, so a gateway never takes a new snapshot for one that it has.
    pub fn publish(&self, mut snapshot: GatewaySnapshot, now: Millis) -> bool {
        self.0.send_if_modified(|current| {
            let last = current.as_ref().map_or(0, |current| current.version);
            snapshot.version = last;
            if current.as_deref() == Some(&snapshot) {
                return false;
            }
            snapshot.version = u64::try_from(now.0).unwrap_or(0).max(last.saturating_add(1));
            *current = Some(Arc::new(snapshot));
            true
        })
    }

    /// This replica leads no more.
    pub fn withdraw(&self) {
        self.0.send_if_modified(|current| current.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_grows_with_each_change_only() {
        let publisher = Publisher::default();
        let of = |epoch| GatewaySnapshot { epoch, ..GatewaySnapshot::default() };
        let version = || publisher.subscribe().borrow().as_ref().unwrap().version;
        assert!(publisher.publish(of(1), Millis(1_000)));
        assert!(!publisher.publish(of(1), Millis(2_000)), "nothing changed");
        assert_eq!(version(), 1_000);
        assert!(publisher.publish(of(2), Millis(500)), "a clock that went back");
        assert_eq!(version(), 1_001);
        publisher.withdraw();
        assert!(publisher.subscribe().borrow().is_none());
    }
}
