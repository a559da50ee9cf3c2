//! Prints the gateways' snapshot: after each tick, and in between when endpoints come and go. It decides nothing.

use super::snapshot::{Inputs, build};
use super::{Published, Publisher};
use crate::keys::Keys;
use crate::leader::Claim;
use crate::state::Memory;
use crate::state::informers::Shared;
use crate::{clock, limits};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the last tick left to print with.
#[derive(Clone, Debug)]
struct Plates {
    epoch: u64,
    memory: Memory,
    keys: Arc<Keys>,
}

/// The press.
#[derive(Clone, Debug)]
pub struct Press {
    shared: Shared,
    claim: Claim,
    publisher: Publisher,
    plates: Arc<Mutex<Option<Plates>>>,
}

impl Press {
    /// A press without plates prints nothing.
    #[must_use]
    pub fn new(shared: Shared, claim: Claim) -> Self {
        Self { shared, claim, publisher: Publisher::default(), plates: Arc::default() }
    }

    /// Those who wait for prints.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.publisher.subscribe()
    }

    /// A tick leaves new plates and prints.
    pub fn load(&self, epoch: u64, memory: &Memory, keys: &Arc<Keys>) {
        let plates = Plates { epoch, memory: memory.clone(), keys: Arc::clone(keys) };
        *self.plates.lock().unwrap_or_else(PoisonError::into_inner) = Some(plates);
        self.print();
    }

    /// This replica leads no more.
    pub fn withdraw(&self) {
        *self.plates.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.publisher.withdraw();
    }

    /// Prints the cluster as it is now. The lock is kept, so that an older print never overtakes a newer.
    fn print(&self) {
        let plates = self.plates.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Plates { epoch, memory, keys }) = plates.as_ref() else { return };
        if self.claim.epoch() != Some(*epoch) {
            return;
        }
        let index = self.shared.read();
        let snapshot = build(&Inputs { epoch: *epoch, index: &index, memory, keys });
        if self.publisher.publish(snapshot, clock::now()) {
            tracing::debug!(epoch, "gateway snapshot changed");
        }
    }

    /// Prints whenever endpoints changed, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.endpoints.notified() => {}
            }
            tokio::time::sleep(limits::PUBLISH_DEBOUNCE).await;
            self.print();
        }
    }
}
