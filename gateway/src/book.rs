//! Open holds and what is still to be told to the ledger. Nothing that was held is ever forgotten.

use crate::journal::{Closing, Journal, Note};
use crate::ledger::{Ledger, LedgerError};
use crate::limits;
use crate::metrics::Metrics;
use futures::StreamExt;
use futures::stream;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// The book of one gateway.
#[derive(Debug)]
pub struct Book {
    journal: Journal,
    ledger: Ledger,
    unsettled: Mutex<VecDeque<Closing>>,
    /// Closings taken out of the queue and not yet answered.
    sending: Mutex<usize>,
    arrived: Notify,
    /// Open holds, by attempt, with the start of their lease.
    open: Mutex<HashMap<String, Instant>>,
}

impl Book {
    /// Opens the journal; what a killed process left open is the first to be settled.
    pub fn start(folder: &Path, ledger: Ledger, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let (journal, left) = Journal::start(folder, move || metrics.journal_error())?;
        if !left.is_empty() {
            tracing::warn!(holds = left.len(), "settling what the last run of this gateway left open");
        }
        let (unsettled, sending) = (Mutex::new(left.into()), Mutex::default());
        let (arrived, open) = (Notify::new(), Mutex::default());
        Ok(Arc::new(Self { journal, ledger, unsettled, sending, arrived, open }))
    }

    /// Something is held from now on; `otherwise` is how it ends when this process is killed. The answer comes when that
    /// is sure. If the machine dies before it is on disk, the lease at the ledger does the same.
    pub fn open(&self, otherwise: Closing) -> oneshot::Receiver<bool> {
        lock(&self.open).insert(otherwise.attempt().to_owned(), Instant::now());
        self.journal.note_answered(Note::Open(otherwise), false)
    }

    /// Ends a hold and waits until that is on disk. All but the waiting happens even if the caller goes away.
    pub fn close(&self, closing: Closing) -> impl Future<Output = ()> + Send + use<> {
        let written = self.journal.note_answered(Note::Close(closing.clone()), true);
        self.enqueue(closing);
        async move {
            // Not on disk: the ledger's lease still settles the hold, in full. The journal has logged and counted it.
            let _on_disk = written.await;
        }
    }

    /// Ends a hold whose client is gone: nobody waits.
    pub fn close_detached(&self, closing: Closing) {
        self.journal.note(Note::Close(closing.clone()));
        self.enqueue(closing);
    }

    fn enqueue(&self, closing: Closing) {
        lock(&self.open).remove(closing.attempt());
        lock(&self.unsettled).push_back(closing);
        self.arrived.notify_one();
    }

    /// Settlements that the ledger has not taken.
    pub fn unsettled(&self) -> usize {
        let sending = *lock(&self.sending);
        lock(&self.unsettled).len().saturating_add(sending)
    }

    /// Tells the ledger, for ever.
    pub async fn settle_for_ever(self: Arc<Self>) {
        let mut backoff = limits::LEDGER_BACKOFF;
        loop {
            if self.settle_some().await {
                backoff = limits::LEDGER_BACKOFF;
            } else {
                tokio::time::sleep(backoff).await;
                backoff = backoff.saturating_mul(2).min(limits::SETTLE_BACKOFF_MAX);
            }
        }
    }

    /// Sends one batch; `false` when the ledger is away.
    async fn settle_some(&self) -> bool {
        let batch = self.take();
        if batch.is_empty() {
            self.arrived.notified().await;
            return true;
        }
        let sent = stream::iter(batch).map(|closing| async { (self.send(&closing).await, closing) });
        let results: Vec<_> = sent.buffer_unordered(limits::SETTLE_CONCURRENCY).collect().await;
        let mut well = true;
        for (result, closing) in results {
            match result {
                Ok(()) => {
                    self.journal.note(Note::Done(closing.attempt().to_owned()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the ledger did not take a settlement; trying again");
                    lock(&self.unsettled).push_back(closing);
                    well = false;
                }
            }
            let mut sending = lock(&self.sending);
            *sending = sending.saturating_sub(1);
        }
        well
    }

    fn take(&self) -> Vec<Closing> {
        let mut unsettled = lock(&self.unsettled);
        let count = unsettled.len().min(limits::SETTLE_CONCURRENCY.saturating_mul(4));
        *lock(&self.sending) += count;
        unsettled.drain(..count).collect()
    }

    async fn send(&self, closing: &Closing) -> Result<(), LedgerError> {
        let done = match closing {
            Closing::Settle(settle) => self.ledger.settle(settle).await,
            Closing::Release(attempt) => self.ledger.release(attempt).await,
        };
        match done {
            Ok(_) => Ok(()),
            // Sending it again can't help; the hold's lease settles it in full.
            Err(error @ LedgerError::Refused { .. }) => {
                tracing::error!(%error, ?closing, "the ledger refused a settlement for good");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the holds of long answers alive, for ever.
    pub async fn extend_for_ever(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::EXTEND_EVERY / 4);
        loop {
            tick.tick().await;
            let extended = stream::iter(self.due()).map(|attempt| self.extend(attempt));
            extended.buffer_unordered(limits::SETTLE_CONCURRENCY).collect::<()>().await;
        }
    }

    async fn extend(&self, attempt: String) {
        match self.ledger.extend(&attempt).await {
            Ok(_) => {
                if let Some(since) = lock(&self.open).get_mut(&attempt) {
                    *since = Instant::now();
                }
            }
            Err(error) => tracing::warn!(%error, "extending a hold failed"),
        }
    }

    fn due(&self) -> Vec<String> {
        let old = |since: &Instant| since.elapsed() >= limits::EXTEND_EVERY;
        lock(&self.open).iter().filter(|(_, since)| old(since)).map(|(attempt, _)| attempt.clone()).collect()
    }

    /// Waits until the ledger has everything, at most so long; the journal keeps the rest for the next start.
    pub async fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.unsettled() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the journal's thread. Blocks for a write.
    pub fn finish(&self) {
        self.journal.finish();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
