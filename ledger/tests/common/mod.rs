//! A book in memory whose time is in the test's hand.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::ledger::{
    Amount, Attempt, Balance, Budget, Budgets, CalendarUnit, Done, Period, Reserve, Reserved, Settle, Usage, UsageRow,
    Window,
};
use quartermaster_ledger::commands::{self, Command, CommandError, Reply};
use quartermaster_ledger::sqlite::SqliteStore;
use quartermaster_ledger::store::Store as _;

/// 2026-09-21T14:13:20Z, a Monday.
pub const NOW: Millis = Millis(1_790_000_000_000);
pub const LEASE: Millis = Millis(30_000);

pub struct Book {
    pub store: SqliteStore,
    pub now: Millis,
}

impl Book {
    pub fn new(budgets: Vec<Budget>) -> Self {
        let mut book = Self { store: SqliteStore::in_memory().expect("a store"), now: NOW };
        assert_eq!(book.budgets(1, budgets).expect("budgets"), Done::Applied);
        book
    }

    pub fn call(&mut self, command: Command) -> Result<Reply, CommandError> {
        self.store.begin().expect("begin");
        self.store.mark().expect("mark");
        let answer = commands::apply(&mut self.store, &command, self.now);
        match answer {
            Ok(_) => self.store.keep().expect("keep"),
            Err(_) => self.store.undo().expect("undo"),
        }
        self.store.commit().expect("commit");
        answer
    }

    pub fn done(&mut self, command: Command) -> Result<Done, CommandError> {
        match self.call(command)? {
            Reply::Done(done) => Ok(done),
            Reply::Reserved(reserved) => panic!("{reserved:?}"),
        }
    }

    pub fn reserve(&mut self, reserve: Reserve) -> Result<Reserved, CommandError> {
        match self.call(Command::Reserve(reserve))? {
            Reply::Reserved(reserved) => Ok(reserved),
            Reply::Done(done) => panic!("{done:?}"),
        }
    }

    pub fn settle(&mut self, attempt: &str, tokens: u64, nano: i64) -> Result<Done, CommandError> {
        self.done(Command::Settle(settle(attempt, tokens, nano)))
    }

    pub fn release(&mut self, attempt: &str) -> Result<Done, CommandError> {
        self.done(Command::Release(Attempt { attempt: attempt.to_owned(), lease: None }))
    }

    pub fn extend(&mut self, attempt: &str, lease: Option<Millis>) -> Result<Done, CommandError> {
        self.done(Command::Extend(Attempt { attempt: attempt.to_owned(), lease }))
    }

    pub fn budgets(&mut self, epoch: u64, budgets: Vec<Budget>) -> Result<Done, CommandError> {
        self.done(Command::Budgets(Budgets { epoch, budgets }))
    }

    pub fn lapse(&mut self) -> usize {
        self.store.begin().expect("begin");
        let lapsed = commands::lapse(&mut self.store, self.now, 1000).expect("lapse");
        self.store.commit().expect("commit");
        lapsed
    }

    pub fn pass(&mut self, time: Millis) {
        self.now = self.now.saturating_add(time);
    }

    pub fn balances(&mut self) -> Vec<Balance> {
        commands::balances(&mut self.store, self.now).expect("balances")
    }

    /// Tokens settled and held of the first window of `budget`.
    pub fn tokens(&mut self, budget: &str) -> (u64, u64) {
        let balance = self.balances().into_iter().find(|balance| balance.budget == budget).expect("a balance");
        (balance.settled.tokens.0, balance.held.tokens.0)
    }

    pub fn rows(&mut self) -> Vec<UsageRow> {
        self.store.usage(Millis(i64::MIN), 0, 100_000).expect("usage")
    }
}

pub fn amount(tokens: u64, nano: i64) -> Amount {
    Amount { tokens: Tokens(tokens), nano_usd: NanoUsd(nano) }
}

pub fn settle(attempt: &str, tokens: u64, nano: i64) -> Settle {
    let usage = Usage { model: "smol".into(), completion: Tokens(tokens), outcome: "stop".into(), ..Usage::default() };
    Settle { attempt: attempt.to_owned(), actual: amount(tokens, nano), usage }
}

pub fn ask(attempt: &str, budgets: &[&str], want: u64, at_least: u64) -> Reserve {
    Reserve {
        attempt: attempt.to_owned(),
        budgets: budgets.iter().map(|&id| id.to_owned()).collect(),
        want: amount(want, 0),
        at_least: amount(at_least, 0),
        lease: LEASE,
    }
}

pub fn granted(tokens: u64) -> Reserved {
    Reserved::Granted { held: amount(tokens, 0) }
}

pub fn day() -> Period {
    Period::Calendar { unit: CalendarUnit::Day, time_zone: "UTC".to_owned() }
}

pub fn hour() -> Period {
    Period::Rolling { length: Millis::HOUR }
}

pub fn budget(id: &str, windows: Vec<Window>) -> Budget {
    Budget { id: id.to_owned(), windows }
}

pub fn window(name: &str, period: Period, tokens: Option<u64>, nano: Option<i64>) -> Window {
    Window { name: name.to_owned(), period, tokens: tokens.map(Tokens), nano_usd: nano.map(NanoUsd) }
}

/// A budget with one daily window of tokens.
pub fn daily(id: &str, tokens: u64) -> Budget {
    budget(id, vec![window("day", day(), Some(tokens), None)])
}
