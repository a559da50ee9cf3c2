//! The one thread that writes.
//!
//! ```text
//! callers ─▶ bounded queue ─▶ BEGIN ─ savepoint per command … ─ COMMIT (fsync) ─▶ answers
//! ```
//!
//! While one transaction reaches the disk the next fills up, so the price of an fsync is shared by everybody who waited
//! for it. Nobody is answered before the commit; where it fails, everybody is told that nothing was done.

use crate::clock::Clock;
use crate::commands::{self, Command, CommandError, Reply};
use crate::limits::{BATCH, LAPSED_PER_BATCH, PRUNE_AFTER, PRUNE_EVERY, QUEUE, TICK};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use quartermaster_core::units::Millis;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Too many wait already.
    #[error("the ledger has {QUEUE} calls waiting: ask again in a moment")]
    Busy,
    /// The transaction could not be made durable.
    #[error("the ledger could not write: {0}")]
    NotWritten(String),
    /// The writer has ended.
    #[error("the ledger is shutting down")]
    Closed,
    /// The command itself was refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

type Answer = Result<Reply, WriteError>;

struct Job {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// The callers' end of the queue.
#[derive(Clone)]
pub struct Writer {
    queue: SyncSender<Job>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Starts the thread. It ends, with its queue done, when the last `Writer` is dropped.
    pub fn start<S: Store + Send + 'static>(
        store: S,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, JoinHandle<S>)> {
        let (queue, jobs) = sync_channel(QUEUE);
        let book = Book { store, clock, metrics: Arc::clone(&metrics), pruned: Millis::ZERO };
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || book.keep(&jobs))?;
        Ok((Self { queue, metrics }, thread))
    }

    /// Does a command; returns after it is on disk.
    pub async fn submit(&self, command: Command) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.metrics.queue_depth.inc();
        if let Err(refused) = self.queue.try_send(Job { command, answer }) {
            self.metrics.queue_depth.dec();
            return Err(match refused {
                TrySendError::Full(_) => WriteError::Busy,
                TrySendError::Disconnected(_) => WriteError::Closed,
            });
        }
        answered.await.unwrap_or(Err(WriteError::Closed))
    }
}

struct Book<S> {
    store: S,
    clock: Clock,
    metrics: Arc<Metrics>,
    pruned: Millis,
}

impl<S: Store> Book<S> {
    fn keep(mut self, jobs: &Receiver<Job>) -> S {
        loop {
            let mut batch = Vec::new();
            match jobs.recv_timeout(TICK) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.store,
            }
            batch.extend(jobs.try_iter().take(BATCH - 1));
            self.metrics.queue_depth.dec_by(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            // A caller that has gone away would never settle what it is granted now.
            batch.retain(|job| !job.answer.is_closed());
            self.turn(batch);
        }
    }

    /// One transaction: what has lapsed, then everybody's command, then the disk.
    fn turn(&mut self, batch: Vec<Job>) {
        let (now, started) = (self.clock.now(), Instant::now());
        let commands: Vec<&Command> = batch.iter().map(|job| &job.command).collect();
        match self.write(&commands, now) {
            Ok((answers, lapsed)) => {
                self.metrics.committed(batch.len(), started.elapsed());
                self.metrics.expired.inc_by(u64::try_from(lapsed).unwrap_or(u64::MAX));
                for (job, answer) in batch.into_iter().zip(answers) {
                    self.metrics.answered(&job.command, &answer);
                    // Gone in the meantime; what was written stays, and the same id finds it.
                    let _ = job.answer.send(answer.map_err(WriteError::Command));
                }
            }
            Err(error) => {
                self.store.abandon();
                self.metrics.failed_commits.inc();
                tracing::error!(%error, commands = batch.len(), "nothing was written");
                for job in batch {
                    let _ = job.answer.send(Err(WriteError::NotWritten(error.to_string())));
                }
            }
        }
    }

    fn write(&mut self, commands: &[&Command], now: Millis) -> Result<Answers, StoreError> {
        self.store.begin()?;
        let lapsed = self.lapse(now)?;
        if now.since(self.pruned) >= PRUNE_EVERY {
            self.store.prune(now, PRUNE_AFTER)?;
            self.pruned = now;
        }
        let answers = commands.iter().map(|command| self.step(command, now)).collect::<Result<_, _>>()?;
        self.store.commit()?;
        Ok((answers, lapsed))
    }

    /// One command in its own savepoint: its failure takes back what it wrote and nothing else.
    fn step(&mut self, command: &Command, now: Millis) -> Result<Result<Reply, CommandError>, StoreError> {
        self.store.mark()?;
        let answer = commands::apply(&mut self.store, command, now);
        match &answer {
            Ok(_) => self.store.keep()?,
            Err(_) => self.store.undo()?,
        }
        Ok(answer)
    }

    /// A hold that can't be lapsed must not stop the callers: it stays held, which grants nothing too much.
    fn lapse(&mut self, now: Millis) -> Result<usize, StoreError> {
        self.store.mark()?;
        match commands::lapse(&mut self.store, now, LAPSED_PER_BATCH) {
            Ok(lapsed) => self.store.keep().map(|()| lapsed),
            Err(error) => {
                tracing::error!(%error, "lapsed holds were not settled");
                self.store.undo().map(|()| 0)
            }
        }
    }
}

type Answers = (Vec<Result<Reply, CommandError>>, usize);
