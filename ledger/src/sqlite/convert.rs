//! Rows of SQLite to values of ours, and back.

use super::failed;
use crate::book::{Slot, State, Sum};
use crate::store::{Asked, Attempt, Posting, StoreError};
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::ledger::{Amount, Usage, UsageRow};
use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;
use serde::ser::Serialize;

pub(super) const fn state_number(state: State) -> i64 {
    match state {
        State::Open => 0,
        State::Settled => 1,
        State::Released => 2,
        State::Lapsed => 3,
    }
}

fn state(number: i64) -> rusqlite::Result<State> {
    match number {
        0 => Ok(State::Open),
        1 => Ok(State::Settled),
        2 => Ok(State::Released),
        3 => Ok(State::Lapsed),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    }
}

/// Of `id, reserved_at, lapses_at, budgets, want, least, lease, held, charged, state, postings`.
pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        id: row.get(0)?,
        reserved_at: Millis(row.get(1)?),
        lapses_at: Millis(row.get(2)?),
        asked: Asked {
            budgets: json(row, 3)?,
            want: amount(row, 4)?,
            at_least: amount(row, 6)?,
            lease: Millis(row.get(8)?),
        },
        held: amount(row, 9)?,
        charged: amount(row, 11)?,
        state: state(row.get(13)?)?,
        postings: postings(row, 14)?,
    })
}

/// Of `start, settled, held`.
pub(super) fn slot(row: &Row<'_>) -> rusqlite::Result<Slot> {
    Ok(Slot {
        start: Millis(row.get(0)?),
        settled: Sum { tokens: row.get(1)?, nano_usd: row.get(2)? },
        held: Sum { tokens: row.get(3)?, nano_usd: row.get(4)? },
    })
}

/// Of all columns of `usage`.
pub(super) fn usage(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    Ok(UsageRow {
        seq: unsigned(row, 0)?,
        attempt: row.get(1)?,
        revision: row.get(2)?,
        budgets: json(row, 3)?,
        reserved_at: Millis(row.get(4)?),
        settled_at: Millis(row.get(5)?),
        tokens: row.get(6)?,
        nano_usd: NanoUsd(row.get(7)?),
        usage: Usage {
            subject: row.get(8)?,
            namespace: row.get(9)?,
            model: row.get(10)?,
            variant: row.get(11)?,
            hardware_class: row.get(12)?,
            prompt: Tokens(unsigned(row, 13)?),
            cached: Tokens(unsigned(row, 14)?),
            completion: Tokens(unsigned(row, 15)?),
            outcome: row.get(16)?,
        },
    })
}

pub(super) fn postings(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<Posting>> {
    let pairs: Vec<(i64, i64)> = json(row, at)?;
    Ok(pairs.into_iter().map(|(series, slot)| Posting { series, slot: Millis(slot) }).collect())
}

pub(super) fn postings_text(postings: &[Posting]) -> Result<String, StoreError> {
    text(&postings.iter().map(|posting| (posting.series, posting.slot.0)).collect::<Vec<_>>())
}

pub(super) fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| failed("write a list as JSON", source))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|source| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(source)))
}

/// Tokens and money, in two columns from `at` on.
fn amount(row: &Row<'_>, at: usize) -> rusqlite::Result<Amount> {
    Ok(Amount { tokens: Tokens(unsigned(row, at)?), nano_usd: NanoUsd(row.get(at + 1)?) })
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(at)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, number))
}

/// A count that has a place in SQLite's 64 signed bits; beyond them, the largest.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
