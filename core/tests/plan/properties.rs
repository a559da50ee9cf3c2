//! What holds for every snapshot: the same plan in whatever order lists come, and no ceiling or pool passed by a start.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use quartermaster_core::plan::{DRAIN_TIME, GroupPlan, PLAN_HORIZON, Plan, ROLL_OVERLAP, projected};
use std::collections::BTreeMap;

const CLASSES: [&str; 2] = ["small", "standard"];
const VARIANTS: [&str; 3] = ["f16", "q4", "q8"];

fn group_on(class: &'static str, devices: u32) -> impl Strategy<Value = Group> {
    let counts = (0..4_u32, 0..4_u32, 0..3_u32, 0..2_u32, 0..3_u32);
    let holds = proptest::option::of(select(VARIANTS.to_vec()));
    (select(VARIANTS.to_vec()), counts, any::<bool>(), 1..10_i64, holds).prop_map(
        move |(variant, counts, outdated, minutes, holds)| {
            let (wanted, ready, draining, surplus, replacing) = counts;
            let (ready, replacing) = (ready.min(wanted), replacing.min(wanted));
            let mut group = group(variant, class, wanted, ready);
            group.placement.devices = devices;
            let holds = holds.into_iter().filter(|_| !outdated).map(str::to_owned).collect();
            Group { draining, surplus, replacing, outdated, holds, startup: Millis(minutes * MINUTE), ..group }
        },
    )
}

/// One Deployment for each (class, devices), at most.
fn groups() -> impl Strategy<Value = Vec<Group>> {
    let each = CLASSES.map(|class| [1, 2].map(|devices| proptest::option::weighted(0.4, group_on(class, devices))));
    each.prop_map(|groups| groups.into_iter().flatten().flatten().collect())
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (select(VARIANTS.to_vec()), select(CLASSES.to_vec()), 1..3_u32, select(vec![900_000, 1_000_000]));
    let unusable = proptest::option::weighted(0.1, Just("broken".to_owned()));
    let each = (one, unusable).prop_map(|((variant, class, devices, quality), unusable)| Candidate {
        unusable,
        ..candidate(variant, class, devices, quality)
    });
    proptest::collection::vec(each, 1..5).prop_map(|mut all| {
        all.sort_by(|a, b| a.placement.cmp(&b.placement));
        all.dedup_by(|a, b| a.placement == b.placement);
        all
    })
}

fn a_model(name: &'static str) -> impl Strategy<Value = Model> {
    let load = proptest::option::weighted(0.8, (0..20_u32, 0..20_u32, 0..3_000_u64));
    let bounds = (0..3_u32, 1..5_u32, select(vec![1, 100]), any::<bool>());
    let namespace = select(vec!["demo", "other"]);
    (candidates(), groups(), load, bounds, namespace).prop_map(move |(candidates, groups, load, bounds, namespace)| {
        let (min, max, priority, sleeps) = bounds;
        let load = load.map(|(running, waiting, tokens)| Load { running, waiting, tokens_in_flight: Tokens(tokens) });
        let idle_after = sleeps.then_some(Millis(MINUTE));
        let (namespace, name, max) = (namespace.to_owned(), name.to_owned(), max.max(min));
        Model { namespace, name, priority, min, max, idle_after, candidates, groups, load, ..model() }
    })
}

fn ceilings() -> impl Strategy<Value = Vec<Ceiling>> {
    let namespace = select(vec![None, Some("demo".to_owned()), Some("other".to_owned())]);
    let one = (namespace, 0..400_i64, 0..200_i64, 1..60_i64, any::<bool>());
    let each = one.prop_map(|(namespace, cents, settled, minutes, enforced)| Ceiling {
        policy: "demo/cost".into(),
        period: "Month".into(),
        namespace,
        amount: NanoUsd(cents * 10_000_000),
        settled: NanoUsd(settled * 10_000_000),
        period_end: Millis(NOW.0 + minutes * MINUTE),
        enforced,
    });
    proptest::collection::vec(each, 0..4).prop_map(|mut all| {
        for (index, ceiling) in all.iter_mut().enumerate() {
            ceiling.policy = format!("demo/cost-{index}");
        }
        all
    })
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let class = (select(vec!["0", "0.20", "1.00"]), proptest::option::of(0..9_u32), 0..9_u32, any::<bool>());
    let class = class.prop_map(|(price, max_devices, offered, gone)| HardwareClass {
        price_per_hour: usd(price),
        max_devices,
        offered: Some(offered),
        gone: gone && offered < 2,
    });
    let models = (a_model("a"), a_model("b"), a_model("c"), 1..4_usize);
    let orphan = Union::new([0, 1, 2].map(Just));
    ([class.clone(), class], ceilings(), models, orphan).prop_map(|([small, standard], ceilings, models, orphans)| {
        let (a, b, c, count) = models;
        let models = [a, b, c].into_iter().take(count).map(|model| (format!("demo/{}", model.name), model));
        let orphan = |_| Orphan { namespace: "demo".into(), placement: placement("x", "standard", 1), replicas: 1 };
        Snapshot {
            classes: [("small".into(), small), ("standard".into(), standard)].into(),
            ceilings,
            models: models.collect(),
            orphans: (0..orphans).map(orphan).collect(),
            ..snapshot(model(), "1")
        }
    })
}

/// Replicas that are there for a time: what is counted, apart from how the plan counts it.
struct There<'a> {
    namespace: &'a str,
    placement: &'a Placement,
    replicas: u32,
    devices: u32,
    time: Millis,
}

/// All that is there once `plan` is carried out; without a plan, when nothing is.
fn there<'a>(snapshot: &'a Snapshot, plan: Option<&'a Plan>) -> Vec<There<'a>> {
    let mut there = Vec::new();
    let mut add = |namespace: &'a str, placement: &'a Placement, replicas: u32, most: u32, time: Millis| {
        let devices = replicas.min(most) * placement.devices;
        there.push(There { namespace, placement, replicas, devices, time });
    };
    for orphan in &snapshot.orphans {
        add(&orphan.namespace, &orphan.placement, orphan.replicas, u32::MAX, DRAIN_TIME);
    }
    for (key, model) in &snapshot.models {
        let startup = model.groups.iter().map(|group| group.startup).max().unwrap_or_default();
        let switch = startup.saturating_add(DRAIN_TIME);
        let planned = plan.map(|plan| plan.models[key].groups.as_slice()).unwrap_or_default();
        for group in &model.groups {
            let goal = planned.iter().find(|goal| goal.placement.same_hardware(&group.placement));
            let (on, namespace) = (&group.placement, &model.namespace);
            if plan.is_none() {
                add(namespace, on, group.wanted, u32::MAX, PLAN_HORIZON);
            } else {
                let stays = goal.map_or(0, |goal| goal.replicas).min(group.wanted);
                add(namespace, on, group.wanted - stays, u32::MAX, DRAIN_TIME);
                if goal.is_some_and(|goal| rolls(group, goal)) {
                    add(namespace, on, stays, ROLL_OVERLAP, switch);
                }
            }
            let surplus = group.surplus.saturating_sub(group.replacing.min(ROLL_OVERLAP));
            add(namespace, on, group.draining + surplus, u32::MAX, DRAIN_TIME);
            add(namespace, on, group.replacing, ROLL_OVERLAP, switch);
        }
        for goal in planned {
            let time = goal.planned_end.map_or(PLAN_HORIZON, |end| end.since(snapshot.now));
            add(&model.namespace, &goal.placement, goal.replicas, u32::MAX, time);
        }
    }
    there
}

fn spend(snapshot: &Snapshot, ceiling: &Ceiling, there: &[There<'_>]) -> NanoUsd {
    let bound = there.iter().filter(|each| ceiling.namespace.as_deref().is_none_or(|bound| bound == each.namespace));
    let costs = bound.map(|each| projected(snapshot, each.placement, each.replicas, ceiling, each.time));
    costs.fold(ceiling.settled, NanoUsd::saturating_add)
}

fn held(there: &[There<'_>]) -> BTreeMap<String, u32> {
    let mut held = BTreeMap::new();
    for each in there {
        *held.entry(each.placement.class.clone()).or_default() += each.devices;
    }
    held
}

/// Replicas that a plan starts: (namespace, placement).
fn started<'a>(snapshot: &'a Snapshot, plan: &'a Plan) -> Vec<(&'a Model, &'a Placement)> {
    let each = snapshot.models.iter().flat_map(|(key, model)| {
        plan.models[key].groups.iter().filter_map(move |goal| {
            let same = |group: &&Group| group.placement.same_hardware(&goal.placement);
            let there = model.groups.iter().find(same).map_or(0, |group| group.wanted);
            (goal.replicas > there).then_some((model, &goal.placement))
        })
    });
    each.collect()
}

fn shuffled(mut snapshot: Snapshot) -> Snapshot {
    snapshot.ceilings.reverse();
    snapshot.orphans.reverse();
    for model in snapshot.models.values_mut() {
        model.candidates.reverse();
        model.groups.reverse();
        model.needs.reverse();
    }
    snapshot
}

fn sorted(mut plan: Plan) -> Plan {
    plan.ceilings.sort_by(|a, b| (&a.policy, &a.period).cmp(&(&b.policy, &b.period)));
    for model in plan.models.values_mut() {
        model.considered.sort_by(|a, b| a.placement.cmp(&b.placement));
    }
    plan
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_lists_changes_nothing(snapshot in snapshots()) {
        prop_assert_eq!(sorted(decide(&snapshot)), sorted(decide(&shuffled(snapshot))));
    }

    #[test]
    fn a_saved_snapshot_gives_the_same_plan(snapshot in snapshots()) {
        let saved = serde_json::to_string(&snapshot).expect("a snapshot is JSON");
        prop_assert_eq!(decide(&snapshot), decide(&serde_json::from_str(&saved).expect("it reads back")));
    }

    #[test]
    fn no_ceiling_is_passed_unless_what_runs_passes_it_already(snapshot in snapshots()) {
        let plan = decide(&snapshot);
        let (before, after) = (there(&snapshot, None), there(&snapshot, Some(&plan)));
        for (ceiling, said) in snapshot.ceilings.iter().zip(&plan.ceilings) {
            let spend_after = spend(&snapshot, ceiling, &after);
            prop_assert_eq!(said.projected, spend_after, "what is said is what is planned");
            let passed = spend(&snapshot, ceiling, &before) > ceiling.amount;
            prop_assert!(!ceiling.enforced || passed || spend_after <= ceiling.amount);
        }
    }

    #[test]
    fn above_a_ceiling_only_a_switch_starts_anything(snapshot in snapshots()) {
        let plan = decide(&snapshot);
        let after = there(&snapshot, Some(&plan));
        let above = snapshot.ceilings.iter().filter(|ceiling| ceiling.enforced);
        for ceiling in above.filter(|ceiling| spend(&snapshot, ceiling, &after) > ceiling.amount) {
            let bound = |namespace: &str| ceiling.namespace.as_deref().is_none_or(|bound| bound == namespace);
            for (model, placement) in started(&snapshot, &plan).into_iter().filter(|(model, _)| bound(&model.namespace)) {
                let key = format!("demo/{}", model.name);
                let switches = plan.models[&key].groups.iter().any(|goal| goal.planned_end.is_some());
                prop_assert!(switches, "{key} starts {placement}");
            }
        }
    }

    #[test]
    fn no_pool_is_passed_unless_what_runs_passes_it_already(snapshot in snapshots()) {
        let plan = decide(&snapshot);
        let (before, after) = (held(&there(&snapshot, None)), held(&there(&snapshot, Some(&plan))));
        for (class, held) in after {
            let limit = snapshot.classes[&class].device_limit().unwrap_or(u32::MAX);
            prop_assert!(held <= limit.max(before.get(&class).copied().unwrap_or(0)), "{held} of {limit} of {class}");
        }
    }

    #[test]
    fn a_model_that_serves_is_not_stopped_by_a_change_of_its_template(snapshot in snapshots()) {
        let fresh = |mut snapshot: Snapshot| {
            snapshot.models.values_mut().flat_map(|model| &mut model.groups).for_each(|group| group.outdated = false);
            snapshot
        };
        let (plan, same) = (decide(&snapshot), decide(&fresh(snapshot.clone())));
        for (key, model) in &snapshot.models {
            let total = |plan: &Plan| plan.models[key].groups.iter().map(|goal| goal.replicas).sum::<u32>();
            let serves = model.groups.iter().any(|group| group.wanted > 0 && group.ready > 0);
            prop_assert!(!serves || total(&same) == 0 || total(&plan) > 0, "{key} is stopped");
        }
    }
}

/// Whether the pods of a group are replaced; those that hold the file of another variant are told to serve it.
fn rolls(group: &Group, goal: &GroupPlan) -> bool {
    let stays =
        if goal.placement == group.placement { !group.outdated } else { group.holds.contains(&goal.placement.variant) };
    !goal.hold && !stays
}

/// The cluster a while later: what starts serves, what goes drains for one tick, what rolls has rolled.
fn carried_out(mut snapshot: Snapshot, plan: &Plan) -> Snapshot {
    snapshot.orphans.clear();
    for (key, model) in &mut snapshot.models {
        let planned = &plan.models[key].groups;
        for goal in planned {
            if !model.groups.iter().any(|group| group.placement.same_hardware(&goal.placement)) {
                let new = group(&goal.placement.variant, &goal.placement.class, 0, 0);
                model.groups.push(Group { placement: goal.placement.clone(), ..new });
            }
        }
        for group in &mut model.groups {
            let goal = planned.iter().find(|goal| goal.placement.same_hardware(&group.placement));
            let replicas = goal.map_or(0, |goal| goal.replicas);
            let stays = group.wanted.min(replicas);
            let rolled = if goal.is_some_and(|goal| rolls(group, goal)) { stays } else { 0 };
            group.draining = group.wanted - stays + rolled;
            (group.wanted, group.ready, group.serving, group.pending) = (replicas, replicas, replicas, 0);
            (group.surplus, group.replacing) = (0, 0);
            if let Some(goal) = goal.filter(|goal| !goal.hold) {
                group.placement = goal.placement.clone();
                group.outdated = false;
            }
        }
        model.groups.retain(|group| group.wanted + group.draining > 0);
    }
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cluster_that_stands_still_comes_to_rest(mut snapshot in snapshots()) {
        for _ in 0..20 {
            snapshot = carried_out(snapshot.clone(), &decide(&snapshot));
        }
        let plan = decide(&snapshot);
        prop_assert!(plan.models.values().all(|plan| plan.reason.name() != "Switching"), "a switch ends");
        prop_assert_eq!(&snapshot.models, &carried_out(snapshot.clone(), &plan).models);
    }
}
