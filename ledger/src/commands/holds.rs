//! Reserve, settle, release, extend, lapse.

use super::{CommandError, Result};
use crate::book::{self, Ending, Line, State, Verdict};
use crate::limits::{ATTEMPT_CHARS, ATTEMPT_NANO_USD, ATTEMPT_TOKENS, BUDGETS_PER_ATTEMPT, LEASE, NAME_CHARS};
use crate::store::{Asked, Attempt, Known, Posting, Store};
use crate::window;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{self as wire, Amount, Done, Reserve, Reserved, Settle, Usage, UsageRow};
use std::sync::Arc;

/// Outcome of a usage row whose lease passed before anybody said what was used.
const LEASE_EXPIRED: &str = "lease_expired";
/// Outcome of the row that gives a lapsed hold back, because nothing had been used.
const RELEASED: &str = "released";

pub(super) fn reserve(store: &mut dyn Store, reserve: &Reserve, now: Millis) -> Result<Reserved> {
    check_reserve(reserve)?;
    let asked = Asked {
        budgets: reserve.budgets.clone(),
        want: reserve.want,
        at_least: reserve.at_least,
        lease: reserve.lease,
    };
    if let Some(before) = store.attempt(&reserve.attempt)? {
        return repeated(&before, &asked);
    }
    let mut known = Vec::with_capacity(asked.budgets.len());
    for id in &asked.budgets {
        match store.budget(id)? {
            Some(budget) => known.push(budget),
            None => return Ok(Reserved::Exhausted(book::unknown_budget(id))),
        }
    }
    match book::grant(&lines(store, &known, now)?, asked.want, asked.at_least, now)? {
        Verdict::Refuse(exhausted) => Ok(Reserved::Exhausted(exhausted)),
        Verdict::Hold(held) => {
            let postings = postings(&known, now)?;
            for posting in &postings {
                store.add(*posting, held.into(), book::Sum::ZERO)?;
            }
            let (lapses_at, charged) = (now.saturating_add(asked.lease), Amount::default());
            let id = reserve.attempt.clone();
            let state = State::Open;
            store.insert_attempt(&Attempt {
                id,
                reserved_at: now,
                lapses_at,
                asked,
                held,
                charged,
                state,
                postings,
            })?;
            Ok(Reserved::Granted { held })
        }
    }
}

/// The answer to a reservation whose id is known.
fn repeated(before: &Attempt, asked: &Asked) -> Result<Reserved> {
    if before.state != State::Open {
        return Err(ended(&before.id, "reserve", before.state));
    }
    if before.asked != *asked {
        return Err(another(&before.id, "reserved", "budgets, amounts or lease"));
    }
    Ok(Reserved::Granted { held: before.held })
}

/// Every window of every budget as it stands.
fn lines(store: &mut dyn Store, known: &[Arc<Known>], now: Millis) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for known in known {
        for (window, series) in known.budget.windows.iter().zip(&known.series) {
            let slots = store.slots(*series, window::span(&window.period, now)?.first_slot)?;
            lines.push(Line { budget: known.budget.id.clone(), window: window.clone(), slots });
        }
    }
    Ok(lines)
}

/// The slots that something reserved now counts in. Two windows of one period share a series, which counts once.
fn postings(known: &[Arc<Known>], now: Millis) -> Result<Vec<Posting>> {
    let mut postings: Vec<Posting> = Vec::new();
    for known in known {
        for (window, series) in known.budget.windows.iter().zip(&known.series) {
            if postings.iter().all(|posting| posting.series != *series) {
                postings.push(Posting { series: *series, slot: window::slot(&window.period, now)? });
            }
        }
    }
    Ok(postings)
}

pub(super) fn settle(store: &mut dyn Store, settle: &Settle, now: Millis) -> Result<Done> {
    check_id(&settle.attempt)?;
    check_amount("actual", settle.actual)?;
    let Some(attempt) = store.attempt(&settle.attempt)? else {
        return settle_unknown(store, settle, now);
    };
    if attempt.state == State::Settled {
        let same = store.last_usage(&attempt.id)?.is_some_and(|row| row.usage == settle.usage);
        if !same || attempt.charged != settle.actual {
            return Err(another(&attempt.id, "settled", "figures"));
        }
        return Ok(Done::AlreadyDone);
    }
    end(store, &attempt, Ending::Settle(settle.actual), settle.usage.clone(), now)
}

/// Usage of which nothing was reserved: recorded, in no budget.
fn settle_unknown(store: &mut dyn Store, settle: &Settle, now: Millis) -> Result<Done> {
    let attempt = unheld(&settle.attempt, State::Settled, settle.actual, now);
    store.insert_attempt(&attempt)?;
    store.append_usage(&row(&attempt, 0, settle.actual.into(), settle.usage.clone(), now))?;
    Ok(Done::Unknown)
}

pub(super) fn release(store: &mut dyn Store, named: &wire::Attempt, now: Millis) -> Result<Done> {
    check_id(&named.attempt)?;
    match store.attempt(&named.attempt)? {
        Some(attempt) => {
            let usage = Usage { outcome: RELEASED.to_owned(), ..Usage::default() };
            end(store, &attempt, Ending::Release, usage, now)
        }
        None => {
            store.insert_attempt(&unheld(&named.attempt, State::Released, Amount::default(), now))?;
            Ok(Done::Unknown)
        }
    }
}

pub(super) fn extend(store: &mut dyn Store, named: &wire::Attempt, now: Millis) -> Result<Done> {
    check_id(&named.attempt)?;
    named.lease.map_or(Ok(()), check_lease)?;
    match store.attempt(&named.attempt)? {
        Some(attempt) if attempt.state == State::Open => {
            store.set_lapse(&attempt.id, now.saturating_add(named.lease.unwrap_or(attempt.asked.lease)))?;
            Ok(Done::Applied)
        }
        _ => Ok(Done::Unknown),
    }
}

/// Settles in full what nobody prolonged, at most `most` of them; says how many.
pub fn lapse(store: &mut dyn Store, now: Millis, most: u32) -> Result<usize> {
    let lapsed = store.lapsed(now, most)?;
    for attempt in &lapsed {
        let usage = Usage { outcome: LEASE_EXPIRED.to_owned(), ..Usage::default() };
        end(store, attempt, Ending::Lapse, usage, now)?;
    }
    Ok(lapsed.len())
}

/// Ends an attempt: its row, the sums of its slots, and a usage row where the charge changes.
fn end(store: &mut dyn Store, attempt: &Attempt, ending: Ending, usage: Usage, now: Millis) -> Result<Done> {
    let call = match ending {
        Ending::Settle(_) => "settle",
        Ending::Release => "release",
        Ending::Lapse => "lapse",
    };
    let change = book::end(attempt.state, attempt.held, attempt.charged, ending)
        .map_err(|state| ended(&attempt.id, call, state))?;
    let Some(change) = change else { return Ok(Done::AlreadyDone) };
    store.change_attempt(attempt, &change)?;
    // A release of an open hold is no usage; everything else is on record, also when it used nothing.
    if change.state != State::Released || attempt.state == State::Lapsed {
        let revision = u32::from(attempt.state == State::Lapsed);
        store.append_usage(&row(attempt, revision, change.settled, usage, now))?;
    }
    Ok(Done::Applied)
}

/// An attempt that holds nothing, only so that its id is used up.
fn unheld(id: &str, state: State, charged: Amount, now: Millis) -> Attempt {
    Attempt {
        id: id.to_owned(),
        reserved_at: now,
        lapses_at: now,
        asked: Asked::default(),
        held: Amount::default(),
        charged,
        state,
        postings: Vec::new(),
    }
}

fn row(attempt: &Attempt, revision: u32, change: book::Sum, usage: Usage, now: Millis) -> UsageRow {
    UsageRow {
        seq: 0,
        attempt: attempt.id.clone(),
        revision,
        budgets: attempt.asked.budgets.clone(),
        reserved_at: attempt.reserved_at,
        settled_at: now,
        tokens: change.tokens,
        nano_usd: quartermaster_core::units::NanoUsd(change.nano_usd),
        usage,
    }
}

fn ended(id: &str, call: &str, state: State) -> CommandError {
    let how = match state {
        State::Open => "is open",
        State::Settled => "is settled",
        State::Released => "is released",
        State::Lapsed => "has lapsed and is charged in full",
    };
    CommandError::Conflict(format!("can't {call} attempt `{id}`: it {how}, and an attempt ends once"))
}

fn another(id: &str, done: &str, what: &str) -> CommandError {
    CommandError::Conflict(format!(
        "attempt `{id}` was {done} before with other {what}: use a new id for a new attempt"
    ))
}

fn check_reserve(reserve: &Reserve) -> Result<()> {
    check_id(&reserve.attempt)?;
    check_lease(reserve.lease)?;
    check_amount("want", reserve.want)?;
    check_amount("atLeast", reserve.at_least)?;
    let (want, at_least) = (reserve.want, reserve.at_least);
    if at_least.tokens > want.tokens || at_least.nano_usd > want.nano_usd {
        return Err(CommandError::Invalid("`atLeast` is more than `want`".to_owned()));
    }
    let budgets = &reserve.budgets;
    if budgets.is_empty() || budgets.len() > BUDGETS_PER_ATTEMPT {
        return Err(CommandError::Invalid(format!("`budgets` must name 1 to {BUDGETS_PER_ATTEMPT} budgets")));
    }
    for (at, id) in budgets.iter().enumerate() {
        if id.chars().count() > NAME_CHARS || budgets.iter().take(at).any(|earlier| earlier == id) {
            return Err(CommandError::Invalid(format!("`budgets[{at}]` is too long or named twice")));
        }
    }
    Ok(())
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.chars().count() > ATTEMPT_CHARS {
        return Err(CommandError::Invalid(format!("`attempt` must have 1 to {ATTEMPT_CHARS} characters")));
    }
    Ok(())
}

fn check_lease(lease: Millis) -> Result<()> {
    if lease <= Millis::ZERO || lease > LEASE {
        return Err(CommandError::Invalid(format!("`lease` must be between 1 and {} ms", LEASE.0)));
    }
    Ok(())
}

fn check_amount(field: &str, amount: Amount) -> Result<()> {
    if amount.tokens.0 > ATTEMPT_TOKENS || amount.nano_usd.0 < 0 || amount.nano_usd.0 > ATTEMPT_NANO_USD {
        return Err(CommandError::Invalid(format!(
            "`{field}` must be between 0 and {ATTEMPT_TOKENS} tokens and between 0 and {ATTEMPT_NANO_USD} nano-USD"
        )));
    }
    Ok(())
}
