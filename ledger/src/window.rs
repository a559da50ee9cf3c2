//! Which instants an accounting window covers.
//!
//! Sums are kept per *slot*. A calendar window is one slot, from one turn to the next. A rolling window moves on in
//! [`ROLLING_SLOTS`] parts: what was used leaves it at most one part late, and never early.

use crate::limits::{ROLLING, ROLLING_SLOTS};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{CalendarUnit, Period};

/// Why a period can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// No such time zone.
    #[error("`{0}` is no IANA time zone: write one such as `Europe/Berlin` or `UTC`")]
    TimeZone(String),
    /// A rolling window without length, or one that is too long.
    #[error("a rolling window of {0} ms can't be kept: its length must be between 1 and {max}", max = ROLLING.0)]
    Length(i64),
    /// An instant that no calendar has.
    #[error("the instant {0} ms is outside the calendar")]
    Instant(i64),
}

/// The window of a period at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant that counts.
    pub start: Millis,
    /// When it turns; none for a rolling one, which never does.
    pub resets_at: Option<Millis>,
    /// The first slot that counts.
    pub first_slot: Millis,
}

/// Refuses a period that windows can't be computed of.
pub fn check(period: &Period) -> Result<(), WindowError> {
    match period {
        Period::Calendar { time_zone, .. } => zone(time_zone).map(|_| ()),
        Period::Rolling { length } => width(*length).map(|_| ()),
    }
}

/// The slot that something used at `at` is counted in.
pub fn slot(period: &Period, at: Millis) -> Result<Millis, WindowError> {
    match period {
        Period::Calendar { unit, time_zone } => calendar(*unit, time_zone, at).map(|(start, _)| start),
        Period::Rolling { length } => slot_of_width(at, width(*length)?),
    }
}

/// The window at `now`.
pub fn span(period: &Period, now: Millis) -> Result<Span, WindowError> {
    match period {
        Period::Calendar { unit, time_zone } => {
            let (start, end) = calendar(*unit, time_zone, now)?;
            Ok(Span { start, resets_at: Some(end), first_slot: start })
        }
        Period::Rolling { length } => {
            let start = now.since(*length);
            // What was used at `start` exactly is as old as the window is long: it has left.
            let first_slot = slot_of_width(start.saturating_add(Millis(1)), width(*length)?)?;
            Ok(Span { start, resets_at: None, first_slot })
        }
    }
}

/// When what `slot` holds stops to count.
pub fn leaves_at(period: &Period, slot: Millis) -> Result<Millis, WindowError> {
    match period {
        Period::Calendar { unit, time_zone } => calendar(*unit, time_zone, slot).map(|(_, end)| end),
        Period::Rolling { length } => Ok(slot.saturating_add(width(*length)?).saturating_add(*length).since(Millis(1))),
    }
}

/// How far a rolling window moves on at once.
fn width(length: Millis) -> Result<Millis, WindowError> {
    if length.0 < 1 || length.0 > ROLLING.0 {
        return Err(WindowError::Length(length.0));
    }
    Ok(Millis((length.0 + ROLLING_SLOTS - 1) / ROLLING_SLOTS))
}

fn slot_of_width(at: Millis, width: Millis) -> Result<Millis, WindowError> {
    at.0.div_euclid(width.0).checked_mul(width.0).map(Millis).ok_or(WindowError::Instant(at.0))
}

fn zone(name: &str) -> Result<TimeZone, WindowError> {
    TimeZone::get(name).map_err(|_| WindowError::TimeZone(name.to_owned()))
}

/// Start and end of the calendar window that `at` lies in.
fn calendar(unit: CalendarUnit, time_zone: &str, at: Millis) -> Result<(Millis, Millis), WindowError> {
    let zone = zone(time_zone)?;
    match unit {
        CalendarUnit::Minute => within_the_day(&zone, at, Millis::MINUTE),
        CalendarUnit::Hour => within_the_day(&zone, at, Millis::HOUR),
        CalendarUnit::Day | CalendarUnit::Week | CalendarUnit::Month | CalendarUnit::Quarter | CalendarUnit::Year => {
            days(unit, &zone, at)
        }
    }
}

/// A minute or an hour on the zone's clock. An hour that a change of the clock cuts is two windows, so that windows
/// never overlap, even where the clock moves by half an hour.
fn within_the_day(zone: &TimeZone, at: Millis, length: Millis) -> Result<(Millis, Millis), WindowError> {
    let instant = timestamp(at)?;
    let offset = i64::from(zone.to_offset(instant).seconds()) * Millis::SECOND.0;
    let start = Millis(slot_of_width(Millis(at.0.saturating_add(offset)), length)?.0 - offset);
    let end = start.saturating_add(length);
    let after = timestamp(at.saturating_add(Millis(1)))?;
    let changed = zone.preceding(after).next().map(|change| Millis(change.timestamp().as_millisecond()));
    let changes = zone.following(instant).next().map(|change| Millis(change.timestamp().as_millisecond()));
    Ok((changed.map_or(start, |change| change.max(start)), changes.map_or(end, |change| change.min(end))))
}

/// A day or longer: from the first instant of one date to the first instant of another.
fn days(unit: CalendarUnit, zone: &TimeZone, at: Millis) -> Result<(Millis, Millis), WindowError> {
    let outside = |_| WindowError::Instant(at.0);
    let today = zone.to_datetime(timestamp(at)?).date();
    let first = first_day(unit, today).map_err(outside)?;
    let next = match unit {
        CalendarUnit::Week => first.checked_add(1.week()),
        CalendarUnit::Month => first.checked_add(1.month()),
        CalendarUnit::Quarter => first.checked_add(3.months()),
        CalendarUnit::Year => first.checked_add(1.year()),
        CalendarUnit::Minute | CalendarUnit::Hour | CalendarUnit::Day => first.checked_add(1.day()),
    };
    let begin = |date: Date| -> Result<Millis, jiff::Error> {
        Ok(Millis(zone.to_timestamp(date.at(0, 0, 0, 0))?.as_millisecond()))
    };
    Ok((begin(first).map_err(outside)?, next.and_then(begin).map_err(outside)?))
}

fn first_day(unit: CalendarUnit, today: Date) -> Result<Date, jiff::Error> {
    match unit {
        CalendarUnit::Minute | CalendarUnit::Hour | CalendarUnit::Day => Ok(today),
        CalendarUnit::Week => today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()),
        CalendarUnit::Month => Ok(today.first_of_month()),
        CalendarUnit::Quarter => Date::new(today.year(), (today.month() - 1) / 3 * 3 + 1, 1),
        CalendarUnit::Year => Ok(today.first_of_year()),
    }
}

fn timestamp(at: Millis) -> Result<Timestamp, WindowError> {
    Timestamp::from_millisecond(at.0).map_err(|_| WindowError::Instant(at.0))
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
