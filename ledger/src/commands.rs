//! What callers may ask of the book, one transaction's step each: read rows, let [`crate::book`] decide, write rows.

mod admin;
mod holds;

pub use admin::balances;
pub use holds::lapse;

use crate::book::BookError;
use crate::store::{Store, StoreError};
use crate::window::WindowError;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Attempt, Budgets, Done, Reserve, Reserved, Settle, Spend};

/// A call that writes.
#[derive(Clone, Debug)]
pub enum Command {
    /// Reserve an upper bound.
    Reserve(Reserve),
    /// Settle what was used.
    Settle(Settle),
    /// End a hold without use.
    Release(Attempt),
    /// Prolong a hold.
    Extend(Attempt),
    /// Declare every budget there is.
    Budgets(Budgets),
    /// Record what replicas have cost.
    Spend(Spend),
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `reserve`.
    Reserved(Reserved),
    /// To all others.
    Done(Done),
}

/// Why a command changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The id was used for something else.
    #[error("{0}")]
    Conflict(String),
    /// A newer operator has written before.
    #[error("epoch {got} has passed: epoch {latest} has written before")]
    StaleEpoch {
        /// The caller's.
        got: u64,
        /// The highest seen.
        latest: u64,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<WindowError> for CommandError {
    fn from(error: WindowError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<BookError> for CommandError {
    fn from(error: BookError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Answer of a command.
pub type Result<T> = std::result::Result<T, CommandError>;

/// Does one command. Where it fails, the caller takes back what it wrote.
pub fn apply(store: &mut dyn Store, command: &Command, now: Millis) -> Result<Reply> {
    match command {
        Command::Reserve(reserve) => holds::reserve(store, reserve, now).map(Reply::Reserved),
        Command::Settle(settle) => holds::settle(store, settle, now).map(Reply::Done),
        Command::Release(attempt) => holds::release(store, attempt, now).map(Reply::Done),
        Command::Extend(attempt) => holds::extend(store, attempt, now).map(Reply::Done),
        Command::Budgets(budgets) => admin::set_budgets(store, budgets, now).map(Reply::Done),
        Command::Spend(spend) => admin::record_spend(store, spend).map(Reply::Done),
    }
}
