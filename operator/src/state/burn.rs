//! How fast budgets are spent, out of the ledger's balances, tick by tick. Pure.
//!
//! Every window of a budget counts the same requests, so the window that shows most between two looks is right: one that
//! turned, or from which something left, hides a part.

use crate::limits;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Amount, Balance};
use std::collections::{BTreeMap, VecDeque};

/// Tokens and nano-USD, in all or an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Tokens.
    pub tokens: i64,
    /// Nano-USD.
    pub nano_usd: i64,
}

impl Pace {
    fn of(amount: Amount) -> Self {
        Self { tokens: i64::try_from(amount.tokens.0).unwrap_or(i64::MAX), nano_usd: amount.nano_usd.0 }
    }

    fn each(self, other: Self, combine: impl Fn(i64, i64) -> i64) -> Self {
        Self { tokens: combine(self.tokens, other.tokens), nano_usd: combine(self.nano_usd, other.nano_usd) }
    }

    /// So much in `time`, as so much an hour.
    fn an_hour(self, time: Millis) -> Self {
        let hour = |count: i64, _| {
            let exact = i128::from(count) * i128::from(Millis::HOUR.0) / i128::from(time.0.max(1));
            i64::try_from(exact).unwrap_or(i64::MAX)
        };
        self.each(self, hour)
    }
}

/// What a budget has spent since it was first seen.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Millis,
    spent: Pace,
}

/// Samples of every budget, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Burn(BTreeMap<String, VecDeque<Sample>>);

impl Burn {
    /// Notes balances: the last look at them, and this one. Rows of one budget stand together.
    pub fn note(&mut self, before: Option<(&[Balance], Millis)>, rows: &[Balance], now: Millis) {
        let (old, at) = before.unwrap_or((&[], now));
        let old: BTreeMap<(&str, &str), &Balance> =
            old.iter().map(|row| ((row.budget.as_str(), row.window.as_str()), row)).collect();
        let mut kept = BTreeMap::new();
        for rows in rows.chunk_by(|a, b| a.budget == b.budget) {
            let Some(budget) = rows.first().map(|row| row.budget.as_str()) else { continue };
            let seen = rows.iter().filter_map(|row| {
                let before = old.get(&(budget, row.window.as_str()))?;
                between(before, row, now.since(at))
            });
            let spent = seen.reduce(|a, b| a.each(b, i64::max));
            let mut samples = self.0.remove(budget).unwrap_or_default();
            add(&mut samples, spent, now);
            kept.insert(budget.to_owned(), samples);
        }
        self.0 = kept;
    }

    /// What a budget spends an hour, lately; none before it was watched for a while. `rows` are its balances.
    #[must_use]
    pub fn an_hour(&self, budget: &str, rows: &[&Balance]) -> Option<Pace> {
        let samples = self.0.get(budget)?;
        let (first, last) = (samples.front()?, samples.back()?);
        let time = last.at.since(first.at);
        if time < limits::BURN_WINDOW_MIN {
            return None;
        }
        let watched = last.spent.each(first.spent, i64::saturating_sub).an_hour(time);
        // From a short rolling window as much leaves as comes; what it holds says it by itself.
        let short = rows.iter().filter(|row| row.resets_at.is_none()).filter_map(|row| {
            let length = last.at.since(row.start);
            (length <= limits::BURN_WINDOW).then(|| Pace::of(row.settled).an_hour(length))
        });
        Some(short.fold(watched.each(Pace::default(), i64::max), |a, b| a.each(b, i64::max)))
    }
}

/// What was spent between two looks at one window; none where they are not to be compared.
fn between(old: &Balance, new: &Balance, time: Millis) -> Option<Pace> {
    let (before, now) = (Pace::of(old.settled), Pace::of(new.settled));
    let more = now.each(before, i64::saturating_sub);
    match (old.resets_at, new.resets_at) {
        // A correction gives back.
        (Some(_), Some(_)) if new.start == old.start => Some(more),
        (Some(end), Some(_)) if new.start >= end => Some(now),
        (None, None) if new.start.since(old.start).since(time).0.abs() <= limits::BURN_DRIFT.0 => {
            Some(more.each(Pace::default(), i64::max))
        }
        // The spec gave the window another period.
        _ => None,
    }
}

fn add(samples: &mut VecDeque<Sample>, spent: Option<Pace>, now: Millis) {
    let (Some(last), Some(spent)) = (samples.back().copied(), spent) else {
        // With nothing to compare with it begins anew.
        samples.clear();
        samples.push_back(Sample { at: now, spent: Pace::default() });
        return;
    };
    let close = samples.len() > 1
        && samples.get(samples.len() - 2).is_some_and(|before| last.at.since(before.at) < limits::BURN_STEP);
    if close {
        samples.pop_back();
    }
    samples.push_back(Sample { at: now, spent: last.spent.each(spent, i64::saturating_add) });
    let old = |samples: &VecDeque<Sample>| {
        samples.len() > limits::BURN_SAMPLES_MAX
            || samples.get(1).is_some_and(|next| now.since(next.at) >= limits::BURN_WINDOW)
    };
    while old(samples) {
        samples.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quartermaster_core::units::{NanoUsd, Tokens};

    const DAY: i64 = 24 * Millis::HOUR.0;
    const TICK: i64 = 5_000;

    fn row(window: &str, start: i64, end: Option<i64>, tokens: u64) -> Balance {
        Balance {
            budget: "demo/team".into(),
            window: window.into(),
            start: Millis(start),
            resets_at: end.map(Millis),
            limit_tokens: Some(Tokens(1_000)),
            limit_nano_usd: None,
            settled: Amount { tokens: Tokens(tokens), nano_usd: NanoUsd(2 * i64::try_from(tokens).unwrap()) },
            held: Amount::default(),
        }
    }

    /// What is said after looks at the rows that `rows` gives for each tick.
    fn watch(ticks: i64, rows: impl Fn(i64) -> Vec<Balance>) -> Option<Pace> {
        let (mut burn, mut before) = (Burn::default(), None::<(Vec<Balance>, Millis)>);
        for tick in 0..ticks {
            let (now, rows) = (Millis(tick * TICK), rows(tick));
            burn.note(before.as_ref().map(|(rows, at)| (rows.as_slice(), *at)), &rows, now);
            assert!(burn.0.values().all(|samples| samples.len() <= limits::BURN_SAMPLES_MAX));
            before = Some((rows, now));
        }
        let (rows, _) = before?;
        burn.an_hour("demo/team", &rows.iter().collect::<Vec<_>>())
    }

    fn tokens(pace: Option<Pace>) -> Option<i64> {
        pace.map(|pace| pace.tokens)
    }

    fn count(tick: i64) -> u64 {
        u64::try_from(tick).unwrap()
    }

    #[test]
    fn a_steady_budget_burns_steadily() {
        let daily = |tick: i64| vec![row("day", 0, Some(DAY), 10 * count(tick))];
        assert_eq!(watch(12, daily), None, "watched for less than a minute");
        // 10 tokens every 5 s.
        assert_eq!(watch(13, daily), Some(Pace { tokens: 7_200, nano_usd: 14_400 }));
        assert_eq!(tokens(watch(1_000, daily)), Some(7_200));
    }

    #[test]
    fn what_is_long_past_does_not_burn_any_more() {
        let stops = |tick: i64| vec![row("day", 0, Some(DAY), 10 * count(tick.min(180)))];
        assert_eq!(tokens(watch(181 + 90, stops)), Some(3_600), "half of 15 minutes");
        assert_eq!(tokens(watch(181 + 190, stops)), Some(0));
    }

    #[test]
    fn a_turn_hides_nothing_that_another_window_shows() {
        let minute = |tick: i64| {
            let start = tick.div_euclid(12) * 60_000;
            row("minute", start, Some(start + 60_000), 10 * count(tick.rem_euclid(12)))
        };
        let both = |tick: i64| vec![minute(tick), row("day", 0, Some(DAY), 10 * count(tick))];
        assert_eq!(tokens(watch(61, both)), Some(7_200));
        let alone = tokens(watch(61, |tick| vec![minute(tick)])).unwrap();
        assert!((6_000..7_200).contains(&alone), "rather too little: {alone}");
    }

    #[test]
    fn a_short_rolling_window_says_it_by_itself() {
        // 120 tokens a minute come and go.
        let rolling = |tick: i64| vec![row("minute", tick * TICK - 60_000, None, 120)];
        assert_eq!(tokens(watch(100, rolling)), Some(7_200));
        let long = |tick: i64| vec![row("day", tick * TICK - DAY, None, 500 + 10 * count(tick))];
        assert_eq!(tokens(watch(100, long)), Some(7_200));
    }

    #[test]
    fn another_period_or_a_silent_ledger_is_no_spending() {
        // From an hour that began just now to the day so far.
        let changed = |tick: i64| match tick {
            ..50 => vec![row("w", 0, Some(Millis::HOUR.0), 5)],
            _ => vec![row("w", -DAY / 2, Some(DAY / 2), 900)],
        };
        assert_eq!(tokens(watch(63, changed)), Some(0));
        let longer = |tick: i64| match tick {
            ..50 => vec![row("w", tick * TICK - Millis::HOUR.0, None, 5)],
            _ => vec![row("w", tick * TICK - DAY, None, 900)],
        };
        assert_eq!(tokens(watch(63, longer)), Some(0));
        assert_eq!(watch(2, |tick| if tick == 0 { vec![] } else { vec![row("w", 0, Some(DAY), 900)] }), None);
    }

    #[test]
    fn a_budget_that_is_gone_is_forgotten() {
        let mut burn = Burn::default();
        burn.note(None, &[row("day", 0, Some(DAY), 1)], Millis(0));
        burn.note(None, &[], Millis(TICK));
        assert!(burn.0.is_empty());
    }
}
