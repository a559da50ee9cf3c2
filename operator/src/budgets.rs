//! Token budgets: what the ledger is told, whose keys pay where, and what is wrong with a budget.

use crate::{limits, names};
use kube::ResourceExt;
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::ledger::{Budget, Period, Window};
use quartermaster_crds::condition::Reason;
use quartermaster_crds::v1alpha1::TokenBudget;
use quartermaster_crds::v1alpha1::token_budget::Window as WindowSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Budgets as watched, by `namespace/name`.
pub type Objects = BTreeMap<String, Arc<TokenBudget>>;

/// What is wrong with a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The condition's reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// Budgets that pay for a key of `id`, from itself to the root. A broken hierarchy grants nothing: its chain ends with a
/// name that no budget has, be it that of a parent that does not exist, and the ledger refuses what it does not know.
pub fn chain(budgets: &Objects, id: &str) -> (Vec<String>, Option<Fault>) {
    let mut chain: Vec<String> = Vec::new();
    let mut next = Some(id.to_owned());
    while let Some(id) = next.take() {
        if chain.contains(&id) {
            let message = format!("spec.parent: the parents form a circle: {} → {id}", chain.join(" → "));
            chain.push(format!("{id} (circle)"));
            return (chain, Some(Fault { reason: Reason::ParentCycle, message }));
        }
        if chain.len() >= limits::BUDGET_DEPTH_MAX {
            let message = format!("spec.parent: more than {} budgets above each other", limits::BUDGET_DEPTH_MAX);
            // Without it the budgets above would be overspent unseen.
            chain.push(format!("{id} (too deep)"));
            return (chain, Some(Fault { reason: Reason::InvalidSpec, message }));
        }
        chain.push(id.clone());
        let Some(budget) = budgets.get(&id) else {
            let message = format!("spec.parent: there is no TokenBudget {id}; nothing is granted until there is");
            return (chain, Some(Fault { reason: Reason::ParentNotFound, message }));
        };
        next = match parent(budgets, budget) {
            Parent::None => None,
            Parent::Allowed(id) => Some(id),
            Parent::Refused(id, fault) => {
                // A name that no budget has: nothing is charged to a parent that did not agree, and nothing granted.
                chain.push(format!("{id} (refused)"));
                return (chain, Some(fault));
            }
        };
    }
    (chain, None)
}

enum Parent {
    None,
    Allowed(String),
    Refused(String, Fault),
}

/// The parent of a budget; one in another namespace must list the child's.
fn parent(budgets: &Objects, budget: &TokenBudget) -> Parent {
    let Some(parent) = &budget.spec.parent else { return Parent::None };
    let own = budget.namespace().unwrap_or_default();
    let namespace = parent.namespace.clone().unwrap_or_else(|| own.clone());
    let id = names::key(&namespace, &parent.name);
    let allows = |found: &Arc<TokenBudget>| found.spec.allowed_namespaces.contains(&own);
    if namespace == own || budgets.get(&id).is_none_or(allows) {
        return Parent::Allowed(id);
    }
    let message = format!("spec.parent: TokenBudget {id} does not list namespace {own} in spec.allowedNamespaces");
    Parent::Refused(id, Fault { reason: Reason::ParentNotFound, message })
}

/// The budgets for the ledger, and what is wrong with those that it can't be told. The ledger takes all or none, so what
/// it would refuse is left out here, and only that budget grants nothing.
#[must_use]
pub fn for_ledger(objects: &Objects) -> (Vec<Budget>, BTreeMap<String, Fault>) {
    let mut faults = BTreeMap::new();
    let mut budgets = Vec::new();
    for (id, object) in objects.iter().filter(|(_, object)| object.metadata.deletion_timestamp.is_none()) {
        match windows(&object.spec.windows) {
            Ok(_) if budgets.len() >= limits::LEDGER_BUDGETS_MAX => {
                let message = format!("there are more than {} TokenBudgets", limits::LEDGER_BUDGETS_MAX);
                faults.insert(id.clone(), Fault { reason: Reason::InvalidSpec, message });
            }
            Ok(windows) => budgets.push(Budget { id: id.clone(), windows }),
            // Left out, so that it grants nothing.
            Err(message) => drop(faults.insert(id.clone(), Fault { reason: Reason::InvalidSpec, message })),
        }
        if let (_, Some(fault)) = chain(objects, id) {
            faults.entry(id.clone()).or_insert(fault);
        }
    }
    (budgets, faults)
}

/// The windows, within the bounds of the ledger.
fn windows(specs: &[WindowSpec]) -> Result<Vec<Window>, String> {
    if specs.len() > limits::LEDGER_WINDOWS_MAX {
        return Err(format!("spec.windows: more than {} windows", limits::LEDGER_WINDOWS_MAX));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = specs.iter().find(|spec| !names.insert(&spec.name)) {
        return Err(format!("spec.windows[{}].name: there are two windows of that name", twice.name));
    }
    specs.iter().map(window).collect()
}

fn window(spec: &WindowSpec) -> Result<Window, String> {
    let field = |name: &str| format!("spec.windows[{}].{name}", spec.name);
    let period = match (&spec.period, &spec.rolling) {
        (Some(period), _) => {
            let (unit, time_zone) = (crate::state::snapshot::unit(*period), spec.zone().to_owned());
            crate::calendar::period(unit, &time_zone, Millis::ZERO)
                .map_err(|error| format!("{}: {error}", field("timeZone")))?;
            Period::Calendar { unit, time_zone }
        }
        (None, Some(rolling)) => {
            let millis = rolling.millis().map_err(|error| format!("{}: {error}", field("rolling")))?;
            let length = i64::try_from(millis).map_or(Millis(i64::MAX), Millis);
            if length < Millis(1) || length > limits::LEDGER_ROLLING_MAX {
                let hours = limits::LEDGER_ROLLING_MAX.0 / Millis::HOUR.0;
                return Err(format!("{}: {} is not between 1ms and {hours}h", field("rolling"), rolling.0));
            }
            Period::Rolling { length }
        }
        (None, None) => return Err(format!("{} or rolling is needed", field("period"))),
    };
    let tokens = spec.tokens.map(|tokens| Tokens(u64::try_from(tokens).unwrap_or(0)));
    let amount = spec.amount.as_ref().map(|amount| amount.nanos().map(NanoUsd));
    let nano_usd = amount.transpose().map_err(|error| format!("{}: {error}", field("amount")))?;
    if nano_usd.is_some_and(|amount| amount < NanoUsd::ZERO) {
        return Err(format!("{} is below zero", field("amount")));
    }
    Ok(Window { name: spec.name.clone(), period, tokens, nano_usd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::budget;
    use quartermaster_core::wire::ledger::CalendarUnit;

    fn objects(budgets: Vec<TokenBudget>) -> Objects {
        let keyed = budgets.into_iter().map(|b| (names::key(&b.namespace().unwrap(), &b.name_any()), Arc::new(b)));
        keyed.collect()
    }

    #[test]
    fn a_key_pays_from_leaf_to_root() {
        let all = objects(vec![
            budget("demo", "leaf", "key", Some("team")),
            budget("demo", "team", "none", Some("org")),
            budget("demo", "org", "none", None),
        ]);
        assert_eq!(chain(&all, "demo/leaf"), (vec!["demo/leaf".into(), "demo/team".into(), "demo/org".into()], None));
    }

    #[test]
    fn a_broken_hierarchy_is_named_and_grants_nothing() {
        let all = objects(vec![budget("demo", "a", "k", Some("b")), budget("demo", "b", "k", Some("a"))]);
        let (ids, fault) = chain(&all, "demo/a");
        assert_eq!(ids, ["demo/a", "demo/b", "demo/a (circle)"]);
        assert_eq!(fault.unwrap().reason, Reason::ParentCycle);
        let all = objects(vec![budget("demo", "a", "k", Some("gone"))]);
        let (ids, fault) = chain(&all, "demo/a");
        assert_eq!(
            (ids.last().map(String::as_str), fault.unwrap().reason),
            (Some("demo/gone"), Reason::ParentNotFound)
        );
    }

    #[test]
    fn a_chain_that_is_too_long_grants_nothing() {
        let name = |at: usize| format!("b{at}");
        let most = limits::BUDGET_DEPTH_MAX;
        let all = |count: usize| {
            let above = |at: usize| (at + 1 < count).then(|| name(at + 1));
            objects((0..count).map(|at| budget("demo", &name(at), "k", above(at).as_deref())).collect())
        };
        let (ids, fault) = chain(&all(most), "demo/b0");
        assert_eq!((ids.len(), fault), (most, None));
        let all = all(most + 1);
        let (ids, fault) = chain(&all, "demo/b0");
        assert_eq!((ids.len(), fault.unwrap().reason), (most + 1, Reason::InvalidSpec));
        assert!(!all.contains_key(ids.last().unwrap()), "{ids:?}");
        assert_eq!(chain(&all, "demo/b1").1, None, "one below the root fewer");
    }

    #[test]
    fn a_parent_elsewhere_must_agree() {
        let mut leaf = budget("demo", "leaf", "k", Some("team"));
        leaf.spec.parent.as_mut().unwrap().namespace = Some("teams".into());
        let mut team = budget("teams", "team", "none", None);
        let refused = chain(&objects(vec![leaf.clone(), team.clone()]), "demo/leaf");
        assert_eq!(refused.0[1], "teams/team (refused)");
        assert!(refused.1.unwrap().message.contains("allowedNamespaces"));
        team.spec.allowed_namespaces = vec!["demo".into()];
        let agreed = chain(&objects(vec![leaf, team]), "demo/leaf");
        assert_eq!(agreed, (vec!["demo/leaf".into(), "teams/team".into()], None));
    }

    #[test]
    fn the_ledger_hears_of_windows_and_not_of_broken_ones() {
        let mut bad = budget("demo", "bad", "k", None);
        bad.spec.windows[0].time_zone = Some("Mars/Olympus".into());
        let (budgets, faults) = for_ledger(&objects(vec![budget("demo", "good", "k", None), bad]));
        let window = Window {
            name: "hourly".into(),
            period: Period::Calendar { unit: CalendarUnit::Hour, time_zone: "UTC".into() },
            tokens: Some(Tokens(1000)),
            nano_usd: None,
        };
        assert_eq!(budgets, [Budget { id: "demo/good".into(), windows: vec![window] }]);
        assert!(faults["demo/bad"].message.contains("spec.windows[hourly].timeZone"), "{faults:?}");
    }

    #[test]
    fn what_the_ledger_would_refuse_keeps_no_other_budget_from_it() {
        let rolling = |length: &str| {
            let mut budget = budget("demo", "odd", "k", None);
            (budget.spec.windows[0].period, budget.spec.windows[0].rolling) = (None, Some(length.into()));
            budget
        };
        let mut twice = budget("demo", "odd", "k", None);
        twice.spec.windows.push(twice.spec.windows[0].clone());
        let mut many = budget("demo", "odd", "k", None);
        many.spec.windows = vec![many.spec.windows[0].clone(); limits::LEDGER_WINDOWS_MAX + 1];
        let too_long = ["87841h", "9223372036854775808ms"].map(rolling);
        for odd in too_long.into_iter().chain([rolling("0s"), twice, many]) {
            let (budgets, faults) = for_ledger(&objects(vec![budget("demo", "good", "k", None), odd]));
            assert_eq!(budgets.iter().map(|budget| budget.id.as_str()).collect::<Vec<_>>(), ["demo/good"]);
            assert_eq!(faults["demo/odd"].reason, Reason::InvalidSpec);
            assert!(faults["demo/odd"].message.starts_with("spec.windows"), "{faults:?}");
        }
        let (budgets, faults) = for_ledger(&objects(vec![rolling("87840h")]));
        assert_eq!((budgets.len(), faults.len()), (1, 0), "as long as can be");
    }
}
