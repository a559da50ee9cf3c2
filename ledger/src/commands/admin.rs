//! Budgets, spend and balances.

use super::{CommandError, Result};
use crate::book::{self, Line};
use crate::limits::{BUDGETS, NAME_CHARS, SPEND_ENTRIES, WINDOWS};
use crate::store::{Before, Known, Store};
use crate::window;
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::{Balance, Budget, Budgets, Done, Period, Spend, SpendEntry};
use std::collections::HashSet;

pub(super) fn set_budgets(store: &mut dyn Store, budgets: &Budgets, now: Millis) -> Result<Done> {
    fence(store, budgets.epoch)?;
    check_budgets(&budgets.budgets)?;
    let mut known = Vec::with_capacity(budgets.budgets.len());
    for budget in &budgets.budgets {
        if let Some(same) = store.budget(&budget.id)?.filter(|known| known.budget == *budget) {
            known.push(Known::clone(&same));
            continue;
        }
        let before = store.was_declared(&budget.id)?;
        let mut series = Vec::with_capacity(budget.windows.len());
        for window in &budget.windows {
            let (id, kept) = store.series(&budget.id, &window.period)?;
            if kept == Before::New && before == Before::Known {
                backfill(store, &budget.id, id, &window.period, now)?;
            }
            series.push(id);
        }
        if before == Before::Known {
            store.retain_series(&budget.id, &series)?;
        }
        known.push(Known { budget: budget.clone(), series });
    }
    store.set_budgets(&known)?;
    Ok(Done::Applied)
}

/// A window of a new period counts what was used since it began, not only what comes from now on.
fn backfill(store: &mut dyn Store, budget: &str, series: i64, period: &Period, now: Millis) -> Result<()> {
    let from = window::span(period, now)?.first_slot;
    Ok(store.backfill(budget, series, from, &|reserved_at| window::slot(period, reserved_at).ok())?)
}

pub(super) fn record_spend(store: &mut dyn Store, spend: &Spend) -> Result<Done> {
    fence(store, spend.epoch)?;
    if spend.entries.len() > SPEND_ENTRIES {
        return Err(CommandError::Invalid(format!(
            "`entries` has more than {SPEND_ENTRIES} entries: send several calls"
        )));
    }
    for (at, entry) in spend.entries.iter().enumerate() {
        check_spend(at, entry)?;
        store.record_spend(entry)?;
    }
    Ok(Done::Applied)
}

/// One row per budget and window.
pub fn balances(store: &mut dyn Store, now: Millis) -> Result<Vec<Balance>> {
    let mut balances = Vec::new();
    for known in store.budgets()? {
        for (window, series) in known.budget.windows.iter().zip(&known.series) {
            let span = window::span(&window.period, now)?;
            let slots = store.slots(*series, span.first_slot)?;
            let line = Line { budget: known.budget.id.clone(), window: window.clone(), slots };
            let (settled, held) = book::totals(&line)?;
            balances.push(Balance {
                budget: line.budget,
                window: line.window.name,
                start: span.start,
                resets_at: span.resets_at,
                limit_tokens: window.tokens,
                limit_nano_usd: window.nano_usd,
                settled: settled.amount(),
                held: held.amount(),
            });
        }
    }
    Ok(balances)
}

/// Refuses an operator that has been replaced.
fn fence(store: &mut dyn Store, epoch: u64) -> Result<()> {
    let latest = store.epoch()?;
    if epoch < latest {
        return Err(CommandError::StaleEpoch { got: epoch, latest });
    }
    if epoch > latest {
        store.set_epoch(epoch)?;
    }
    Ok(())
}

fn check_budgets(budgets: &[Budget]) -> Result<()> {
    if budgets.len() > BUDGETS {
        return Err(CommandError::Invalid(format!("`budgets` has more than {BUDGETS} budgets")));
    }
    let mut ids = HashSet::new();
    for budget in budgets {
        if budget.id.is_empty() || budget.id.chars().count() > NAME_CHARS || !ids.insert(budget.id.as_str()) {
            return Err(CommandError::Invalid(format!(
                "budget `{}`: `id` is empty, longer than {NAME_CHARS} characters, or named twice",
                budget.id
            )));
        }
        check_windows(budget)?;
    }
    Ok(())
}

fn check_windows(budget: &Budget) -> Result<()> {
    let wrong = |why: String| CommandError::Invalid(format!("budget `{}`: {why}", budget.id));
    if budget.windows.len() > WINDOWS {
        return Err(wrong(format!("more than {WINDOWS} windows")));
    }
    let mut names = HashSet::new();
    for window in &budget.windows {
        if window.name.is_empty() || window.name.chars().count() > NAME_CHARS || !names.insert(window.name.as_str()) {
            return Err(wrong(format!("window `{}`: `name` is empty, too long, or named twice", window.name)));
        }
        window::check(&window.period).map_err(|why| wrong(format!("window `{}`: {why}", window.name)))?;
        if window.nano_usd.is_some_and(|limit| limit < NanoUsd::ZERO) {
            return Err(wrong(format!("window `{}`: `nanoUsd` is below zero", window.name)));
        }
    }
    Ok(())
}

fn check_spend(at: usize, entry: &SpendEntry) -> Result<()> {
    if entry.pod_uid.is_empty() || entry.nano_usd < NanoUsd::ZERO || entry.hour_start.0.rem_euclid(Millis::HOUR.0) != 0
    {
        return Err(CommandError::Invalid(format!(
            "`entries[{at}]`: `podUid` is empty, `nanoUsd` is below zero, or `hourStart` is not the start of a UTC hour"
        )));
    }
    if entry.until <= entry.hour_start || entry.until > entry.hour_start.saturating_add(Millis::HOUR) {
        return Err(CommandError::Invalid(format!("`entries[{at}]`: `until` is not in the hour of `hourStart`")));
    }
    Ok(())
}
