//! The book's arithmetic: what a reservation is granted, and what the end of a hold does to the sums.
//!
//! Pure functions of values. Everything that is written in a store was computed here.

use crate::limits::RETRY_WHILE_HELD;
use crate::window::{self, WindowError};
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::ledger::{Amount, Exhausted, Unit, Window};

/// Tokens and money as a total or a change. Signed: a late settlement takes back what a lapsed lease had charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Tokens.
    pub tokens: i64,
    /// Nano-USD.
    pub nano_usd: i64,
}

impl Sum {
    /// Nothing.
    pub const ZERO: Self = Self { tokens: 0, nano_usd: 0 };

    /// `self` + `other`; none where that has no place in 64 bits.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            tokens: self.tokens.checked_add(other.tokens)?,
            nano_usd: self.nano_usd.checked_add(other.nano_usd)?,
        })
    }

    /// `self` with the sign turned.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self { tokens: self.tokens.saturating_neg(), nano_usd: self.nano_usd.saturating_neg() }
    }

    /// One unit of it.
    #[must_use]
    pub const fn unit(self, unit: Unit) -> i64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::NanoUsd => self.nano_usd,
        }
    }

    /// As an amount. Tokens below zero, which only a change can have, are zero.
    #[must_use]
    pub fn amount(self) -> Amount {
        Amount { tokens: Tokens(u64::try_from(self.tokens).unwrap_or(0)), nano_usd: NanoUsd(self.nano_usd) }
    }
}

impl From<Amount> for Sum {
    fn from(amount: Amount) -> Self {
        Self { tokens: i64::try_from(amount.tokens.0).unwrap_or(i64::MAX), nano_usd: amount.nano_usd.0 }
    }
}

/// Sums of what was reserved in one slot of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its start.
    pub start: Millis,
    /// Settled.
    pub settled: Sum,
    /// Sum of the open holds.
    pub held: Sum,
}

/// One window of one budget as it stands: the slots that count, oldest first.
#[derive(Clone, Debug)]
pub struct Line {
    /// Budget id.
    pub budget: String,
    /// The window.
    pub window: Window,
    /// Its slots.
    pub slots: Vec<Slot>,
}

/// What a reservation gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hold this much in every line.
    Hold(Amount),
    /// Some line can't afford it.
    Refuse(Exhausted),
}

/// Why the book can't say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A window that can't be computed.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// A sum outside 64 bits.
    #[error("the sums of budget `{0}` don't fit in 64 bits")]
    Overflow(String),
}

/// Grants between `at_least` and `want`, the same in every line, or nothing at all.
///
/// A unit that a window does not limit, or of which nothing is wanted, is held as wanted. Of several windows that say
/// no, the one that says it longest is named, so that the caller's Retry-After is true for all.
pub fn grant(lines: &[Line], want: Amount, at_least: Amount, now: Millis) -> Result<Verdict, BookError> {
    let (mut held, want, at_least) = (Sum::from(want), Sum::from(want), Sum::from(at_least));
    let mut refusal: Option<Exhausted> = None;
    for line in lines {
        for unit in [Unit::Tokens, Unit::NanoUsd] {
            let Some(limit) = limit(&line.window, unit) else { continue };
            if want.unit(unit) == 0 {
                continue;
            }
            let free = free(line, unit, limit)?;
            if free < at_least.unit(unit) {
                let other = exhausted(line, unit, limit, at_least.unit(unit), now)?;
                refusal = Some(refusal.map_or(other.clone(), |first| longer(first, other)));
            }
            match unit {
                Unit::Tokens => held.tokens = held.tokens.min(free),
                Unit::NanoUsd => held.nano_usd = held.nano_usd.min(free),
            }
        }
    }
    Ok(refusal.map_or_else(|| Verdict::Hold(held.amount()), Verdict::Refuse))
}

/// A budget that nobody has declared, or that was taken back.
#[must_use]
pub fn unknown_budget(id: &str) -> Exhausted {
    let (window, unit) = (String::new(), Unit::Tokens);
    Exhausted { budget: id.to_owned(), window, unit, limit: 0, settled: 0, held: 0, retry_after: None }
}

/// Sums over the slots of a line: settled, held.
pub fn totals(line: &Line) -> Result<(Sum, Sum), BookError> {
    let overflow = || BookError::Overflow(line.budget.clone());
    line.slots.iter().try_fold((Sum::ZERO, Sum::ZERO), |(settled, held), slot| {
        Ok((settled.plus(slot.settled).ok_or_else(overflow)?, held.plus(slot.held).ok_or_else(overflow)?))
    })
}

/// Limit − settled − held. Negative where there is debt or the limit was lowered.
fn free(line: &Line, unit: Unit, limit: i64) -> Result<i64, BookError> {
    let (settled, held) = totals(line)?;
    let free = i128::from(limit) - i128::from(settled.unit(unit)) - i128::from(held.unit(unit));
    i64::try_from(free).map_err(|_| BookError::Overflow(line.budget.clone()))
}

fn limit(window: &Window, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Tokens => window.tokens.map(|tokens| i64::try_from(tokens.0).unwrap_or(i64::MAX)),
        Unit::NanoUsd => window.nano_usd.map(|money| money.0),
    }
}

fn exhausted(line: &Line, unit: Unit, limit: i64, at_least: i64, now: Millis) -> Result<Exhausted, BookError> {
    let (settled, held) = totals(line)?;
    Ok(Exhausted {
        budget: line.budget.clone(),
        window: line.window.name.clone(),
        unit,
        limit,
        settled: settled.unit(unit),
        held: held.unit(unit),
        retry_after: retry_after(line, unit, limit, at_least, now)?,
    })
}

/// When asking again makes sense; never, where the request is larger than the limit.
fn retry_after(line: &Line, unit: Unit, limit: i64, needs: i64, now: Millis) -> Result<Option<Millis>, BookError> {
    let room = i128::from(limit) - i128::from(needs);
    if room < 0 {
        return Ok(None);
    }
    let (settled, held) = totals(line)?;
    if i128::from(settled.unit(unit)) <= room {
        return Ok(Some(RETRY_WHILE_HELD));
    }
    let mut rest = i128::from(settled.unit(unit)) + i128::from(held.unit(unit));
    for slot in &line.slots {
        rest -= i128::from(slot.settled.unit(unit)) + i128::from(slot.held.unit(unit));
        if rest <= room {
            return Ok(Some(window::leaves_at(&line.window.period, slot.start)?.since(now)));
        }
    }
    Ok(None)
}

fn longer(first: Exhausted, other: Exhausted) -> Exhausted {
    match (first.retry_after, other.retry_after) {
        (Some(a), Some(b)) if b > a => other,
        (Some(_), None) => other,
        _ => first,
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Held; nothing is known yet about what was used.
    Open,
    /// Ended with what was really used.
    Settled,
    /// Ended without use.
    Released,
    /// Its lease passed: charged in full until somebody says what was used.
    Lapsed,
}

/// How a hold ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With what was really used.
    Settle(Amount),
    /// Without use.
    Release,
    /// By its lease.
    Lapse,
}

/// What an ending changes, in every window that the hold is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new state.
    pub state: State,
    /// Change of the sum of open holds.
    pub held: Sum,
    /// Change of what is settled. Where it is not nothing, a usage row says so.
    pub settled: Sum,
    /// What the attempt is charged with from now on, all in all.
    pub charged: Amount,
}

/// What happens to an attempt that holds `held` and is charged with `charged` when it ends; none where it had ended the
/// same way, and an error that says how it has ended where it had ended another way.
pub fn end(state: State, held: Amount, charged: Amount, ending: Ending) -> Result<Option<Change>, State> {
    let before = if state == State::Lapsed { Sum::from(charged) } else { Sum::ZERO };
    let give_back = if state == State::Open { Sum::from(held).negated() } else { Sum::ZERO };
    let (next, charged) = match (state, ending) {
        (State::Open | State::Lapsed, Ending::Settle(actual)) => (State::Settled, actual),
        (State::Open | State::Lapsed, Ending::Release) => (State::Released, Amount::default()),
        (State::Open, Ending::Lapse) => (State::Lapsed, held),
        (State::Settled, Ending::Settle(actual)) if actual == charged => return Ok(None),
        (State::Released, Ending::Release) | (State::Lapsed, Ending::Lapse) => return Ok(None),
        (State::Settled | State::Released, _) => return Err(state),
    };
    // Amounts are bounded by `limits::ATTEMPT_*`, so the difference of two has a place.
    let settled = Sum::from(charged).plus(before.negated()).unwrap_or(Sum::from(charged));
    Ok(Some(Change { state: next, held: give_back, settled, charged }))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
