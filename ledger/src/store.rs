//! What the book needs of a database: one narrow interface, so that another database can take SQLite's place.
//!
//! A store keeps rows and decides nothing. Everything between [`Store::begin`] and [`Store::commit`] is one transaction;
//! [`Store::undo`] takes back what came after the last [`Store::mark`], so that one command's failure is no other's.

use crate::book::{Change, Slot, State, Sum};
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::{Amount, Budget, Metered, ModelSpend, Period, SpendEntry, UsageRow};
use std::sync::Arc;

/// What went wrong in the database.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's database failed to {doing}: {source}")]
pub struct StoreError {
    /// What was attempted.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Answer of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// One attempt, from its reservation on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: String,
    /// When it was reserved.
    pub reserved_at: Millis,
    /// When it lapses, while it is open.
    pub lapses_at: Millis,
    /// As it was asked for; a call that differs is another one.
    pub asked: Asked,
    /// What is held while it is open.
    pub held: Amount,
    /// What it is charged with.
    pub charged: Amount,
    /// Where it stands.
    pub state: State,
    /// The slots that it counts in.
    pub postings: Vec<Posting>,
}

/// The body of a reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Budgets, leaf to root.
    pub budgets: Vec<String>,
    /// The most.
    pub want: Amount,
    /// The least.
    pub at_least: Amount,
    /// Life of the hold.
    pub lease: Millis,
}

/// A slot of a series that an attempt counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The series.
    pub series: i64,
    /// Start of the slot.
    pub slot: Millis,
}

/// A declared budget. Sums are kept per budget and *period*, a series: a changed limit or a renamed window keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The budget.
    pub budget: Budget,
    /// The series of each of its windows, in their order.
    pub series: Vec<i64>,
}

/// What had been stored about something before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: it is new.
    New,
    /// It was there.
    Known,
}

/// A database, inside one transaction or between two.
#[expect(clippy::missing_errors_doc, reason = "each fails where the database does, and only there")]
pub trait Store {
    /// Starts a transaction.
    fn begin(&mut self) -> Result<()>;
    /// Marks a point to go back to.
    fn mark(&mut self) -> Result<()>;
    /// Keeps what came after the mark.
    fn keep(&mut self) -> Result<()>;
    /// Takes back what came after the mark.
    fn undo(&mut self) -> Result<()>;
    /// Makes the transaction durable: once this returns, no crash takes it back.
    fn commit(&mut self) -> Result<()>;
    /// Takes the whole transaction back.
    fn abandon(&mut self);

    /// The attempt of that id.
    fn attempt(&mut self, id: &str) -> Result<Option<Attempt>>;
    /// Writes a new attempt.
    fn insert_attempt(&mut self, attempt: &Attempt) -> Result<()>;
    /// Ends an attempt, in its row and in every slot that it counts in.
    fn change_attempt(&mut self, attempt: &Attempt, change: &Change) -> Result<()>;
    /// Moves the end of a lease.
    fn set_lapse(&mut self, id: &str, lapses_at: Millis) -> Result<()>;
    /// Open attempts whose lease has passed, oldest first.
    fn lapsed(&mut self, now: Millis, most: u32) -> Result<Vec<Attempt>>;
    /// Open attempts, all in all.
    fn open_attempts(&mut self) -> Result<u64>;

    /// A budget that grants; none where it was never declared or was taken back.
    fn budget(&mut self, id: &str) -> Result<Option<Arc<Known>>>;
    /// Every budget that grants, by id.
    fn budgets(&mut self) -> Result<Vec<Known>>;
    /// Declares exactly these budgets. The others stop granting.
    fn set_budgets(&mut self, budgets: &[Known]) -> Result<()>;
    /// Whether a budget was ever declared, also when it was taken back since.
    fn was_declared(&mut self, id: &str) -> Result<Before>;
    /// The series of a budget's period, and whether it was there.
    fn series(&mut self, budget: &str, period: &Period) -> Result<(i64, Before)>;
    /// Forgets the series of a budget that are not in `keep`, with their slots: nothing is counted in them any more, so
    /// they would be wrong if their period came back.
    fn retain_series(&mut self, budget: &str, keep: &[i64]) -> Result<()>;
    /// Slots of a series from `first` on, oldest first.
    fn slots(&mut self, series: i64, first: Millis) -> Result<Vec<Slot>>;
    /// Adds to a slot, which is made where it is missing.
    fn add(&mut self, posting: Posting, held: Sum, settled: Sum) -> Result<()>;
    /// Counts every attempt that names `budget` and was reserved at or after `from` in a new series, by
    /// `slot(reserved_at)`.
    fn backfill(
        &mut self,
        budget: &str,
        series: i64,
        from: Millis,
        slot: &dyn Fn(Millis) -> Option<Millis>,
    ) -> Result<()>;
    /// Deletes the sums of rolling series that are older than any window by `after`.
    fn prune(&mut self, now: Millis, after: Millis) -> Result<()>;

    /// Appends a usage row; its `seq` is given by the store.
    fn append_usage(&mut self, row: &UsageRow) -> Result<()>;
    /// The last row of an attempt.
    fn last_usage(&mut self, attempt: &str) -> Result<Option<UsageRow>>;
    /// Rows after `after` that were settled at or after `since`, in order.
    fn usage(&mut self, since: Millis, after: u64, most: u32) -> Result<Vec<UsageRow>>;

    /// The highest epoch that has written.
    fn epoch(&mut self) -> Result<u64>;
    /// Remembers it.
    fn set_epoch(&mut self, epoch: u64) -> Result<()>;
    /// Keeps the entry where it is larger, or as large and further, than what is known of its pod and hour.
    fn record_spend(&mut self, entry: &SpendEntry) -> Result<()>;
    /// Sum over UTC hours that end after `since`, of one namespace or of all. An hour that began before `since` counts
    /// in full: in a time zone of half hours a ceiling rather sees too much than too little.
    fn spend(&mut self, since: Millis, namespace: Option<&str>) -> Result<NanoUsd>;
    /// The same by model, the costliest first.
    fn spend_by_model(&mut self, since: Millis, namespace: Option<&str>, most: u32) -> Result<Vec<ModelSpend>>;
    /// Of each pod its last hour that begins at `since` or later, the newest hours first.
    fn metered(&mut self, since: Millis, most: u32) -> Result<Vec<Metered>>;
}
