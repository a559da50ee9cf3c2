//! Connections that only read. They see what was committed and never wait for the writer.

use crate::commands::{self, CommandError};
use crate::limits::{METERED_PODS, READERS, SPEND_MODELS, USAGE_PAGE};
use crate::store::{Store, StoreError};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Balance, Metered, SpendTotal, UsagePage};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A window or the database.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The reading task was lost.
    #[error("the ledger's reader is gone")]
    Gone,
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Command(error.into())
    }
}

type Boxed = Box<dyn Store + Send>;

/// A few connections, lent one query at a time.
#[derive(Clone)]
pub struct Reader {
    idle: Arc<Mutex<Vec<Boxed>>>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// Opens the connections.
    pub fn open<S: Store + Send + 'static>(
        mut open: impl FnMut() -> Result<S, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut idle: Vec<Boxed> = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            idle.push(Box::new(open()?));
        }
        Ok(Self { idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Every budget's windows at `now`.
    pub async fn balances(&self, now: Millis) -> Result<Vec<Balance>, ReadError> {
        self.read(move |store| commands::balances(store, now).map_err(ReadError::from)).await
    }

    /// A page of usage rows.
    pub async fn usage(&self, since: Millis, after: u64) -> Result<UsagePage, ReadError> {
        let rows = self.read(move |store| Ok(store.usage(since, after, USAGE_PAGE)?)).await?;
        let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= USAGE_PAGE);
        let next = rows.last().filter(|_| full).map(|row| row.seq);
        Ok(UsagePage { rows, next })
    }

    /// What replicas have cost since `since`.
    pub async fn spend(&self, since: Millis, namespace: Option<String>) -> Result<SpendTotal, ReadError> {
        self.read(move |store| {
            let namespace = namespace.as_deref();
            let models = store.spend_by_model(since, namespace, SPEND_MODELS)?;
            Ok(SpendTotal { nano_usd: store.spend(since, namespace)?, models })
        })
        .await
    }

    /// How far pods are metered, by their last hour from `since` on.
    pub async fn metered(&self, since: Millis) -> Result<Vec<Metered>, ReadError> {
        self.read(move |store| Ok(store.metered(since, METERED_PODS)?)).await
    }

    /// Open holds.
    pub async fn open_holds(&self) -> Result<u64, ReadError> {
        self.read(|store| Ok(store.open_attempts()?)).await
    }

    /// Runs one query, in one snapshot, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut dyn Store) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ReadError::Gone)?;
        let idle = Arc::clone(&self.idle);
        let task = tokio::task::spawn_blocking(move || {
            let mut store = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(ReadError::Gone)?;
            let answer = store.begin().map_err(ReadError::from).and_then(|()| query(store.as_mut()));
            store.abandon();
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(store);
            drop(permit);
            answer
        });
        task.await.map_err(|_| ReadError::Gone)?
    }
}
