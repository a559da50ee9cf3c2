//! Statements on attempts and their slots.

use super::convert::{postings_text, signed, state_number, text};
use super::{SqliteStore, convert, failed};
use crate::book::{Change, Sum};
use crate::store::{Attempt, Posting, Result};
use quartermaster_core::units::Millis;
use rusqlite::{Connection, OptionalExtension, params};

const COLUMNS: &str = "id, reserved_at, lapses_at, budgets, want_tokens, want_nano, least_tokens, least_nano, lease, \
                       held_tokens, held_nano, charged_tokens, charged_nano, state, postings";

impl SqliteStore {
    pub(super) fn find_attempt(&self, id: &str) -> Result<Option<Attempt>> {
        let sql = format!("SELECT {COLUMNS} FROM attempt WHERE id = ?1");
        let find = || self.connection.prepare_cached(&sql)?.query_row([id], convert::attempt).optional();
        find().map_err(|source| failed("read an attempt", source))
    }

    pub(super) fn write_attempt(&self, attempt: &Attempt) -> Result<()> {
        let (asked, held, charged) = (&attempt.asked, attempt.held, attempt.charged);
        let (budgets, postings) = (text(&asked.budgets)?, postings_text(&attempt.postings)?);
        let write = || {
            self.connection
                .prepare_cached("INSERT INTO attempt VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)")?
                .execute(params![
                    attempt.id,
                    attempt.reserved_at.0,
                    attempt.lapses_at.0,
                    budgets,
                    signed(asked.want.tokens.0),
                    asked.want.nano_usd.0,
                    signed(asked.at_least.tokens.0),
                    asked.at_least.nano_usd.0,
                    asked.lease.0,
                    signed(held.tokens.0),
                    held.nano_usd.0,
                    signed(charged.tokens.0),
                    charged.nano_usd.0,
                    state_number(attempt.state),
                    postings,
                ])
        };
        write().map(|_| ()).map_err(|source| failed("write an attempt", source))
    }

    /// The slots are only updated: one that is gone left every window long ago.
    pub(super) fn write_change(&self, attempt: &Attempt, change: &Change) -> Result<()> {
        let write = || -> rusqlite::Result<()> {
            self.connection
                .prepare_cached("UPDATE attempt SET state = ?2, charged_tokens = ?3, charged_nano = ?4 WHERE id = ?1")?
                .execute(params![
                    attempt.id,
                    state_number(change.state),
                    signed(change.charged.tokens.0),
                    change.charged.nano_usd.0
                ])?;
            let mut update = self.connection.prepare_cached(
                "UPDATE slot SET settled_tokens = settled_tokens + ?3, settled_nano = settled_nano + ?4, \
                 held_tokens = held_tokens + ?5, held_nano = held_nano + ?6 WHERE series = ?1 AND start = ?2",
            )?;
            for posting in &attempt.postings {
                let (settled, held) = (change.settled, change.held);
                update.execute(params![
                    posting.series,
                    posting.slot.0,
                    settled.tokens,
                    settled.nano_usd,
                    held.tokens,
                    held.nano_usd
                ])?;
            }
            Ok(())
        };
        write().map_err(|source| failed("end an attempt", source))
    }

    pub(super) fn find_lapsed(&self, now: Millis, most: u32) -> Result<Vec<Attempt>> {
        let find = || -> rusqlite::Result<Vec<Attempt>> {
            let sql = format!(
                "SELECT {COLUMNS} FROM attempt WHERE state = 0 AND lapses_at <= ?1 ORDER BY lapses_at, id LIMIT ?2"
            );
            self.connection.prepare_cached(&sql)?.query_map(params![now.0, most], convert::attempt)?.collect()
        };
        find().map_err(|source| failed("find lapsed attempts", source))
    }

    pub(super) fn add_to_slot(&self, posting: Posting, held: Sum, settled: Sum) -> Result<()> {
        add(&self.connection, posting, held, settled).map_err(|source| failed("add to a window's sum", source))
    }

    /// Counts what a budget has used and holds in a series that came later, and notes it with the attempts.
    pub(super) fn count_again(
        &self,
        budget: &str,
        series: i64,
        from: Millis,
        slot: &dyn Fn(Millis) -> Option<Millis>,
    ) -> Result<()> {
        let find = || -> rusqlite::Result<Vec<Attempt>> {
            let sql = format!(
                "SELECT {COLUMNS} FROM attempt WHERE reserved_at >= ?1 \
                 AND EXISTS (SELECT 1 FROM json_each(budgets) WHERE value = ?2)"
            );
            self.connection.prepare_cached(&sql)?.query_map(params![from.0, budget], convert::attempt)?.collect()
        };
        for mut attempt in find().map_err(|source| failed("find a budget's attempts", source))? {
            let Some(slot) = slot(attempt.reserved_at) else { continue };
            let posting = Posting { series, slot };
            let held = if attempt.state == crate::book::State::Open { attempt.held.into() } else { Sum::ZERO };
            self.add_to_slot(posting, held, attempt.charged.into())?;
            attempt.postings.push(posting);
            let postings = postings_text(&attempt.postings)?;
            self.connection
                .prepare_cached("UPDATE attempt SET postings = ?2 WHERE id = ?1")
                .and_then(|mut update| update.execute(params![attempt.id, postings]))
                .map_err(|source| failed("count an attempt in a new window", source))?;
        }
        Ok(())
    }
}

fn add(connection: &Connection, posting: Posting, held: Sum, settled: Sum) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO slot VALUES (?1,?2,?3,?4,?5,?6) ON CONFLICT DO UPDATE SET \
             settled_tokens = settled_tokens + ?3, settled_nano = settled_nano + ?4, \
             held_tokens = held_tokens + ?5, held_nano = held_nano + ?6",
        )?
        .execute(params![posting.series, posting.slot.0, settled.tokens, settled.nano_usd, held.tokens, held.nano_usd])
        .map(|_| ())
}
