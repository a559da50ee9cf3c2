use super::*;
use proptest::prelude::*;

fn at(text: &str) -> Millis {
    Millis(text.parse::<Timestamp>().expect("a timestamp").as_millisecond())
}

fn period(unit: CalendarUnit, zone: &str) -> Period {
    Period::Calendar { unit, time_zone: zone.to_owned() }
}

#[track_caller]
fn covers(unit: CalendarUnit, zone: &str, now: &str, start: &str, end: &str) {
    let span = span(&period(unit, zone), at(now)).expect("a window");
    assert_eq!((span.start, span.resets_at), (at(start), Some(at(end))), "{unit:?} in {zone} at {now}");
}

#[test]
fn calendar_windows_turn_where_the_zone_says() {
    use CalendarUnit::{Day, Hour, Minute, Month, Quarter, Week, Year};
    covers(Minute, "UTC", "2026-10-05T12:34:56.789Z", "2026-10-05T12:34:00Z", "2026-10-05T12:35:00Z");
    covers(Hour, "Asia/Kolkata", "2026-10-05T12:34:56Z", "2026-10-05T12:30:00Z", "2026-10-05T13:30:00Z");
    covers(Day, "Europe/Berlin", "2026-10-05T22:30:00Z", "2026-10-05T22:00:00Z", "2026-10-06T22:00:00Z");
    covers(Week, "UTC", "2026-10-11T23:59:59Z", "2026-10-05T00:00:00Z", "2026-10-12T00:00:00Z");
    covers(Month, "America/New_York", "2026-02-01T04:59:59Z", "2026-01-01T05:00:00Z", "2026-02-01T05:00:00Z");
    covers(Quarter, "UTC", "2026-12-31T12:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z");
    covers(Year, "Asia/Tokyo", "2026-12-31T15:00:00Z", "2026-12-31T15:00:00Z", "2027-12-31T15:00:00Z");
}

#[test]
fn a_day_is_as_long_as_the_clock_makes_it() {
    use CalendarUnit::{Day, Hour};
    // 23 and 25 hours in Berlin.
    covers(Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    covers(Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    // The repeated hour counts twice, each for itself.
    covers(Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z");
    covers(Hour, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
    // A midnight that does not exist: the day begins at one o'clock.
    covers(Day, "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z");
    // A clock that moves by half an hour cuts an hour in two.
    covers(Hour, "Australia/Lord_Howe", "2026-10-03T15:40:00Z", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z");
    // A date that was skipped belongs to nobody.
    covers(Day, "Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
}

#[test]
fn a_rolling_window_moves_on_in_parts_and_never_early() {
    let hour = Period::Rolling { length: Millis::HOUR };
    let used = Millis(1_000_000_000_123);
    let slot = slot(&hour, used).expect("a slot");
    let counts = |now: Millis| span(&hour, now).expect("a window").first_slot <= slot;
    assert!(counts(used.saturating_add(Millis(Millis::HOUR.0 - 1))), "it left early");
    let leaves = leaves_at(&hour, slot).expect("an instant");
    assert!(counts(Millis(leaves.0 - 1)) && !counts(leaves), "it does not leave when it is said to");
    assert!(leaves.since(used).0 <= Millis::HOUR.0 + Millis::HOUR.0 / ROLLING_SLOTS, "it left too late");
}

#[test]
fn what_can_not_be_kept_is_refused_by_name() {
    let refused = check(&period(CalendarUnit::Day, "Mars/Olympus")).expect_err("no such zone");
    assert!(refused.to_string().contains("Mars/Olympus"), "{refused}");
    assert_eq!(check(&Period::Rolling { length: Millis(0) }), Err(WindowError::Length(0)));
    assert_eq!(check(&Period::Rolling { length: Millis(i64::MAX) }), Err(WindowError::Length(i64::MAX)));
    assert_eq!(
        span(&period(CalendarUnit::Day, "UTC"), Millis(i64::MAX)),
        Err(WindowError::Instant(i64::MAX)),
        "an instant outside the calendar"
    );
}

fn any_calendar() -> impl Strategy<Value = Period> {
    use CalendarUnit::{Day, Hour, Minute, Month, Quarter, Week, Year};
    let units = prop::sample::select(vec![Minute, Hour, Day, Week, Month, Quarter, Year]);
    let zones = prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "Pacific/Chatham",
    ]);
    (units, zones).prop_map(|(unit, zone)| period(unit, zone))
}

proptest! {
    /// 1995 to 2060.
    #[test]
    fn calendar_windows_leave_no_gap_and_never_overlap(period in any_calendar(), now in 788_918_400_000i64..2_840_140_800_000) {
        let now = Millis(now);
        let here = span(&period, now).expect("a window");
        let end = here.resets_at.expect("an end");
        prop_assert!(here.start <= now && now < end, "{here:?} at {now:?}");
        prop_assert_eq!(span(&period, here.start), Ok(here), "at its start");
        prop_assert_eq!(span(&period, Millis(end.0 - 1)), Ok(here), "at its last instant");
        prop_assert_eq!(span(&period, end).expect("a window").start, end, "the next one");
        prop_assert_eq!(slot(&period, now), Ok(here.start));
        prop_assert_eq!(leaves_at(&period, here.start), Ok(end));
    }

    #[test]
    fn rolling_windows_keep_what_is_younger_than_they_are(
        length in 1i64..100_000_000, used in 1_000_000_000_000i64..2_000_000_000_000, age in 0i64..200_000_000,
    ) {
        let period = Period::Rolling { length: Millis(length) };
        let slot = slot(&period, Millis(used)).expect("a slot");
        let counts = span(&period, Millis(used + age)).expect("a window").first_slot <= slot;
        if age < length {
            prop_assert!(counts, "it left early");
        }
        if age > length + (length + ROLLING_SLOTS - 1) / ROLLING_SLOTS {
            prop_assert!(!counts, "it stayed");
        }
        prop_assert_eq!(counts, Millis(used + age) < leaves_at(&period, slot).expect("an instant"));
    }
}
