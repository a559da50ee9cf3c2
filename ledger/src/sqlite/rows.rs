//! [`Store`] on SQLite.

use super::convert::{self, json, signed, text};
use super::{SqliteStore, failed};
use crate::book::{Change, Slot, Sum};
use crate::store::{Attempt, Before, Known, Posting, Result, Store};
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::{Budget, Metered, ModelSpend, Period, SpendEntry, UsageRow, Window};
use rusqlite::{OptionalExtension, Row, params};
use std::sync::Arc;

/// `meta` key of the fencing epoch.
const EPOCH: &str = "epoch";

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<()> {
        // A reader can't take the writer's lock, and needs none.
        let begin = if self.known.is_some() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(begin, "begin a transaction")
    }

    fn mark(&mut self) -> Result<()> {
        self.run("SAVEPOINT command", "mark a savepoint")
    }

    fn keep(&mut self) -> Result<()> {
        self.run("RELEASE command", "keep a command")
    }

    fn undo(&mut self) -> Result<()> {
        self.forget_budgets();
        self.run("ROLLBACK TO command", "take a command back")?;
        self.run("RELEASE command", "leave a savepoint")
    }

    fn commit(&mut self) -> Result<()> {
        self.run("COMMIT", "commit")
    }

    fn abandon(&mut self) {
        self.forget_budgets();
        // Where the failure has rolled back already there is nothing to take back, and SQLite says so.
        if let Err(error) = self.run("ROLLBACK", "roll back") {
            tracing::debug!(%error, "no transaction to roll back");
        }
    }

    fn attempt(&mut self, id: &str) -> Result<Option<Attempt>> {
        self.find_attempt(id)
    }

    fn insert_attempt(&mut self, attempt: &Attempt) -> Result<()> {
        self.write_attempt(attempt)
    }

    fn change_attempt(&mut self, attempt: &Attempt, change: &Change) -> Result<()> {
        self.write_change(attempt, change)
    }

    fn set_lapse(&mut self, id: &str, lapses_at: Millis) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE attempt SET lapses_at = ?2 WHERE id = ?1")
            .and_then(|mut update| update.execute(params![id, lapses_at.0]))
            .map(|_| ())
            .map_err(|source| failed("extend a lease", source))
    }

    fn lapsed(&mut self, now: Millis, most: u32) -> Result<Vec<Attempt>> {
        self.find_lapsed(now, most)
    }

    fn open_attempts(&mut self) -> Result<u64> {
        let count: rusqlite::Result<i64> = self
            .connection
            .prepare_cached("SELECT count(*) FROM attempt WHERE state = 0")
            .and_then(|mut count| count.query_row([], |row| row.get(0)));
        Ok(count.map_err(|source| failed("count open attempts", source))?.unsigned_abs())
    }

    fn budget(&mut self, id: &str) -> Result<Option<Arc<Known>>> {
        if let Some(known) = self.known.as_ref().and_then(|known| known.get(id)) {
            return Ok(Some(Arc::clone(known)));
        }
        let find = || {
            self.connection
                .prepare_cached("SELECT id, known FROM budget WHERE id = ?1 AND active = 1")?
                .query_row([id], known)
                .optional()
        };
        let found = find().map_err(|source| failed("read a budget", source))?.map(Arc::new);
        // Only what was found is kept: names that nobody declared must not fill the memory.
        if let (Some(cache), Some(found)) = (self.known.as_mut(), &found) {
            cache.insert(id.to_owned(), Arc::clone(found));
        }
        Ok(found)
    }

    fn budgets(&mut self) -> Result<Vec<Known>> {
        let find = || -> rusqlite::Result<Vec<Known>> {
            self.connection
                .prepare_cached("SELECT id, known FROM budget WHERE active = 1 ORDER BY id")?
                .query_map([], known)?
                .collect()
        };
        find().map_err(|source| failed("read the budgets", source))
    }

    fn set_budgets(&mut self, budgets: &[Known]) -> Result<()> {
        self.forget_budgets();
        let failing = |source| failed("write the budgets", source);
        let ids = text(&budgets.iter().map(|known| &known.budget.id).collect::<Vec<_>>())?;
        self.connection
            .prepare_cached(
                "UPDATE budget SET active = 0 WHERE active = 1 AND id NOT IN (SELECT value FROM json_each(?1))",
            )
            .and_then(|mut update| update.execute([ids]))
            .map_err(failing)?;
        for known in budgets {
            let body = text(&(&known.budget.windows, &known.series))?;
            // Written only where it says something new: an operator that repeats itself costs no fsync.
            self.connection
                .prepare_cached(
                    "INSERT INTO budget VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET known = ?2, active = 1 \
                     WHERE known <> ?2 OR active = 0",
                )
                .and_then(|mut insert| insert.execute(params![known.budget.id, body]))
                .map_err(failing)?;
        }
        Ok(())
    }

    fn was_declared(&mut self, id: &str) -> Result<Before> {
        let exists = self
            .connection
            .prepare_cached("SELECT 1 FROM budget WHERE id = ?1")
            .and_then(|mut find| find.exists([id]))
            .map_err(|source| failed("look for a budget", source))?;
        Ok(if exists { Before::Known } else { Before::New })
    }

    fn series(&mut self, budget: &str, period: &Period) -> Result<(i64, Before)> {
        let text = text(period)?;
        let find = || {
            self.connection
                .prepare_cached("SELECT id FROM series WHERE budget = ?1 AND period = ?2")?
                .query_row([budget, text.as_str()], |row| row.get(0))
                .optional()
        };
        if let Some(id) = find().map_err(|source| failed("read a series", source))? {
            return Ok((id, Before::Known));
        }
        let rolling = match period {
            Period::Rolling { length } => Some(length.0),
            Period::Calendar { .. } => None,
        };
        self.connection
            .prepare_cached("INSERT INTO series (budget, period, rolling_ms) VALUES (?1, ?2, ?3)")
            .and_then(|mut insert| insert.insert(params![budget, text, rolling]))
            .map(|id| (id, Before::New))
            .map_err(|source| failed("write a series", source))
    }

    fn retain_series(&mut self, budget: &str, keep: &[i64]) -> Result<()> {
        let keep = text(&keep)?;
        for sql in [
            "DELETE FROM slot WHERE series IN (SELECT id FROM series WHERE budget = ?1 \
             AND id NOT IN (SELECT value FROM json_each(?2)))",
            "DELETE FROM series WHERE budget = ?1 AND id NOT IN (SELECT value FROM json_each(?2))",
        ] {
            self.connection
                .prepare_cached(sql)
                .and_then(|mut delete| delete.execute([budget, keep.as_str()]))
                .map_err(|source| failed("forget a series", source))?;
        }
        Ok(())
    }

    fn slots(&mut self, series: i64, first: Millis) -> Result<Vec<Slot>> {
        let find = || -> rusqlite::Result<Vec<Slot>> {
            self.connection
                .prepare_cached(
                    "SELECT start, settled_tokens, settled_nano, held_tokens, held_nano FROM slot \
                     WHERE series = ?1 AND start >= ?2 ORDER BY start",
                )?
                .query_map(params![series, first.0], convert::slot)?
                .collect()
        };
        find().map_err(|source| failed("read a window's sums", source))
    }

    fn add(&mut self, posting: Posting, held: Sum, settled: Sum) -> Result<()> {
        self.add_to_slot(posting, held, settled)
    }

    fn backfill(
        &mut self,
        budget: &str,
        series: i64,
        from: Millis,
        slot: &dyn Fn(Millis) -> Option<Millis>,
    ) -> Result<()> {
        self.count_again(budget, series, from, slot)
    }

    fn prune(&mut self, now: Millis, after: Millis) -> Result<()> {
        // Slots with open holds stay: their end is still to be counted.
        self.connection
            .prepare_cached(
                "DELETE FROM slot WHERE held_tokens = 0 AND held_nano = 0 AND EXISTS (SELECT 1 FROM series \
                 WHERE series.id = slot.series AND slot.start < ?1 - 2 * series.rolling_ms)",
            )
            .and_then(|mut delete| delete.execute([now.since(after).0]))
            .map(|_| ())
            .map_err(|source| failed("delete old sums", source))
    }

    fn append_usage(&mut self, row: &UsageRow) -> Result<()> {
        self.write_usage(row)
    }

    fn last_usage(&mut self, attempt: &str) -> Result<Option<UsageRow>> {
        let find = || {
            self.connection
                .prepare_cached("SELECT * FROM usage WHERE attempt = ?1 ORDER BY revision DESC LIMIT 1")?
                .query_row([attempt], convert::usage)
                .optional()
        };
        find().map_err(|source| failed("read an attempt's usage", source))
    }

    fn usage(&mut self, since: Millis, after: u64, most: u32) -> Result<Vec<UsageRow>> {
        let find = || -> rusqlite::Result<Vec<UsageRow>> {
            self.connection
                .prepare_cached("SELECT * FROM usage WHERE seq > ?1 AND settled_at >= ?2 ORDER BY seq LIMIT ?3")?
                .query_map(params![signed(after), since.0, most], convert::usage)?
                .collect()
        };
        find().map_err(|source| failed("read usage", source))
    }

    fn epoch(&mut self) -> Result<u64> {
        let find = || {
            self.connection
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([EPOCH], |row| row.get::<_, i64>(0))
                .optional()
        };
        Ok(find().map_err(|source| failed("read the epoch", source))?.unwrap_or(0).unsigned_abs())
    }

    fn set_epoch(&mut self, epoch: u64) -> Result<()> {
        self.connection
            .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")
            .and_then(|mut insert| insert.execute(params![EPOCH, signed(epoch)]))
            .map(|_| ())
            .map_err(|source| failed("write the epoch", source))
    }

    fn record_spend(&mut self, entry: &SpendEntry) -> Result<()> {
        self.write_spend(entry)
    }

    fn spend(&mut self, since: Millis, namespace: Option<&str>) -> Result<NanoUsd> {
        let sum = || {
            self.connection
                .prepare_cached(
                    "SELECT coalesce(sum(nano_usd), 0) FROM spend WHERE hour_start > ?1 AND (?2 IS NULL OR namespace = ?2)",
                )?
                .query_row(params![reaching(since), namespace], |row| row.get(0))
        };
        sum().map(NanoUsd).map_err(|source| failed("add up spend", source))
    }

    fn spend_by_model(&mut self, since: Millis, namespace: Option<&str>, most: u32) -> Result<Vec<ModelSpend>> {
        let sums = || -> rusqlite::Result<Vec<ModelSpend>> {
            self.connection
                .prepare_cached(
                    "SELECT namespace, model, sum(nano_usd) FROM spend WHERE hour_start > ?1 \
                     AND (?2 IS NULL OR namespace = ?2) GROUP BY namespace, model ORDER BY 3 DESC, 1, 2 LIMIT ?3",
                )?
                .query_map(params![reaching(since), namespace, most], |row| {
                    Ok(ModelSpend { namespace: row.get(0)?, model: row.get(1)?, nano_usd: NanoUsd(row.get(2)?) })
                })?
                .collect()
        };
        sums().map_err(|source| failed("add up spend by model", source))
    }

    fn metered(&mut self, since: Millis, most: u32) -> Result<Vec<Metered>> {
        let find = || -> rusqlite::Result<Vec<Metered>> {
            // SQLite takes the other columns from the row of the maximum.
            self.connection
                .prepare_cached(
                    "SELECT pod_uid, max(hour_start), metered_until, nano_usd FROM spend WHERE hour_start >= ?1 \
                     GROUP BY pod_uid ORDER BY 2 DESC, 1 LIMIT ?2",
                )?
                .query_map(params![since.0, most], |row| {
                    Ok(Metered {
                        pod_uid: row.get(0)?,
                        hour_start: Millis(row.get(1)?),
                        until: Millis(row.get(2)?),
                        nano_usd: NanoUsd(row.get(3)?),
                    })
                })?
                .collect()
        };
        find().map_err(|source| failed("read how far pods are metered", source))
    }
}

impl SqliteStore {
    fn write_usage(&self, row: &UsageRow) -> Result<()> {
        let (budgets, usage) = (text(&row.budgets)?, &row.usage);
        let write = || {
            self.connection
                .prepare_cached(
                    "INSERT INTO usage VALUES (NULL,?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
                )?
                .execute(params![
                    row.attempt,
                    row.revision,
                    budgets,
                    row.reserved_at.0,
                    row.settled_at.0,
                    row.tokens,
                    row.nano_usd.0,
                    usage.subject,
                    usage.namespace,
                    usage.model,
                    usage.variant,
                    usage.hardware_class,
                    signed(usage.prompt.0),
                    signed(usage.cached.0),
                    signed(usage.completion.0),
                    usage.outcome,
                ])
        };
        write().map(|_| ()).map_err(|source| failed("append a usage row", source))
    }

    fn write_spend(&self, entry: &SpendEntry) -> Result<()> {
        let write = || {
            self.connection
                .prepare_cached(
                    "INSERT INTO spend VALUES (?1,?2,?3,?4,?5,?6,?7,?8) ON CONFLICT DO UPDATE SET namespace = ?3, \
                     model = ?4, variant = ?5, hardware_class = ?6, nano_usd = ?7, metered_until = ?8 \
                     WHERE nano_usd < ?7 OR (nano_usd = ?7 AND metered_until < ?8)",
                )?
                .execute(params![
                    entry.pod_uid,
                    entry.hour_start.0,
                    entry.namespace,
                    entry.model,
                    entry.variant,
                    entry.hardware_class,
                    entry.nano_usd.0,
                    entry.until.0
                ])
        };
        write().map(|_| ()).map_err(|source| failed("record spend", source))
    }
}

/// A period may begin within a UTC hour (time zones of half hours): the whole hour counts, never too little.
fn reaching(since: Millis) -> i64 {
    since.0.saturating_sub(Millis::HOUR.0)
}

/// Of `id, known`.
fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let (windows, series): (Vec<Window>, Vec<i64>) = json(row, 1)?;
    Ok(Known { budget: Budget { id: row.get(0)?, windows }, series })
}
