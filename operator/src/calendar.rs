//! Calendar periods in a time zone: when the one that holds an instant began and when it ends.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::CalendarUnit;

/// Why there is no such period.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such time zone.
    #[error("timeZone {0:?} is no name of the IANA time zone database, such as Europe/Berlin")]
    Zone(String),
    /// Outside of the calendar.
    #[error("finding the period around {0} ms: it is outside of the calendar")]
    Range(i64),
}

/// Start (within) and end (outside) of the period around `now`.
pub fn period(unit: CalendarUnit, time_zone: &str, now: Millis) -> Result<(Millis, Millis), Error> {
    let zone = TimeZone::get(time_zone).map_err(|_| Error::Zone(time_zone.to_owned()))?;
    bounds(unit, &zone, now).map_err(|_| Error::Range(now.0))
}

fn bounds(unit: CalendarUnit, zone: &TimeZone, now: Millis) -> Result<(Millis, Millis), jiff::Error> {
    let at = Timestamp::from_millisecond(now.0)?.to_zoned(zone.clone());
    let today = at.date();
    let of_days = |first: Date, next: Date| -> Result<(Zoned, Zoned), jiff::Error> {
        Ok((first.to_zoned(zone.clone())?, next.to_zoned(zone.clone())?))
    };
    let (start, end) = match unit {
        // By the clock rather than by the wall: an hour is an hour long on the night when clocks change as well.
        CalendarUnit::Minute => return Ok(fixed(now, Millis::MINUTE, &at)),
        CalendarUnit::Hour => return Ok(fixed(now, Millis::HOUR, &at)),
        CalendarUnit::Day => of_days(today, today.tomorrow()?)?,
        CalendarUnit::Week => {
            let monday = today.checked_sub(i32::from(today.weekday().since(Weekday::Monday)).days())?;
            of_days(monday, monday.checked_add(7.days())?)?
        }
        CalendarUnit::Month => {
            let first = today.first_of_month();
            of_days(first, first.checked_add(1.month())?)?
        }
        CalendarUnit::Quarter => {
            let into = (today.month() - 1) % 3;
            let first = today.first_of_month().checked_sub(i32::from(into).months())?;
            of_days(first, first.checked_add(3.months())?)?
        }
        CalendarUnit::Year => {
            let first = today.first_of_year();
            of_days(first, first.checked_add(1.year())?)?
        }
    };
    Ok((Millis(start.timestamp().as_millisecond()), Millis(end.timestamp().as_millisecond())))
}

/// Periods shorter than a day, counted from the zone's own zero of the minute or hour.
fn fixed(now: Millis, length: Millis, at: &Zoned) -> (Millis, Millis) {
    let offset = i64::from(at.offset().seconds()) * 1_000;
    let start = (now.0 + offset).div_euclid(length.0) * length.0 - offset;
    (Millis(start), Millis(start + length.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn periods_in_a_time_zone() {
        let now = at("2026-11-22T23:30:00Z"); // a Sunday in UTC, Monday 00:30 in Berlin
        for (unit, zone, start, end) in [
            (CalendarUnit::Minute, "UTC", "2026-11-22T23:30:00Z", "2026-11-22T23:31:00Z"),
            (CalendarUnit::Hour, "UTC", "2026-11-22T23:00:00Z", "2026-11-23T00:00:00Z"),
            (CalendarUnit::Hour, "Asia/Kolkata", "2026-11-22T23:30:00Z", "2026-11-23T00:30:00Z"),
            (CalendarUnit::Day, "Europe/Berlin", "2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z"),
            (CalendarUnit::Week, "UTC", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            (CalendarUnit::Week, "Europe/Berlin", "2026-11-22T23:00:00Z", "2026-11-29T23:00:00Z"),
            (CalendarUnit::Month, "UTC", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            (CalendarUnit::Quarter, "UTC", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (CalendarUnit::Year, "UTC", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(period(unit, zone, now).unwrap(), (at(start), at(end)), "{unit:?} in {zone}");
        }
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_clocks_change() {
        let (start, end) = period(CalendarUnit::Day, "Europe/Berlin", at("2026-10-25T12:00:00Z")).unwrap();
        assert_eq!(end.since(start), Millis(25 * Millis::HOUR.0));
    }

    #[test]
    fn an_unknown_zone_is_named() {
        let error = period(CalendarUnit::Day, "Mars/Olympus", Millis(0)).unwrap_err();
        assert!(error.to_string().contains("Mars/Olympus"));
    }
}
