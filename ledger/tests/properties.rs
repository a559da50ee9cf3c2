//! Random interleavings against a model that adds up single attempts, after every step.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{Book, LEASE, amount, budget, day, hour, settle, window};
use proptest::prelude::*;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Budget, Done, Period, Reserve, Reserved, Window};
use quartermaster_ledger::commands::Command;
use quartermaster_ledger::window as windows;
use std::collections::BTreeMap;

const BUDGETS: [&str; 3] = ["demo/key", "demo/team", "demo/root"];

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        id: u8,
        budgets: usize,
        want: (u64, i64),
        part: u64,
    },
    Settle {
        id: u8,
        tokens: u64,
        nano: i64,
    },
    /// What its hold affords, as the gateway does it.
    SettleWithin {
        id: u8,
        percent: u64,
    },
    Release {
        id: u8,
    },
    Extend {
        id: u8,
    },
    Limit {
        budget: usize,
        tokens: u64,
    },
    Period {
        budget: usize,
        rolling: bool,
    },
    Pass(i64),
    Lapse,
}

fn any_step(debt: bool) -> impl Strategy<Value = Step> {
    let id = || 0u8..25;
    let reserve = (id(), 1usize..=3, (0u64..300, 0i64..300), 0u64..=100)
        .prop_map(|(id, budgets, want, part)| Step::Reserve { id, budgets, want, part });
    let within = (id(), 0u64..=100).prop_map(|(id, percent)| Step::SettleWithin { id, percent });
    let time = prop_oneof![1i64..10_000, Just(LEASE.0), Just(Millis::HOUR.0), Just(90_000_000)].prop_map(Step::Pass);
    let others = prop_oneof![
        id().prop_map(|id| Step::Release { id }),
        id().prop_map(|id| Step::Extend { id }),
        Just(Step::Lapse),
        time,
    ];
    if !debt {
        return prop_oneof![6 => reserve, 4 => within, 3 => others].boxed();
    }
    let settle = (id(), 0u64..600, 0i64..600).prop_map(|(id, tokens, nano)| Step::Settle { id, tokens, nano });
    let limit = (0usize..3, 0u64..1500).prop_map(|(budget, tokens)| Step::Limit { budget, tokens });
    let period = (0usize..3, any::<bool>()).prop_map(|(budget, rolling)| Step::Period { budget, rolling });
    prop_oneof![6 => reserve, 3 => within, 2 => settle, 4 => others, 1 => limit, 1 => period].boxed()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    Open { lapses_at: Millis },
    Charged { final_: bool },
    Released,
}

#[derive(Clone, Debug)]
struct Single {
    budgets: usize,
    reserved_at: Millis,
    held: (u64, i64),
    charged: (u64, i64),
    stands: Stands,
}

struct Model {
    singles: BTreeMap<u8, Single>,
    budgets: Vec<Budget>,
}

impl Model {
    fn new() -> Self {
        let windows =
            |tokens, nano| vec![window("tokens", day(), Some(tokens), None), window("money", hour(), None, Some(nano))];
        let limits = [(700, 900), (1000, 700), (1500, 1200)];
        let budgets = BUDGETS.iter().zip(limits).map(|(id, (t, n))| budget(id, windows(t, n))).collect();
        Self { singles: BTreeMap::new(), budgets }
    }

    /// Settled and held of a window, added up attempt by attempt.
    fn sums(&self, at: usize, window: &Window, now: Millis) -> [(i64, i64); 2] {
        let first = windows::span(&window.period, now).expect("a span").first_slot;
        let mut sums = [(0, 0), (0, 0)];
        for single in self.singles.values() {
            let slot = windows::slot(&window.period, single.reserved_at).expect("a slot");
            if single.budgets <= at || slot < first {
                continue;
            }
            let (settled, held) = match single.stands {
                Stands::Open { .. } => ((0, 0), single.held),
                Stands::Charged { .. } => (single.charged, (0, 0)),
                Stands::Released => ((0, 0), (0, 0)),
            };
            for (sum, part) in sums.iter_mut().zip([settled, held]) {
                *sum = (sum.0 + i64::try_from(part.0).expect("small"), sum.1 + part.1);
            }
        }
        sums
    }

    /// The least that is free of each unit, over the windows of the first `count` budgets.
    fn free(&self, count: usize, now: Millis) -> (Option<i64>, Option<i64>) {
        let mut free = (None::<i64>, None::<i64>);
        for (at, budget) in self.budgets.iter().enumerate().take(count) {
            for window in &budget.windows {
                let [settled, held] = self.sums(at, window, now);
                if let Some(limit) = window.tokens {
                    let left = i64::try_from(limit.0).expect("small") - settled.0 - held.0;
                    free.0 = Some(free.0.map_or(left, |free| free.min(left)));
                }
                if let Some(limit) = window.nano_usd {
                    let left = limit.0 - settled.1 - held.1;
                    free.1 = Some(free.1.map_or(left, |free| free.min(left)));
                }
            }
        }
        free
    }
}

struct Run {
    book: Book,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let model = Model::new();
        Self { book: Book::new(model.budgets.clone()), model }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reserve { id, budgets, want, part } => self.reserve(id, budgets, want, part)?,
            Step::Settle { id, tokens, nano } => self.settle(id, (tokens, nano))?,
            Step::SettleWithin { id, percent } => {
                if let Some(single) = self.model.singles.get(&id) {
                    let share =
                        (single.held.0 * percent / 100, single.held.1 * i64::try_from(percent).expect("small") / 100);
                    self.settle(id, share)?;
                }
            }
            Step::Release { id } => self.release(id)?,
            Step::Extend { id } => self.extend(id)?,
            Step::Limit { budget, tokens } => {
                self.model.budgets[budget].windows[0].tokens = Some(quartermaster_core::units::Tokens(tokens));
                self.book.budgets(1, self.model.budgets.clone()).expect("budgets");
            }
            Step::Period { budget, rolling } => {
                let period: Period = if rolling { hour() } else { day() };
                self.model.budgets[budget].windows[0].period = period;
                self.book.budgets(1, self.model.budgets.clone()).expect("budgets");
            }
            Step::Pass(time) => self.book.pass(Millis(time)),
            Step::Lapse => self.lapse(),
        }
        self.check()
    }

    fn reserve(&mut self, id: u8, budgets: usize, want: (u64, i64), part: u64) -> Result<(), TestCaseError> {
        let at_least = (want.0 * part / 100, want.1 * i64::try_from(part).expect("small") / 100);
        let ask = Reserve {
            attempt: id.to_string(),
            budgets: BUDGETS[..budgets].iter().map(|&id| id.to_owned()).collect(),
            want: amount(want.0, want.1),
            at_least: amount(at_least.0, at_least.1),
            lease: LEASE,
        };
        let (free, before) = (self.model.free(budgets, self.book.now), self.model.singles.get(&id).cloned());
        let answer = self.book.reserve(ask.clone());
        if before.is_some() {
            // The same id: the same grant, or a conflict; never another hold. `check` sees to that.
            prop_assert!(!matches!(answer, Ok(Reserved::Exhausted(_))));
            return Ok(());
        }
        let room = |free: Option<i64>, want: i64| if want == 0 { 0 } else { free.map_or(want, |free| free.min(want)) };
        let fits = (room(free.0, i64::try_from(want.0).expect("small")), room(free.1, want.1));
        let enough = (want.0 == 0 || fits.0 >= i64::try_from(at_least.0).expect("small"))
            && (want.1 == 0 || fits.1 >= at_least.1);
        match answer.expect("an answer") {
            Reserved::Granted { held } => {
                prop_assert!(enough, "granted {held:?} with {free:?} free");
                let held = (held.tokens.0, held.nano_usd.0);
                prop_assert_eq!((i64::try_from(held.0).expect("small"), held.1), fits);
                let stands = Stands::Open { lapses_at: self.book.now.saturating_add(LEASE) };
                let single = Single { budgets, reserved_at: self.book.now, held, charged: (0, 0), stands };
                self.model.singles.insert(id, single);
                prop_assert_eq!(
                    self.book.reserve(ask).expect("again"),
                    Reserved::Granted { held: amount(held.0, held.1) }
                );
            }
            Reserved::Exhausted(said) => prop_assert!(!enough, "{said:?} with {free:?} free for {at_least:?}"),
        }
        Ok(())
    }

    fn settle(&mut self, id: u8, actual: (u64, i64)) -> Result<(), TestCaseError> {
        let command = Command::Settle(settle(&id.to_string(), actual.0, actual.1));
        let answer = self.book.done(command.clone());
        let again = self.book.done(command).ok();
        let Some(single) = self.model.singles.get_mut(&id) else {
            let (reserved_at, stands) = (self.book.now, Stands::Charged { final_: true });
            let single = Single { budgets: 0, reserved_at, held: (0, 0), charged: actual, stands };
            self.model.singles.insert(id, single);
            prop_assert_eq!((answer.ok(), again), (Some(Done::Unknown), Some(Done::AlreadyDone)));
            return Ok(());
        };
        match single.stands {
            Stands::Released => prop_assert!(answer.is_err()),
            Stands::Charged { final_: true } if single.charged != actual => prop_assert!(answer.is_err()),
            Stands::Charged { final_: true } => prop_assert_eq!(answer.ok(), Some(Done::AlreadyDone)),
            _ => {
                prop_assert_eq!((answer.ok(), again), (Some(Done::Applied), Some(Done::AlreadyDone)));
                (single.charged, single.stands) = (actual, Stands::Charged { final_: true });
            }
        }
        Ok(())
    }

    fn release(&mut self, id: u8) -> Result<(), TestCaseError> {
        let answer = self.book.release(&id.to_string());
        let now = self.book.now;
        let Some(single) = self.model.singles.get_mut(&id) else {
            let single =
                Single { budgets: 0, reserved_at: now, held: (0, 0), charged: (0, 0), stands: Stands::Released };
            self.model.singles.insert(id, single);
            prop_assert_eq!(answer.ok(), Some(Done::Unknown));
            return Ok(());
        };
        match single.stands {
            Stands::Released => prop_assert_eq!(answer.ok(), Some(Done::AlreadyDone)),
            Stands::Charged { final_: true } => prop_assert!(answer.is_err()),
            _ => {
                prop_assert_eq!(answer.ok(), Some(Done::Applied));
                (single.charged, single.stands) = ((0, 0), Stands::Released);
            }
        }
        Ok(())
    }

    fn extend(&mut self, id: u8) -> Result<(), TestCaseError> {
        let answer = self.book.extend(&id.to_string(), None).expect("an answer");
        let lapses_at = self.book.now.saturating_add(LEASE);
        match self.model.singles.get_mut(&id).map(|single| &mut single.stands) {
            Some(Stands::Open { lapses_at: old }) => {
                *old = lapses_at;
                prop_assert_eq!(answer, Done::Applied);
            }
            _ => prop_assert_eq!(answer, Done::Unknown),
        }
        Ok(())
    }

    fn lapse(&mut self) {
        let now = self.book.now;
        self.book.lapse();
        for single in self.model.singles.values_mut() {
            if matches!(single.stands, Stands::Open { lapses_at } if lapses_at <= now) {
                (single.charged, single.stands) = (single.held, Stands::Charged { final_: false });
            }
        }
    }

    /// Every window's sums are those of its attempts, and the usage rows add up to the same.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let now = self.book.now;
        let mut rows: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for row in self.book.rows() {
            let sum = rows.entry(row.attempt).or_default();
            *sum = (sum.0 + row.tokens, sum.1 + row.nano_usd.0);
        }
        for (id, single) in &self.model.singles {
            let charged = (i64::try_from(single.charged.0).expect("small"), single.charged.1);
            prop_assert_eq!(rows.get(&id.to_string()).copied().unwrap_or_default(), charged, "rows of {}", id);
        }
        let balances = self.book.balances();
        for balance in &balances {
            let at = BUDGETS.iter().position(|id| *id == balance.budget).expect("a budget");
            let window =
                self.model.budgets[at].windows.iter().find(|window| window.name == balance.window).expect("a window");
            let [settled, held] = self.model.sums(at, window, now);
            let stored = |of: quartermaster_core::wire::ledger::Amount| {
                (i64::try_from(of.tokens.0).expect("small"), of.nano_usd.0)
            };
            prop_assert_eq!((stored(balance.settled), stored(balance.held)), (settled, held), "{:?}", balance);
        }
        prop_assert_eq!(balances.len(), 6);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Also with debt, changed limits and changed periods.
    #[test]
    fn the_book_is_the_sum_of_its_attempts(steps in prop::collection::vec(any_step(true), 1..60)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step)?;
        }
    }

    /// Where nobody settles more than was held, no window ever passes its limit.
    #[test]
    fn no_overspend(steps in prop::collection::vec(any_step(false), 1..80)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step)?;
            let free = run.model.free(3, run.book.now);
            prop_assert!(free.0 >= Some(0) && free.1 >= Some(0), "{free:?} is free");
        }
    }
}
