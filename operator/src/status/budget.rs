//! Status of a TokenBudget. Pure.

use super::{Conditions, Draft, not_implemented, whole};
use crate::actuate::Note;
use crate::budgets::Fault;
use crate::keys::Keys;
use crate::state::{Burn, Pace};
use crate::{clock, limits};
use k8s_openapi::jiff::Timestamp;
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_core::wire::ledger::Balance as Row;
use quartermaster_crds::condition::{ConditionType, Reason, Status};
use quartermaster_crds::v1alpha1::TokenBudget;
use quartermaster_crds::v1alpha1::token_budget::{TightestWindow, TokenBudgetStatus, WindowAmount, WindowStatus};
use quartermaster_crds::{Balance, Money};
use std::collections::BTreeMap;

/// Everything that the status of one budget is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `namespace/name`.
    pub id: &'a str,
    /// The object.
    pub object: &'a TokenBudget,
    /// Keys of all budgets; none while they could not be read.
    pub keys: Option<&'a Keys>,
    /// What is wrong with budgets.
    pub faults: &'a BTreeMap<String, Fault>,
    /// The ledger's rows; none while it does not answer.
    pub balances: Option<&'a [Row]>,
    /// How fast budgets are spent.
    pub burn: &'a Burn,
    /// Why it does not.
    pub ledger_failed: Option<&'a str>,
    /// Why it has not taken the budgets as they stand.
    pub unsent: Option<&'a str>,
    /// Now.
    pub now: Millis,
}

/// The status, and what to tell.
#[must_use]
pub fn status(facts: &Facts<'_>) -> (TokenBudgetStatus, Vec<Note>) {
    let old = facts.object.status.clone().unwrap_or_default();
    let rows: Option<Vec<&Row>> = facts.balances.map(|rows| in_order(facts, rows));
    let windows = match &rows {
        Some(rows) => rows.iter().map(|row| window(row)).collect(),
        // What was last known stays; the condition says that it is old.
        None => old.windows.clone(),
    };
    let pace = rows.as_ref().and_then(|rows| facts.burn.an_hour(facts.id, rows));
    let forecast = |pace: Pace| {
        let row = tightest_row(rows.as_deref().unwrap_or_default())?;
        exhausted_at(row, pace, facts.now).map(clock::time)
    };
    let mut list = Conditions::new(&old.conditions, facts.object.metadata.generation, facts.now);
    conditions(facts, rows.as_deref(), &mut list);
    let (conditions, notes) = list.finish(&[ConditionType::Stalled, ConditionType::WithinBudget], "Account");
    let found = facts.keys.and_then(|keys| keys.found.get(facts.id)).map(Vec::len);
    let status = TokenBudgetStatus {
        observed_generation: facts.object.metadata.generation,
        conditions,
        keys: found.map(whole).or(old.keys),
        tightest: rows.as_ref().map_or(old.tightest, |rows| tightest(rows)),
        windows,
        burn_rate_tokens_per_hour: pace.map(|pace| pace.tokens).or(old.burn_rate_tokens_per_hour),
        exhausted_at: pace.map_or(old.exhausted_at, forecast),
    };
    (status, notes)
}

/// The draft of the status.
pub fn draft(facts: &Facts<'_>) -> serde_json::Result<Draft> {
    let (status, notes) = status(facts);
    Draft::new(facts.object, facts.object.status.as_ref(), &status, notes)
}

/// The ledger's rows of this budget, in the order of the spec.
fn in_order<'a>(facts: &Facts<'_>, rows: &'a [Row]) -> Vec<&'a Row> {
    let of = |name: &str| rows.iter().find(|row| row.budget == facts.id && row.window == name);
    facts.object.spec.windows.iter().filter_map(|window| of(&window.name)).collect()
}

fn conditions(facts: &Facts<'_>, rows: Option<&[&Row]>, list: &mut Conditions) {
    let fault = fault(facts);
    match &fault {
        Some((Reason::SignalsMissing, message)) => {
            list.set(ConditionType::Ready, Status::Unknown, Reason::SignalsMissing, message);
        }
        Some((reason, message)) => list.set(ConditionType::Ready, Status::False, *reason, message),
        None => list.set(ConditionType::Ready, Status::True, Reason::InForce, "requests are charged"),
    }
    // A Secret may yet appear, a ledger answer; a circle of parents goes by a person's hand only.
    let waits =
        |reason: &Reason| matches!(reason, Reason::SecretNotFound | Reason::ParentNotFound | Reason::SignalsMissing);
    let waiting = fault.clone().filter(|(reason, _)| waits(reason));
    list.fault(ConditionType::Reconciling, waiting, Reason::AsExpected);
    let stuck = fault.filter(|(reason, _)| !waits(reason));
    let stuck = stuck.or_else(|| not_implemented(&facts.object.spec.not_implemented()));
    list.fault(ConditionType::Stalled, stuck, Reason::AsExpected);
    within(facts, rows, list);
}

fn within(facts: &Facts<'_>, rows: Option<&[&Row]>, list: &mut Conditions) {
    let Some(rows) = rows.filter(|rows| !rows.is_empty()) else {
        let why = facts.ledger_failed.unwrap_or("the ledger does not know the budget yet");
        return list.set(ConditionType::WithinBudget, Status::Unknown, Reason::SignalsMissing, why);
    };
    match rows.iter().find(|row| spent(row)) {
        Some(row) => {
            let until = row.resets_at.and_then(utc).map(|at| format!(" until {at}")).unwrap_or_default();
            let message = format!(
                "window {} is spent: {} of {}; requests are refused{until}",
                row.window,
                settled(row),
                limit(row)
            );
            list.set(ConditionType::WithinBudget, Status::False, Reason::BudgetExhausted, &message);
        }
        None => {
            list.set(ConditionType::WithinBudget, Status::True, Reason::BudgetLeft, "every window has something left")
        }
    }
}

/// What keeps the budget from being in force; `SignalsMissing` where that is not known.
fn fault(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let Some(keys) = facts.keys else {
        return Some((Reason::SignalsMissing, "API keys have not been read yet; see the operator's log".to_owned()));
    };
    let unread = || keys.unread.get(facts.id);
    if let Some(fault) = facts.faults.get(facts.id).or_else(unread) {
        return Some((fault.reason, fault.message.clone()));
    }
    let unsent = || {
        let why = facts.unsent?;
        Some((Reason::SignalsMissing, format!("the ledger has not taken the budget as it stands: {why}")))
    };
    of_keys(facts.id, keys).or_else(unsent)
}

/// What is wrong with the keys of a budget.
fn of_keys(id: &str, keys: &Keys) -> Option<(Reason, String)> {
    if let Some(missing) = keys.missing.get(id) {
        return Some((Reason::SecretNotFound, missing.join("; ")));
    }
    let owners = keys.owners();
    let shared = keys.found.get(id)?.iter().find_map(|key| {
        let others = owners.get(key.hash.as_str())?;
        (others.len() > 1).then(|| {
            let all: Vec<&str> = others.iter().copied().collect();
            format!(
                "the key in Secret {} belongs to several budgets ({}); it is accepted by none",
                key.subject,
                all.join(", ")
            )
        })
    });
    shared.map(|message| (Reason::SubjectConflict, message))
}

fn window(row: &Row) -> WindowStatus {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let tokens = row.limit_tokens.map(|limit| {
        let (limit, settled, held) = (count(limit.0), count(row.settled.tokens.0), count(row.held.tokens.0));
        (limit, settled, held, limit.saturating_sub(settled).saturating_sub(held))
    });
    let money = |amount: NanoUsd| Money::from_nanos(amount.0);
    WindowStatus {
        name: row.window.clone(),
        limit: tokens.map(|tokens| tokens.0),
        settled: tokens.map(|tokens| tokens.1),
        held: tokens.map(|tokens| tokens.2),
        free: tokens.map(|tokens| tokens.3),
        amount: row.limit_nano_usd.map(|limit| WindowAmount {
            limit: money(limit),
            settled: money(row.settled.nano_usd),
            held: money(row.held.nano_usd),
            free: Balance::from_nanos(limit.saturating_sub(row.settled.nano_usd).saturating_sub(row.held.nano_usd).0),
        }),
        // The start of a rolling window moves with every look; only a calendar's stands still.
        window_start: row.resets_at.map(|_| clock::time(row.start)),
        resets_at: row.resets_at.map(clock::time),
    }
}

/// Used parts per thousand of a row, by the tighter of its limits.
fn used(row: &Row) -> i128 {
    let share = |used: i128, limit: i128| if limit <= 0 { 1_000 } else { used * 1_000 / limit };
    let tokens = row.limit_tokens.map(|limit| share(row.settled.tokens.0.into(), limit.0.into()));
    let money = row.limit_nano_usd.map(|limit| share(row.settled.nano_usd.0.into(), limit.0.into()));
    tokens.into_iter().chain(money).max().unwrap_or(0)
}

/// So little is left that hardly a request fits.
fn spent(row: &Row) -> bool {
    used(row) >= 1_000 - limits::BUDGET_LEFT_PER_MILLE
}

fn settled(row: &Row) -> String {
    row.limit_tokens.map_or_else(|| format!("${}", row.settled.nano_usd), |_| row.settled.tokens.to_string())
}

fn limit(row: &Row) -> String {
    let money = || row.limit_nano_usd.map(|limit| format!("${limit}"));
    row.limit_tokens.map(|limit| limit.to_string()).or_else(money).unwrap_or_default()
}

/// When a window will be spent at a pace; none where it turns before, or has nothing left already.
fn exhausted_at(row: &Row, pace: Pace, now: Millis) -> Option<Millis> {
    let length = now.since(row.start);
    let spent = |limit: i128, settled: i128, an_hour: i64| {
        let (left, an_hour, hour) = (limit - settled, i128::from(an_hour), i128::from(Millis::HOUR.0));
        if left <= 0 || an_hour <= 0 {
            return None;
        }
        let at = now.saturating_add(Millis(i64::try_from(left * hour / an_hour).unwrap_or(i64::MAX)));
        // What a rolling window holds at a steady pace is what comes in its length.
        let ever = row.resets_at.map_or(an_hour * i128::from(length.0) > limit * hour, |end| at < end);
        ever.then_some(at)
    };
    let tokens = row.limit_tokens.and_then(|limit| spent(limit.0.into(), row.settled.tokens.0.into(), pace.tokens));
    let money = |limit: NanoUsd| spent(limit.0.into(), row.settled.nano_usd.0.into(), pace.nano_usd);
    tokens.into_iter().chain(row.limit_nano_usd.and_then(money)).min()
}

fn tightest_row<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    // The first of equals, as the spec orders them.
    rows.iter().rev().max_by_key(|row| used(row)).copied()
}

fn tightest(rows: &[&Row]) -> Option<TightestWindow> {
    let row = tightest_row(rows)?;
    let held = row.limit_tokens.map_or_else(|| format!("${}", row.held.nano_usd), |_| row.held.tokens.to_string());
    Some(TightestWindow {
        window: row.window.clone(),
        settled: settled(row),
        limit: limit(row),
        held,
        resets_at: row.resets_at.and_then(utc),
    })
}

fn utc(at: Millis) -> Option<String> {
    Timestamp::from_millisecond(at.0).ok().map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Found;
    use crate::state::fixtures::budget;
    use quartermaster_core::units::Tokens;
    use quartermaster_core::wire::ledger::Amount;
    use quartermaster_crds::condition::get;

    fn row(settled: u64) -> Row {
        Row {
            budget: "demo/leaf".into(),
            window: "hourly".into(),
            start: Millis(3_600_000),
            resets_at: Some(Millis(7_200_000)),
            limit_tokens: Some(Tokens(1000)),
            limit_nano_usd: None,
            settled: Amount { tokens: Tokens(settled), nano_usd: NanoUsd::ZERO },
            held: Amount { tokens: Tokens(40), nano_usd: NanoUsd::ZERO },
        }
    }

    fn of_facts(keys: Option<&Keys>, unsent: Option<&str>) -> TokenBudgetStatus {
        let (object, faults, rows) = (budget("demo", "leaf", "team-key", None), BTreeMap::new(), [row(0)]);
        let facts = Facts {
            id: "demo/leaf",
            object: &object,
            keys,
            faults: &faults,
            balances: Some(&rows),
            burn: &Burn::default(),
            ledger_failed: None,
            unsent,
            now: Millis(4_000_000),
        };
        status(&facts).0
    }

    #[test]
    fn what_is_not_known_is_not_ready() {
        let known = keys(&["demo/leaf"]);
        for status in [of_facts(None, None), of_facts(Some(&known), Some("it answered 400"))] {
            assert_eq!(reason(&status, ConditionType::Ready), ("Unknown".into(), "SignalsMissing".into()));
            assert_eq!(reason(&status, ConditionType::Reconciling), ("True".into(), "SignalsMissing".into()));
            assert_eq!(reason(&status, ConditionType::Stalled).0, "False");
        }
        let fault = Fault { reason: Reason::InvalidSpec, message: "spec.subjects".into() };
        let unread = Keys { unread: [("demo/leaf".to_owned(), fault)].into(), ..known.clone() };
        assert_eq!(reason(&of_facts(Some(&unread), None), ConditionType::Ready).1, "InvalidSpec");
        assert_eq!(reason(&of_facts(Some(&known), None), ConditionType::Ready).0, "True");
    }

    fn of(keys: &Keys, rows: Option<&[Row]>) -> (TokenBudgetStatus, Vec<Note>) {
        let object = budget("demo", "leaf", "team-key", None);
        let faults = BTreeMap::new();
        status(&Facts {
            id: "demo/leaf",
            object: &object,
            keys: Some(keys),
            faults: &faults,
            balances: rows,
            burn: &Burn::default(),
            ledger_failed: Some("the ledger is away"),
            unsent: None,
            now: Millis(4_000_000),
        })
    }

    fn keys(owners: &[&str]) -> Keys {
        let found = || vec![Found { hash: "h".into(), subject: "demo/team-key".into() }];
        Keys { found: owners.iter().map(|owner| ((*owner).to_owned(), found())).collect(), ..Keys::default() }
    }

    fn reason(status: &TokenBudgetStatus, kind: ConditionType) -> (String, String) {
        let condition = get(&status.conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn a_budget_with_something_left() {
        let (status, notes) = of(&keys(&["demo/leaf"]), Some(&[row(300)]));
        let window = &status.windows[0];
        assert_eq!(
            (window.limit, window.settled, window.held, window.free),
            (Some(1000), Some(300), Some(40), Some(660))
        );
        assert_eq!(reason(&status, ConditionType::WithinBudget), ("True".into(), "BudgetLeft".into()));
        assert_eq!(reason(&status, ConditionType::Ready), ("True".into(), "InForce".into()));
        let tightest = status.tightest.unwrap();
        assert_eq!((tightest.settled.as_str(), tightest.limit.as_str()), ("300", "1000"));
        assert_eq!(tightest.resets_at.as_deref(), Some("1970-01-01 02:00:00Z"));
        assert_eq!(status.keys, Some(1));
        assert!(notes.is_empty());
    }

    /// The status after looks a minute apart, the first of them 10 minutes after the window's start.
    fn watched(mut object: TokenBudget, settled: &[u64], edit: fn(&mut Row, Millis)) -> TokenBudgetStatus {
        let (mut burn, mut before, faults) = (Burn::default(), None::<(Vec<Row>, Millis)>, BTreeMap::new());
        for (minute, settled) in (10..).zip(settled) {
            let now = Millis(3_600_000 + minute * 60_000);
            let mut rows = vec![row(*settled)];
            edit(&mut rows[0], now);
            burn.note(before.as_ref().map(|(rows, at)| (rows.as_slice(), *at)), &rows, now);
            let (facts, _) = status(&Facts {
                id: "demo/leaf",
                object: &object,
                keys: None,
                faults: &faults,
                balances: Some(&rows),
                burn: &burn,
                ledger_failed: None,
                unsent: None,
                now,
            });
            object.status = Some(facts);
            before = Some((rows, now));
        }
        object.status.unwrap()
    }

    fn forecast(settled: &[u64], edit: fn(&mut Row, Millis)) -> (Option<i64>, Option<String>) {
        let status = watched(budget("demo", "leaf", "team-key", None), settled, edit);
        let at = status.exhausted_at.map(|at| utc(clock::millis(&at)).unwrap());
        (status.burn_rate_tokens_per_hour, at)
    }

    #[test]
    fn a_budget_that_will_be_spent_before_its_window_ends_says_when() {
        let at = |text: &str| Some(format!("1970-01-01 {text}Z"));
        assert_eq!(forecast(&[100], |_, _| ()), (None, None), "nothing to compare with");
        // 100 a minute at 01:12: 700 are left for 7 minutes.
        assert_eq!(forecast(&[100, 200, 300], |_, _| ()), (Some(6_000), at("01:19:00")));
        assert_eq!(forecast(&[100, 110, 120], |_, _| ()), (Some(600), None), "the window turns before");
        assert_eq!(forecast(&[300, 300, 300], |_, _| ()), (Some(0), None));
        assert_eq!(forecast(&[900, 950, 1_000], |_, _| ()), (Some(3_000), None), "nothing is left");
    }

    #[test]
    fn money_and_rolling_windows_run_out_too() {
        let money: fn(&mut Row, Millis) = |row, _| {
            (row.limit_tokens, row.limit_nano_usd) = (None, Some(NanoUsd(1_000)));
            row.settled.nano_usd = NanoUsd(i64::try_from(row.settled.tokens.0).unwrap());
        };
        assert_eq!(forecast(&[100, 200, 300], money).1.as_deref(), Some("1970-01-01 01:19:00Z"));
        let rolling: fn(&mut Row, Millis) = |row, now| (row.start, row.resets_at) = (Millis(now.0 - 3_600_000), None);
        assert_eq!(forecast(&[100, 200, 300], rolling).1.as_deref(), Some("1970-01-01 01:19:00Z"));
        assert_eq!(forecast(&[980, 990, 995], rolling).1, None, "as much leaves as comes");
    }

    #[test]
    fn figures_stay_while_the_pace_is_not_known() {
        let mut object = budget("demo", "leaf", "team-key", None);
        object.status = Some(watched(object.clone(), &[100, 200, 300], |_, _| ()));
        let again = watched(object, &[310], |_, _| ());
        assert!(again.burn_rate_tokens_per_hour == Some(6_000) && again.exhausted_at.is_some());
    }

    #[test]
    fn a_spent_budget_says_until_when() {
        let (status, notes) = of(&keys(&["demo/leaf"]), Some(&[row(985)]));
        assert_eq!(reason(&status, ConditionType::WithinBudget), ("False".into(), "BudgetExhausted".into()));
        assert!(
            notes[0].warning && notes[0].message.contains("985 of 1000; requests are refused until 1970-01-01 02:00")
        );
    }

    #[test]
    fn a_silent_ledger_is_unknown_not_zero() {
        let (status, _) = of(&keys(&["demo/leaf"]), None);
        assert_eq!(reason(&status, ConditionType::WithinBudget), ("Unknown".into(), "SignalsMissing".into()));
        assert!(status.windows.is_empty());
    }

    #[test]
    fn missing_and_shared_keys_are_named() {
        let missing = [("demo/leaf".to_owned(), vec!["there is no Secret demo/team-key".to_owned()])].into();
        let (status, _) = of(&Keys { missing, ..Keys::default() }, Some(&[row(0)]));
        assert_eq!(reason(&status, ConditionType::Ready), ("False".into(), "SecretNotFound".into()));
        assert_eq!(reason(&status, ConditionType::Stalled).0, "False", "a Secret may yet appear");
        let (status, _) = of(&keys(&["demo/leaf", "demo/other"]), Some(&[row(0)]));
        assert_eq!(reason(&status, ConditionType::Stalled), ("True".into(), "SubjectConflict".into()));
    }
}
