use super::*;
use proptest::prelude::*;
use quartermaster_core::wire::ledger::{CalendarUnit, Period};

const NOW: Millis = Millis(1_790_000_000_000);

fn amount(tokens: u64, nano: i64) -> Amount {
    Amount { tokens: Tokens(tokens), nano_usd: NanoUsd(nano) }
}

fn sum(tokens: i64, nano_usd: i64) -> Sum {
    Sum { tokens, nano_usd }
}

fn day() -> Period {
    Period::Calendar { unit: CalendarUnit::Day, time_zone: "UTC".to_owned() }
}

fn line(period: Period, tokens: Option<u64>, nano: Option<i64>, slots: Vec<Slot>) -> Line {
    let window = Window { name: "w".into(), period, tokens: tokens.map(Tokens), nano_usd: nano.map(NanoUsd) };
    Line { budget: "demo/team".into(), window, slots }
}

fn today(settled: Sum, held: Sum) -> Vec<Slot> {
    vec![Slot { start: window::slot(&day(), NOW).expect("a slot"), settled, held }]
}

fn refusal(lines: &[Line], want: Amount, at_least: Amount) -> Exhausted {
    match grant(lines, want, at_least, NOW).expect("a verdict") {
        Verdict::Refuse(exhausted) => exhausted,
        Verdict::Hold(held) => panic!("granted {held:?}"),
    }
}

#[test]
fn a_hold_is_what_the_tightest_window_affords() {
    let wide = line(day(), Some(1000), None, today(sum(100, 0), Sum::ZERO));
    let tight = line(day(), Some(300), Some(50), today(sum(100, 5), sum(120, 5)));
    let verdict = grant(&[wide.clone(), tight], amount(500, 30), amount(10, 1), NOW);
    assert_eq!(verdict, Ok(Verdict::Hold(amount(80, 30))));
    assert_eq!(grant(&[wide], amount(500, 30), amount(10, 1), NOW), Ok(Verdict::Hold(amount(500, 30))));
}

#[test]
fn no_window_no_limit() {
    assert_eq!(grant(&[], amount(5, 7), amount(1, 1), NOW), Ok(Verdict::Hold(amount(5, 7))));
    let unlimited = line(day(), None, None, today(sum(1 << 40, 0), Sum::ZERO));
    assert_eq!(grant(&[unlimited], amount(5, 7), amount(1, 1), NOW), Ok(Verdict::Hold(amount(5, 7))));
}

#[test]
fn a_refusal_names_the_figures_and_the_turn() {
    let full = line(day(), Some(100), None, today(sum(98, 0), sum(1, 0)));
    let said = refusal(&[full], amount(50, 0), amount(3, 0));
    let turn = window::span(&day(), NOW).expect("a window").resets_at.expect("an end");
    assert_eq!((said.limit, said.settled, said.held, said.unit), (100, 98, 1, Unit::Tokens));
    assert_eq!((said.budget.as_str(), said.window.as_str()), ("demo/team", "w"));
    assert_eq!(said.retry_after, Some(turn.since(NOW)));
}

#[test]
fn where_only_holds_stand_in_the_way_the_wait_is_short() {
    let held = line(day(), Some(100), None, today(sum(10, 0), sum(90, 0)));
    assert_eq!(refusal(&[held], amount(50, 0), amount(5, 0)).retry_after, Some(RETRY_WHILE_HELD));
}

#[test]
fn a_request_larger_than_the_limit_is_never_worth_a_retry() {
    let small = line(day(), Some(100), None, vec![]);
    assert_eq!(refusal(&[small], amount(500, 0), amount(101, 0)).retry_after, None);
}

#[test]
fn debt_refuses_all_but_who_wants_nothing_of_the_unit() {
    let debt = line(day(), Some(100), Some(10), today(sum(0, 500), Sum::ZERO));
    assert_eq!(refusal(std::slice::from_ref(&debt), amount(1, 1), amount(1, 0)).unit, Unit::NanoUsd);
    assert_eq!(grant(&[debt], amount(1, 0), amount(1, 0), NOW), Ok(Verdict::Hold(amount(1, 0))));
}

#[test]
fn the_window_that_says_no_longest_is_named() {
    let month = Period::Calendar { unit: CalendarUnit::Month, time_zone: "UTC".to_owned() };
    let slots = vec![Slot { start: window::slot(&month, NOW).expect("a slot"), settled: sum(100, 0), held: Sum::ZERO }];
    let monthly = Line { budget: "demo/root".into(), ..line(month, Some(100), None, slots) };
    let daily = line(day(), Some(100), None, today(sum(100, 0), Sum::ZERO));
    assert_eq!(refusal(&[daily.clone(), monthly.clone()], amount(9, 0), amount(1, 0)).budget, "demo/root");
    assert_eq!(refusal(&[monthly, daily], amount(9, 0), amount(1, 0)).budget, "demo/root");
}

#[test]
fn a_rolling_window_says_when_enough_has_left() {
    let hour = Period::Rolling { length: Millis::HOUR };
    let slot = |ago: i64, used: i64| Slot {
        start: window::slot(&hour, Millis(NOW.0 - ago)).expect("a slot"),
        settled: sum(used, 0),
        held: Sum::ZERO,
    };
    let slots = vec![slot(3_000_000, 30), slot(2_000_000, 40), slot(1_000_000, 30)];
    let leaves = window::leaves_at(&hour, slots[1].start).expect("an instant");
    let full = line(hour, Some(100), None, slots);
    assert_eq!(refusal(&[full], amount(60, 0), amount(60, 0)).retry_after, Some(leaves.since(NOW)));
}

#[test]
fn an_attempt_ends_once() {
    let (held, used) = (amount(100, 10), amount(60, 6));
    let settled = end(State::Open, held, Amount::default(), Ending::Settle(used)).expect("ends").expect("a change");
    assert_eq!((settled.held, settled.settled, settled.state), (sum(-100, -10), sum(60, 6), State::Settled));
    assert_eq!(end(State::Settled, held, used, Ending::Settle(used)), Ok(None));
    assert_eq!(end(State::Settled, held, used, Ending::Settle(held)), Err(State::Settled));
    assert_eq!(end(State::Settled, held, used, Ending::Release), Err(State::Settled));
    assert_eq!(end(State::Settled, held, used, Ending::Lapse), Err(State::Settled));
    assert_eq!(end(State::Released, held, Amount::default(), Ending::Settle(used)), Err(State::Released));
    assert_eq!(end(State::Released, held, Amount::default(), Ending::Release), Ok(None));
}

#[test]
fn a_lapsed_hold_is_charged_in_full_and_corrected_later() {
    let (held, used) = (amount(100, 10), amount(130, 6));
    let lapsed = end(State::Open, held, Amount::default(), Ending::Lapse).expect("ends").expect("a change");
    assert_eq!((lapsed.held, lapsed.settled, lapsed.charged), (sum(-100, -10), sum(100, 10), held));
    let settled = end(State::Lapsed, held, held, Ending::Settle(used)).expect("ends").expect("a change");
    assert_eq!((settled.held, settled.settled, settled.charged), (Sum::ZERO, sum(30, -4), used));
    let released = end(State::Lapsed, held, held, Ending::Release).expect("ends").expect("a change");
    assert_eq!((released.held, released.settled), (Sum::ZERO, sum(-100, -10)));
}

fn any_line() -> impl Strategy<Value = Line> {
    let unit = || -200i64..1000;
    (prop::option::of(0u64..1000), prop::option::of(0i64..1000), unit(), unit(), 0i64..500, 0i64..500)
        .prop_map(|(tokens, nano, t, n, ht, hn)| line(day(), tokens, nano, today(sum(t, n), sum(ht, hn))))
}

proptest! {
    #[test]
    fn a_grant_never_passes_a_limit_and_a_refusal_never_lies(
        lines in prop::collection::vec(any_line(), 0..5), want in (1u64..600, 1i64..600), part in (0u64..=100, 0i64..=100),
    ) {
        let at_least = amount(want.0 * part.0 / 100, want.1 * part.1 / 100);
        let want = amount(want.0, want.1);
        match grant(&lines, want, at_least, NOW).expect("a verdict") {
            Verdict::Hold(held) => {
                prop_assert!(at_least.tokens <= held.tokens && held.tokens <= want.tokens);
                prop_assert!(at_least.nano_usd <= held.nano_usd && held.nano_usd <= want.nano_usd);
                let mut tight = [held.tokens == want.tokens, held.nano_usd == want.nano_usd];
                for line in &lines {
                    for (at, unit) in [Unit::Tokens, Unit::NanoUsd].into_iter().enumerate() {
                        let Some(limit) = limit(&line.window, unit) else { continue };
                        let after = free(line, unit, limit).expect("a figure") - Sum::from(held).unit(unit);
                        prop_assert!(after >= 0, "{line:?} is passed by {}", -after);
                        tight[at] |= after == 0;
                    }
                }
                prop_assert_eq!(tight, [true, true], "more could have been held");
            }
            Verdict::Refuse(said) => {
                let needs = Sum::from(at_least).unit(said.unit);
                prop_assert!(said.settled + said.held + needs > said.limit, "{said:?} had room for {needs}");
                prop_assert_eq!(said.retry_after.is_none(), needs > said.limit);
                prop_assert!(said.retry_after.is_none_or(|wait| wait > Millis::ZERO));
            }
        }
    }

    #[test]
    fn whatever_the_order_of_endings_the_charge_is_what_the_last_one_said(
        held in (0u64..1000, 0i64..1000), endings in prop::collection::vec(any_ending(), 1..6),
    ) {
        let held = amount(held.0, held.1);
        let (mut state, mut charged) = (State::Open, Amount::default());
        let (mut open, mut settled) = (Sum::from(held), Sum::ZERO);
        for ending in endings {
            if let Ok(Some(change)) = end(state, held, charged, ending) {
                (state, charged) = (change.state, change.charged);
                open = open.plus(change.held).expect("small");
                settled = settled.plus(change.settled).expect("small");
            }
            let expected = if state == State::Open { Sum::from(held) } else { Sum::ZERO };
            prop_assert_eq!(open, expected, "the hold is there while it is open and only then");
            prop_assert_eq!(settled, Sum::from(charged), "the changes add up to the charge");
        }
    }
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        (0u64..2000, 0i64..2000).prop_map(|(tokens, nano)| Ending::Settle(amount(tokens, nano))),
        Just(Ending::Release),
        Just(Ending::Lapse),
    ]
}
