//! The calls, by value, on the real store.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{Book, LEASE, NOW, amount, ask, budget, daily, day, granted, hour, settle, window};
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::{Done, Metered, Reserve, Reserved, Spend, SpendEntry};
use quartermaster_ledger::commands::{Command, CommandError};
use quartermaster_ledger::store::Store as _;

const TEAM: &str = "demo/team";
const KEY: &str = "demo/key";

fn conflict<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> String {
    match answer {
        Err(CommandError::Conflict(why)) => why,
        other => panic!("no conflict: {other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(answer: Result<T, CommandError>) -> String {
    match answer {
        Err(CommandError::Invalid(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_hold_becomes_what_was_used() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    assert_eq!(book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer"), granted(60));
    assert_eq!(book.tokens(TEAM), (0, 60));
    assert_eq!(book.settle("a", 25, 0).expect("done"), Done::Applied);
    assert_eq!(book.tokens(TEAM), (25, 0));
    let rows = book.rows();
    assert_eq!((rows.len(), rows[0].tokens, rows[0].usage.model.as_str()), (1, 25, "smol"));
    assert_eq!((rows[0].budgets.as_slice(), rows[0].reserved_at), ([TEAM.to_owned()].as_slice(), NOW));
}

#[test]
fn all_budgets_or_none() {
    let mut book = Book::new(vec![daily(KEY, 1000), daily(TEAM, 100)]);
    assert_eq!(book.reserve(ask("a", &[KEY, TEAM], 500, 10)).expect("an answer"), granted(100));
    let Reserved::Exhausted(said) = book.reserve(ask("b", &[KEY, TEAM], 50, 1)).expect("an answer") else {
        panic!("granted")
    };
    assert_eq!((said.budget.as_str(), said.held, said.limit), (TEAM, 100, 100));
    assert_eq!((book.tokens(KEY), book.tokens(TEAM)), ((0, 100), (0, 100)), "the refusal held nothing");
    assert_eq!(book.reserve(ask("c", &[KEY], 50, 1)).expect("an answer"), granted(50));
}

#[test]
fn an_unknown_budget_grants_nothing() {
    let mut book = Book::new(vec![daily(KEY, 1000)]);
    let Reserved::Exhausted(said) = book.reserve(ask("a", &[KEY, "demo/nobody"], 5, 1)).expect("an answer") else {
        panic!("granted")
    };
    assert_eq!((said.budget.as_str(), said.window.as_str(), said.retry_after), ("demo/nobody", "", None));
    assert_eq!(book.tokens(KEY), (0, 0));
}

#[test]
fn every_call_can_be_repeated_and_none_means_two_things() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    for _ in 0..2 {
        assert_eq!(book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer"), granted(60));
    }
    let other = conflict(book.reserve(ask("a", &[TEAM], 61, 10)));
    assert!(other.contains("`a`") && other.contains("new id"), "{other}");
    assert_eq!(book.extend("a", None).expect("done"), Done::Applied);
    assert_eq!(book.settle("a", 25, 0).expect("done"), Done::Applied);
    assert_eq!(book.settle("a", 25, 0).expect("done"), Done::AlreadyDone);
    conflict(book.settle("a", 26, 0));
    let mut changed = settle("a", 25, 0);
    changed.usage.outcome = "length".to_owned();
    conflict(book.done(Command::Settle(changed)));
    conflict(book.release("a"));
    conflict(book.reserve(ask("a", &[TEAM], 60, 10)));
    assert_eq!(book.extend("a", None).expect("done"), Done::Unknown);
    assert_eq!((book.tokens(TEAM), book.rows().len()), ((25, 0), 1));
}

#[test]
fn a_release_leaves_nothing_behind() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    assert_eq!(book.release("a").expect("done"), Done::Applied);
    assert_eq!(book.release("a").expect("done"), Done::AlreadyDone);
    assert_eq!((book.tokens(TEAM), book.rows().len()), ((0, 0), 0));
    conflict(book.settle("a", 1, 0));
}

#[test]
fn a_release_that_overtakes_its_reservation_wins() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    assert_eq!(book.release("a").expect("done"), Done::Unknown);
    conflict(book.reserve(ask("a", &[TEAM], 60, 10)));
    assert_eq!(book.tokens(TEAM), (0, 0));
}

#[test]
fn usage_that_nobody_reserved_is_recorded_once_in_no_budget() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    assert_eq!(book.settle("a", 25, 3).expect("done"), Done::Unknown);
    assert_eq!(book.settle("a", 25, 3).expect("done"), Done::AlreadyDone);
    conflict(book.settle("a", 26, 3));
    let rows = book.rows();
    assert_eq!((rows.len(), rows[0].tokens, rows[0].budgets.len()), (1, 25, 0));
    assert_eq!(book.tokens(TEAM), (0, 0));
}

#[test]
fn a_lapsed_hold_is_charged_in_full_and_corrected_by_the_late_settle() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    book.pass(Millis(LEASE.0 - 1));
    assert_eq!(book.lapse(), 0);
    book.pass(Millis(1));
    assert_eq!((book.lapse(), book.lapse()), (1, 0));
    assert_eq!(book.tokens(TEAM), (60, 0));
    conflict(book.reserve(ask("a", &[TEAM], 60, 10)));
    assert_eq!(book.settle("a", 25, 0).expect("done"), Done::Applied);
    assert_eq!(book.settle("a", 25, 0).expect("done"), Done::AlreadyDone);
    assert_eq!(book.tokens(TEAM), (25, 0));
    let rows: Vec<_> = book.rows().into_iter().map(|row| (row.revision, row.tokens, row.usage.outcome)).collect();
    assert_eq!(rows, [(0, 60, "lease_expired".to_owned()), (1, -35, "stop".to_owned())]);
}

#[test]
fn a_lapsed_hold_that_used_nothing_is_given_back() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    book.pass(LEASE);
    assert_eq!(book.lapse(), 1);
    assert_eq!(book.release("a").expect("done"), Done::Applied);
    assert_eq!(book.tokens(TEAM), (0, 0));
    assert_eq!(book.rows().iter().map(|row| row.tokens).sum::<i64>(), 0);
}

#[test]
fn an_extended_hold_does_not_lapse() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    book.pass(Millis(LEASE.0 - 1));
    assert_eq!(book.extend("a", Some(Millis(5000))).expect("done"), Done::Applied);
    book.pass(Millis(4999));
    assert_eq!((book.lapse(), book.tokens(TEAM)), (0, (0, 60)));
    book.pass(Millis(1));
    assert_eq!((book.lapse(), book.tokens(TEAM)), (1, (60, 0)));
}

#[test]
fn debt_is_carried_and_refuses_until_the_window_turns() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    assert_eq!(book.settle("a", 150, 0).expect("done"), Done::Applied);
    let Reserved::Exhausted(said) = book.reserve(ask("b", &[TEAM], 5, 1)).expect("an answer") else {
        panic!("granted")
    };
    assert_eq!((said.settled, said.limit), (150, 100));
    book.pass(said.retry_after.expect("a turn"));
    assert_eq!(book.reserve(ask("b", &[TEAM], 5, 1)).expect("an answer"), granted(5));
}

#[test]
fn what_settles_after_the_turn_belongs_to_the_window_it_was_reserved_in() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 100, 10)).expect("an answer");
    book.pass(Millis(86_400_000));
    assert_eq!(book.tokens(TEAM), (0, 0), "a new window is empty");
    assert_eq!(book.reserve(ask("b", &[TEAM], 100, 10)).expect("an answer"), granted(100));
    assert_eq!(book.settle("a", 90, 0).expect("done"), Done::Applied);
    assert_eq!(book.tokens(TEAM), (0, 100), "yesterday's use is yesterday's");
}

#[test]
fn a_changed_limit_keeps_usage_and_a_lowered_one_makes_debt() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    book.settle("a", 60, 0).expect("done");
    book.budgets(1, vec![daily(TEAM, 30)]).expect("done");
    assert_eq!(book.tokens(TEAM), (60, 0));
    assert!(matches!(book.reserve(ask("b", &[TEAM], 5, 1)).expect("an answer"), Reserved::Exhausted(_)));
    let renamed = budget(TEAM, vec![window("renamed", day(), Some(70), None)]);
    book.budgets(1, vec![renamed]).expect("done");
    assert_eq!(book.tokens(TEAM), (60, 0));
    assert_eq!(book.reserve(ask("b", &[TEAM], 50, 1)).expect("an answer"), granted(10));
}

#[test]
fn a_budget_left_out_stops_granting_and_comes_back_with_what_it_spent() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    book.reserve(ask("a", &[TEAM], 60, 10)).expect("an answer");
    book.budgets(1, vec![daily(KEY, 1)]).expect("done");
    assert!(matches!(book.reserve(ask("b", &[TEAM], 5, 1)).expect("an answer"), Reserved::Exhausted(_)));
    assert_eq!(book.settle("a", 55, 0).expect("done"), Done::Applied);
    book.budgets(1, vec![daily(TEAM, 100)]).expect("done");
    assert_eq!(book.tokens(TEAM), (55, 0));
}

#[test]
fn a_new_period_counts_what_its_window_has_seen_and_survives_coming_and_going() {
    let mut book = Book::new(vec![daily(TEAM, 1000), daily(KEY, 1000)]);
    book.reserve(ask("old", &[TEAM], 7, 1)).expect("an answer");
    book.settle("old", 7, 0).expect("done");
    book.pass(Millis(2 * Millis::HOUR.0));
    book.reserve(ask("used", &[TEAM], 60, 10)).expect("an answer");
    book.settle("used", 50, 0).expect("done");
    book.reserve(ask("open", &[TEAM, KEY], 20, 10)).expect("an answer");
    book.reserve(ask("other", &[KEY], 500, 10)).expect("an answer");
    let rolling = || budget(TEAM, vec![window("hour", hour(), Some(100), None)]);
    book.budgets(1, vec![rolling()]).expect("done");
    assert_eq!(book.tokens(TEAM), (50, 20));
    book.settle("open", 10, 0).expect("done");
    assert_eq!(book.tokens(TEAM), (60, 0));
    book.budgets(1, vec![daily(TEAM, 1000)]).expect("done");
    assert_eq!(book.tokens(TEAM), (67, 0), "the day saw the rolling window's use as well");
    book.reserve(ask("between", &[TEAM], 5, 1)).expect("an answer");
    book.budgets(1, vec![rolling()]).expect("done");
    assert_eq!(book.tokens(TEAM), (60, 5));
}

#[test]
fn money_and_tokens_are_held_together() {
    let windows = vec![window("tokens", day(), Some(100), None), window("money", day(), None, Some(1000))];
    let mut book = Book::new(vec![budget(TEAM, windows)]);
    let both = |id: &str| Reserve { want: amount(50, 800), at_least: amount(10, 100), ..ask(id, &[TEAM], 0, 0) };
    assert_eq!(book.reserve(both("a")).expect("an answer"), Reserved::Granted { held: amount(50, 800) });
    assert_eq!(book.reserve(both("b")).expect("an answer"), Reserved::Granted { held: amount(50, 200) });
    let balances = book.balances();
    assert_eq!(balances.len(), 2);
    assert!(balances.iter().all(|balance| balance.held == amount(100, 1000)), "windows of one period count once");
}

#[test]
fn an_operator_that_was_replaced_writes_nothing() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    assert_eq!(book.budgets(5, vec![daily(TEAM, 200)]).expect("done"), Done::Applied);
    assert!(matches!(book.budgets(4, vec![]), Err(CommandError::StaleEpoch { got: 4, latest: 5 })));
    let spend = Command::Spend(Spend { epoch: 4, entries: vec![] });
    assert!(matches!(book.done(spend), Err(CommandError::StaleEpoch { .. })));
    assert_eq!(book.balances().len(), 1);
    assert_eq!(book.budgets(5, vec![daily(TEAM, 200)]).expect("done"), Done::Applied, "its own epoch again");
}

/// The UTC hour of [`NOW`].
const HOUR_START: Millis = Millis(NOW.0 - NOW.0 % Millis::HOUR.0);

/// The cost of a pod in one hour from [`HOUR_START`] on, metered to its end.
fn entry(pod: &str, namespace: &str, hour: i64, nano: i64) -> SpendEntry {
    let hour_start = Millis(HOUR_START.0 + hour * Millis::HOUR.0);
    SpendEntry {
        pod_uid: pod.to_owned(),
        namespace: namespace.to_owned(),
        model: "m".into(),
        variant: "v".into(),
        hardware_class: "c".into(),
        hour_start,
        until: hour_start.saturating_add(Millis::HOUR),
        nano_usd: NanoUsd(nano),
    }
}

#[test]
fn a_new_operator_learns_how_far_each_pod_is_metered() {
    let mut book = Book::new(vec![]);
    let until = |minutes: i64, entry: SpendEntry| SpendEntry {
        until: entry.hour_start.saturating_add(Millis(minutes * Millis::MINUTE.0)),
        ..entry
    };
    let mut record = |entries| book.done(Command::Spend(Spend { epoch: 1, entries }));
    record(vec![entry("p", "demo", 0, 30), until(10, entry("p", "demo", 1, 4)), entry("old", "demo", -5, 9)])
        .expect("done");
    record(vec![until(5, entry("p", "demo", 1, 2)), until(20, entry("free", "demo", 0, 0))]).expect("done");
    record(vec![until(25, entry("free", "demo", 0, 0))]).expect("done");
    for outside in [until(0, entry("p", "demo", 0, 1)), until(61, entry("p", "demo", 0, 1))] {
        assert!(invalid(record(vec![outside])).contains("`until`"));
    }
    let metered = |pod: &str, hour: i64, minutes: i64, nano: i64| {
        let SpendEntry { pod_uid, hour_start, until, nano_usd, .. } = until(minutes, entry(pod, "demo", hour, nano));
        Metered { pod_uid, hour_start, until, nano_usd }
    };
    let all = book.store.metered(HOUR_START, 10).expect("rows");
    assert_eq!(all, [metered("p", 1, 10, 4), metered("free", 0, 25, 0)]);
    assert_eq!(book.store.metered(HOUR_START, 1).expect("rows").len(), 1);
}

#[test]
fn spend_is_added_up_by_model_too() {
    let mut book = Book::new(vec![]);
    let of = |model: &str, entry: SpendEntry| SpendEntry { model: model.to_owned(), ..entry };
    let entries = vec![
        of("a", entry("p", "demo", 0, 10)),
        of("a", entry("p", "demo", 1, 5)),
        of("b", entry("q", "demo", 1, 40)),
        of("a", entry("r", "other", 1, 7)),
        of("a", entry("s", "demo", -3, 100)),
    ];
    book.done(Command::Spend(Spend { epoch: 1, entries })).expect("done");
    let mut sums = |namespace, most| {
        let sums = book.store.spend_by_model(HOUR_START, namespace, most).expect("sums");
        sums.into_iter().map(|sum| (sum.namespace, sum.model, sum.nano_usd.0)).collect::<Vec<_>>()
    };
    let sum = |namespace: &str, model: &str, nano: i64| (namespace.to_owned(), model.to_owned(), nano);
    assert_eq!(sums(None, 9), [sum("demo", "b", 40), sum("demo", "a", 15), sum("other", "a", 7)]);
    assert_eq!(sums(Some("demo"), 1), [sum("demo", "b", 40)]);
}

#[test]
fn spend_is_cumulative_and_the_largest_figure_wins() {
    let mut book = Book::new(vec![]);
    let hour_start = HOUR_START;
    let mut record = |entries| book.done(Command::Spend(Spend { epoch: 1, entries }));
    record(vec![entry("p", "demo", 0, 10), entry("q", "other", 0, 5)]).expect("done");
    record(vec![entry("p", "demo", 0, 30), entry("p", "demo", 1, 4)]).expect("done");
    record(vec![entry("p", "demo", 0, 20), entry("p", "demo", 1, 4)]).expect("done");
    let wrong = SpendEntry { hour_start: NOW, ..entry("p", "demo", 0, 1) };
    assert!(invalid(record(vec![wrong])).contains("hourStart"));
    let mut total = |since, namespace| book.store.spend(since, namespace).expect("a sum");
    assert_eq!(total(hour_start, None), NanoUsd(39));
    assert_eq!(total(hour_start, Some("demo")), NanoUsd(34));
    // A day of a half-hour time zone begins within an hour, which counts in full until it has ended.
    let into = |millis| Millis(hour_start.0 + millis);
    assert_eq!(total(into(Millis::HOUR.0 / 2), Some("demo")), NanoUsd(34));
    assert_eq!(total(into(Millis::HOUR.0 - 1), Some("demo")), NanoUsd(34));
    assert_eq!(total(into(Millis::HOUR.0), Some("demo")), NanoUsd(4));
    assert_eq!(total(into(2 * Millis::HOUR.0), Some("demo")), NanoUsd(0));
    assert_eq!(total(hour_start, Some("nobody")), NanoUsd(0));
}

#[test]
fn nonsense_is_refused_by_field() {
    let mut book = Book::new(vec![daily(TEAM, 100)]);
    assert!(invalid(book.reserve(ask("", &[TEAM], 5, 1))).contains("`attempt`"));
    assert!(invalid(book.reserve(ask("a", &[TEAM], 5, 6))).contains("`atLeast`"));
    assert!(invalid(book.reserve(ask("a", &[], 5, 1))).contains("`budgets`"));
    assert!(invalid(book.reserve(ask("a", &[TEAM, TEAM], 5, 1))).contains("`budgets[1]`"));
    assert!(invalid(book.reserve(ask("a", &[TEAM], u64::MAX, 1))).contains("`want`"));
    assert!(invalid(book.reserve(Reserve { lease: Millis(0), ..ask("a", &[TEAM], 5, 1) })).contains("`lease`"));
    assert!(invalid(book.settle("a", 1, -1)).contains("`actual`"));
    assert!(invalid(book.budgets(1, vec![daily(TEAM, 1), daily(TEAM, 2)])).contains(TEAM));
    let zone = quartermaster_core::wire::ledger::Period::Calendar {
        unit: quartermaster_core::wire::ledger::CalendarUnit::Day,
        time_zone: "Mars/Olympus".to_owned(),
    };
    let refused = invalid(book.budgets(2, vec![budget(TEAM, vec![window("day", zone, None, None)])]));
    assert!(refused.contains(TEAM) && refused.contains("`day`") && refused.contains("Mars/Olympus"), "{refused}");
    assert_eq!(book.tokens(TEAM), (0, 0), "what was refused changed nothing");
    assert_eq!(book.budgets(1, vec![daily(TEAM, 100)]).expect("done"), Done::Applied, "not even the epoch");
}
