//! Status of a CostPolicy. Pure.

use super::{Conditions, Draft, not_implemented};
use crate::actuate::Note;
use crate::state::snapshot::{Seen, bound, unit};
use crate::{calendar, clock};
use quartermaster_core::plan::{CeilingPlan, Plan, Reason as PlanReason, Verdict};
use quartermaster_core::snapshot::Ceiling;
use quartermaster_core::units::{Millis, NanoUsd};
use quartermaster_crds::condition::{ConditionType, Reason, Status};
use quartermaster_crds::v1alpha1::CostPolicy;
use quartermaster_crds::v1alpha1::cost_policy::{CeilingStatus, CostPolicyStatus, Mode, TightestCeiling};
use quartermaster_crds::{Balance, Money};

/// Everything that the status of one policy is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `namespace/name`.
    pub key: &'a str,
    /// The object.
    pub object: &'a CostPolicy,
    /// What the plan was made of.
    pub seen: &'a Seen,
    /// The plan.
    pub plan: &'a Plan,
    /// The operator's own namespace.
    pub namespace: &'a str,
    /// Now.
    pub now: Millis,
}

impl<'a> Facts<'a> {
    /// Ceilings of this policy in force, with what the plan makes of them.
    fn ceilings(&self) -> impl Iterator<Item = (&'a Ceiling, &'a CeilingPlan)> {
        let all = self.seen.snapshot.ceilings.iter().zip(&self.plan.ceilings);
        all.filter(move |(ceiling, _)| ceiling.policy == self.key)
    }
}

/// The status, and what to tell.
#[must_use]
pub fn status(facts: &Facts<'_>) -> (CostPolicyStatus, Vec<Note>) {
    let old = facts.object.status.clone().unwrap_or_default();
    let known: Vec<CeilingStatus> = ceilings(facts);
    let unknown = facts.seen.unknown.contains_key(facts.key);
    let mut list = Conditions::new(&old.conditions, facts.object.metadata.generation, facts.now);
    conditions(facts, &mut list);
    let (conditions, notes) = list.finish(&[ConditionType::Stalled, ConditionType::AtCeiling], "Account");
    let status = CostPolicyStatus {
        observed_generation: facts.object.metadata.generation,
        conditions,
        // What was last known stays; the condition says that it is old.
        tightest: if unknown { old.tightest } else { tightest(&known) },
        ceilings: if unknown { old.ceilings } else { known },
        active_rung: None,
    };
    (status, notes)
}

/// The draft of the status.
pub fn draft(facts: &Facts<'_>) -> serde_json::Result<Draft> {
    let (status, notes) = status(facts);
    Draft::new(facts.object, facts.object.status.as_ref(), &status, notes)
}

fn conditions(facts: &Facts<'_>, list: &mut Conditions) {
    let allowed = bound(facts.object, facts.namespace).is_some();
    let unknown = facts.seen.unknown.get(facts.key);
    let scope = (!allowed).then(|| {
        let message = format!(
            "spec.scope Cluster is obeyed in namespace {} only; make it Namespace, or move it there",
            facts.namespace
        );
        (Reason::ScopeNotAllowed, message)
    });
    match (&scope, unknown) {
        (Some((reason, message)), _) => list.set(ConditionType::Ready, Status::False, *reason, message),
        (None, Some(why)) => list.set(ConditionType::Ready, Status::False, Reason::SignalsMissing, why),
        (None, None) => {
            let enforced = facts.object.spec.mode == Mode::Enforce;
            let says =
                if enforced { "the plan stays below every ceiling" } else { "it only observes: nothing is held back" };
            list.set(ConditionType::Ready, Status::True, Reason::InForce, says);
        }
    }
    list.fault(ConditionType::Reconciling, None, Reason::AsExpected);
    let stuck =
        scope.clone().or_else(|| bad_zone(facts)).or_else(|| not_implemented(&facts.object.spec.not_implemented()));
    list.fault(ConditionType::Stalled, stuck, Reason::AsExpected);
    match unknown {
        Some(why) => list.set(ConditionType::AtCeiling, Status::Unknown, Reason::SignalsMissing, why),
        None => list.fault(ConditionType::AtCeiling, at_ceiling(facts), Reason::BelowCeiling),
    }
}

fn bad_zone(facts: &Facts<'_>) -> Option<(Reason, String)> {
    facts.object.spec.ceilings.iter().find_map(|ceiling| {
        let error = calendar::period(unit(ceiling.period.into()), &ceiling.time_zone, facts.now).err()?;
        Some((Reason::InvalidSpec, format!("spec.ceilings[{:?}]: {error}", ceiling.period)))
    })
}

fn at_ceiling(facts: &Facts<'_>) -> Option<(Reason, String)> {
    for (ceiling, plan) in facts.ceilings() {
        let (period, amount) = (&ceiling.period, ceiling.amount);
        if ceiling.settled >= ceiling.amount {
            return Some((Reason::PeriodSpent, format!("the {amount} USD of this {period} are spent")));
        }
        if plan.committed_above {
            let message =
                format!("{} USD are projected for this {period}, the ceiling is {amount} USD", plan.projected);
            return Some((Reason::CommittedAboveCeiling, message));
        }
    }
    facts.plan.models.iter().find_map(|(key, model)| {
        if matches!(&model.reason, PlanReason::AtCeiling { policy, .. } if policy == facts.key) {
            return Some((Reason::CeilingReached, format!("{key}: {}", model.reason)));
        }
        let held_back =
            |verdict: &Verdict| matches!(verdict, Verdict::OverCeiling { policy, .. } if policy == facts.key);
        let over = model.considered.iter().find(|each| held_back(&each.verdict))?;
        Some((Reason::CeilingReached, format!("{key}: {}", over.verdict)))
    })
}

fn ceilings(facts: &Facts<'_>) -> Vec<CeilingStatus> {
    let each = facts.object.spec.ceilings.iter().filter_map(|spec| {
        let name = format!("{:?}", spec.period);
        let (ceiling, plan) = facts.ceilings().find(|(ceiling, _)| ceiling.period == name)?;
        let (start, end) = calendar::period(unit(spec.period.into()), &spec.time_zone, facts.now).ok()?;
        Some(CeilingStatus {
            period: spec.period,
            amount: spec.amount.clone(),
            settled: money(ceiling.settled),
            projected: money(plan.projected),
            headroom: Balance::from_nanos(ceiling.amount.saturating_sub(plan.projected).0),
            period_start: Some(clock::time(start)),
            resets_at: Some(clock::time(end)),
        })
    });
    each.collect()
}

fn money(amount: NanoUsd) -> Money {
    Money::from_nanos(amount.0)
}

/// The ceiling with the least share left.
fn tightest(ceilings: &[CeilingStatus]) -> Option<TightestCeiling> {
    let nanos = |money: &Money| i128::from(money.nanos().unwrap_or(0));
    let used = |ceiling: &&CeilingStatus| nanos(&ceiling.projected) * 1_000 / nanos(&ceiling.amount).max(1);
    let tightest = ceilings.iter().rev().max_by_key(used)?;
    Some(TightestCeiling {
        ceiling: format!("{}/{:?}", tightest.amount, tightest.period),
        settled: tightest.settled.to_string(),
        projected: tightest.projected.to_string(),
        headroom: tightest.headroom.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::policy;
    use quartermaster_core::snapshot::Snapshot;
    use quartermaster_crds::condition::get;

    fn seen(settled: i64) -> Seen {
        let ceiling = Ceiling {
            policy: "demo/cap".into(),
            period: "Hour".into(),
            namespace: Some("demo".into()),
            amount: NanoUsd(1_000_000_000),
            settled: NanoUsd(settled),
            period_end: Millis(7_200_000),
            enforced: true,
        };
        Seen { snapshot: Snapshot { ceilings: vec![ceiling], ..Snapshot::default() }, ..Seen::default() }
    }

    fn plan(projected: i64) -> Plan {
        let ceiling = CeilingPlan {
            policy: "demo/cap".into(),
            period: "Hour".into(),
            projected: NanoUsd(projected),
            committed_above: projected > 1_000_000_000,
        };
        Plan { ceilings: vec![ceiling], ..Plan::default() }
    }

    fn of(object: &CostPolicy, seen: &Seen, plan: &Plan) -> CostPolicyStatus {
        let facts = Facts { key: "demo/cap", object, seen, plan, namespace: "qm", now: Millis(4_000_000) };
        status(&facts).0
    }

    fn reason(status: &CostPolicyStatus, kind: ConditionType) -> (&str, &str) {
        let condition = get(&status.conditions, kind).unwrap();
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_policy_with_headroom() {
        let status = of(&policy("demo", "cap", "Namespace", "1"), &seen(250_000_000), &plan(400_000_000));
        let ceiling = &status.ceilings[0];
        assert_eq!(
            (ceiling.settled.0.as_str(), ceiling.projected.0.as_str(), ceiling.headroom.0.as_str()),
            ("0.25", "0.40", "0.60")
        );
        assert_eq!(reason(&status, ConditionType::AtCeiling), ("False", "BelowCeiling"));
        assert_eq!(reason(&status, ConditionType::Ready), ("True", "InForce"));
        assert_eq!(status.tightest.unwrap().ceiling, "1/Hour");
    }

    #[test]
    fn above_and_spent_ceilings() {
        let object = policy("demo", "cap", "Namespace", "1");
        let status = of(&object, &seen(0), &plan(1_500_000_000));
        assert_eq!(reason(&status, ConditionType::AtCeiling), ("True", "CommittedAboveCeiling"));
        assert_eq!(status.ceilings[0].headroom.0, "-0.50");
        let status = of(&object, &seen(1_000_000_000), &plan(1_000_000_000));
        assert_eq!(reason(&status, ConditionType::AtCeiling), ("True", "PeriodSpent"));
    }

    #[test]
    fn scope_cluster_elsewhere_is_refused() {
        let status = of(&policy("demo", "cap", "Cluster", "1"), &Seen::default(), &Plan::default());
        assert_eq!(reason(&status, ConditionType::Stalled), ("True", "ScopeNotAllowed"));
        assert_eq!(reason(&status, ConditionType::Ready), ("False", "ScopeNotAllowed"));
    }

    #[test]
    fn an_unknown_sum_is_unknown() {
        let mut seen = Seen::default();
        seen.unknown.insert("demo/cap".into(), "the ledger is away".into());
        let status = of(&policy("demo", "cap", "Namespace", "1"), &seen, &Plan::default());
        assert_eq!(reason(&status, ConditionType::AtCeiling), ("Unknown", "SignalsMissing"));
        assert!(status.ceilings.is_empty());
    }
}
