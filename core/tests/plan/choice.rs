//! By value: one model, two classes, one ceiling.

use super::*;
use quartermaster_core::plan::{Reason, yet_to_come};

#[test]
fn the_best_affordable_variant_is_served_and_the_dominated_one_explained() {
    let plan = planned(&snapshot(model(), "10"));
    assert_eq!(replicas(&plan), [("q8", 1)]);
    assert_eq!(*verdict(&plan, "q8"), Verdict::Served);
    let dominated = verdict(&plan, "f16").to_string();
    assert_eq!(dominated, "dominated: q8 on standard is as good and saves 1.00 USD an hour per replica");
    assert_eq!(plan.reason, Reason::Steady { replicas: 1 });
}

#[test]
fn a_difference_that_was_not_measured_is_no_reason_to_pay_more() {
    let mut model = model();
    model.candidates[1].quality = QualityPpm(993_000);
    model.candidates[1].quality_high = QualityPpm(997_000);
    assert_eq!(planned(&snapshot(model.clone(), "10")).serve, Some(placement("f16", "standard", 2)));
    model.candidates[1].quality_high = QualityPpm(1_000_000);
    let plan = planned(&snapshot(model, "10"));
    assert_eq!(plan.serve, Some(placement("q8", "standard", 1)));
    assert_eq!(verdict(&plan, "f16").name(), "Dominated");
}

#[test]
fn load_adds_replicas_and_a_quiet_window_takes_them_away() {
    let busy = Model { load: load(4, 6, 600), ..model() };
    let plan = planned(&snapshot(busy, "10"));
    assert_eq!((replicas(&plan), plan.needed), (vec![("q8", 3)], Some(3)));
    assert_eq!(plan.reason, Reason::ScalingUp { from: 1, to: 3, needed: 3 });

    let calm = |at: i64| {
        let needs = vec![Need { at: Millis(NOW.0 - at), replicas: 3 }];
        Model { groups: vec![group("q8", "standard", 3, 3)], needs, ..model() }
    };
    let plan = planned(&snapshot(calm(MINUTE / 2), "10"));
    assert_eq!(plan.reason, Reason::QuietWindow { replicas: 3, needed: 0 });
    let plan = planned(&snapshot(calm(2 * MINUTE), "10"));
    assert_eq!(plan.reason, Reason::ScalingDown { from: 3, to: 1 });
}

#[test]
fn a_restarted_operator_does_not_scale_down_before_it_has_watched_for_the_window() {
    let fresh = Model { groups: vec![group("q8", "standard", 3, 3)], observed_since: Millis(NOW.0 - 1), ..model() };
    assert_eq!(replicas(&planned(&snapshot(fresh, "10"))), [("q8", 3)]);
}

#[test]
fn a_lowered_ceiling_switches_and_the_old_serves_until_the_new_is_ready() {
    // A standard replica projects to 0.50 over the horizon of 30 minutes, a small one to 0.10.
    let plan = planned(&snapshot(model(), "0.30"));
    assert_eq!(replicas(&plan), [("q4", 1), ("q8", 1)]);
    let sentence = plan.reason.to_string();
    assert_eq!(
        sentence,
        "switching from q8 on standard to q4 on small: q8 on standard does not fit the ceiling of 0.30 USD of CostPolicy demo/cost"
    );

    let ready = Model { groups: vec![group("q8", "standard", 1, 1), group("q4", "small", 1, 1)], ..model() };
    let plan = planned(&snapshot(ready, "0.30"));
    assert_eq!(replicas(&plan), [("q4", 1)]);
    assert_eq!(plan.serve, Some(placement("q4", "small", 1)));
}

#[test]
fn a_raised_ceiling_goes_back_only_when_the_overlap_fits_too() {
    let small = Model { groups: vec![group("q4", "small", 1, 1)], ..model() };
    // 0.50 for the horizon, and 0.01 for the small one beside it: a minute until the new one serves, two to drain.
    assert_eq!(replicas(&planned(&snapshot(small.clone(), "0.501"))), [("q4", 1)]);
    assert_eq!(replicas(&planned(&snapshot(small, "0.51"))), [("q8", 1), ("q4", 1)]);
}

#[test]
fn the_ceiling_bounds_the_replicas() {
    let busy = Model { load: load(4, 8, 100), ..model() };
    let plan = planned(&snapshot(busy, "1.20"));
    assert_eq!(replicas(&plan), [("q8", 2)]);
    assert_eq!(plan.reason.name(), "AtCeiling");
}

#[test]
fn nothing_is_started_when_nothing_fits() {
    let plan = planned(&snapshot(Model { groups: vec![], ..model() }, "0.05"));
    assert_eq!((plan.serve.clone(), replicas(&plan)), (None, vec![]));
    assert_eq!(plan.reason.name(), "AtCeiling");
}

#[test]
fn a_policy_that_observes_stops_nothing_but_is_projected() {
    let mut observed = snapshot(model(), "0.05");
    observed.ceilings[0].enforced = false;
    assert_eq!(replicas(&planned(&observed)), [("q8", 1)]);
    let ceiling = &decide(&observed).ceilings[0];
    assert_eq!((ceiling.projected, ceiling.committed_above), (usd("0.50"), true));
}

#[test]
fn blind_holds_what_runs() {
    let because = Some("no gateway answers".into());
    let blind = Model { load: None, blind_because: because, groups: vec![group("q8", "standard", 3, 2)], ..model() };
    let plan = planned(&snapshot(blind, "0.30"));
    assert_eq!((replicas(&plan), plan.needed), (vec![("q8", 3)], None));
    assert_eq!(plan.reason.to_string(), "holding the last plan: no gateway answers");
}

#[test]
fn the_quality_floor_and_refusals_of_pods_bar_candidates() {
    let mut floored = model();
    floored.quality_floor = Some(QualityPpm(990_000));
    floored.objective = Objective::MinimizeCost;
    floored.candidates[1].unusable = Some("needs 400 MiB of 300 MiB".into());
    floored.groups.clear();
    let plan = planned(&snapshot(floored, "10"));
    assert_eq!(plan.serve, Some(placement("f16", "standard", 2)));
    assert_eq!(verdict(&plan, "q4").name(), "BelowQualityFloor");
    assert_eq!(verdict(&plan, "q8").to_string(), "needs 400 MiB of 300 MiB");
}

#[test]
fn an_unknown_class_names_itself() {
    let lost = Model { candidates: vec![candidate("q8", "nowhere", 1, 1)], groups: vec![], ..model() };
    let plan = planned(&snapshot(lost, "10"));
    assert_eq!(plan.reason.to_string(), "no variant can be served: q8 on nowhere: there is no HardwareClass nowhere");
}

#[test]
fn idle_models_sleep_and_a_waiting_request_wakes_them() {
    let idle = Model { min: 0, idle_after: Some(Millis(MINUTE)), ..model() };
    let plan = planned(&snapshot(idle.clone(), "10"));
    assert_eq!((replicas(&plan), plan.reason.name()), (vec![("q8", 0)], "Asleep"));
    let held = Model { groups: vec![], load: load(0, 1, 50), ..idle };
    assert_eq!(replicas(&planned(&snapshot(held, "10"))), [("q8", 1)]);
}

#[test]
fn a_pin_holds_within_min_and_max() {
    let plan = planned(&snapshot(Model { pinned: Some(9), ..model() }, "10"));
    assert_eq!((replicas(&plan), plan.reason.name()), (vec![("q8", 3)], "ReplicasPinned"));
}

#[test]
fn higher_priority_is_planned_first() {
    let mut both = snapshot(model(), "0.55");
    both.models.insert("demo/a-low".into(), Model { name: "a-low".into(), priority: 1, groups: vec![], ..model() });
    let plan = decide(&both);
    assert_eq!(replicas(&plan.models["demo/chat"]), [("q8", 1)]);
    assert_eq!(plan.models["demo/a-low"].reason.name(), "AtCeiling");
}

fn devices(snapshot: &Snapshot, class: &str) -> u32 {
    let plans = decide(snapshot).models;
    let groups = plans.values().flat_map(|plan| &plan.groups).filter(|group| group.placement.class == class);
    groups.map(|group| group.replicas * group.placement.devices).sum()
}

#[test]
fn growth_leaves_the_devices_and_the_money_of_those_planned_later_alone() {
    let blind = Model { load: None, groups: vec![group("q8", "standard", 2, 2)], ..model() };
    let busy = Model { load: load(4, 8, 100), ..model() };
    assert_eq!(devices(&beside(blind.clone(), busy.clone(), "100"), "standard"), 3, "two are held, one is left");
    let poor = beside(blind, busy, "1.50");
    assert!(decide(&poor).ceilings[0].projected <= usd("1.50"), "two are held, one more fits");
}

#[test]
fn a_running_model_is_not_stopped_for_the_growth_of_an_equal_one() {
    let busy = Model { load: load(4, 8, 100), ..model() };
    let plans = decide(&beside(model(), busy, "1.10")).models;
    assert_eq!((replicas(&plans["demo/a"]), replicas(&plans["demo/chat"])), (vec![("q8", 1)], vec![("q8", 1)]));
}

#[test]
fn a_switch_of_many_replicas_stays_inside_the_ceiling() {
    let small = Model { groups: vec![group("q4", "small", 3, 3)], load: load(4, 8, 100), ..model() };
    // Three standard replicas are 1.50; three small ones beside them, for a minute and their drain, are 0.03.
    let plan = planned(&snapshot(small.clone(), "1.50"));
    assert_eq!(replicas(&plan), [("q8", 2), ("q4", 3)]);
    assert_eq!(replicas(&planned(&snapshot(small.clone(), "1.53"))), [("q8", 3), ("q4", 3)]);
    let halfway = Model { groups: vec![group("q4", "small", 3, 3), group("q8", "standard", 3, 1)], ..small };
    assert_eq!(replicas(&planned(&snapshot(halfway, "1.53"))), [("q8", 3), ("q4", 2)], "one of the new is ready");
}

#[test]
fn a_switch_on_one_class_waits_for_devices_rather_than_taking_those_in_use() {
    let mut full = model();
    full.candidates.remove(1);
    full.candidates[0].quality = QualityPpm(1_000_000);
    full.candidates.push(candidate("q8", "standard", 1, 900_000));
    full.groups = vec![group("q8", "standard", 3, 3)];
    let plan = planned(&snapshot(full.clone(), "100"));
    assert_eq!(plan.serve, Some(placement("q4", "small", 1)), "two devices for f16 are not free");
    full.candidates.retain(|candidate| candidate.placement.class == "standard");
    let snapshot = snapshot(full, "100");
    assert!(devices(&snapshot, "standard") <= 3);
    assert_eq!(planned(&snapshot).serve, Some(placement("q8", "standard", 1)));
}

#[test]
fn one_failed_replica_does_not_take_down_those_that_serve() {
    let mut model = model();
    model.candidates[1].unusable = Some("ImagePullBackOff".into());
    assert_eq!(planned(&snapshot(model.clone(), "10")).serve, Some(placement("q8", "standard", 1)));
    model.groups = vec![group("q8", "standard", 1, 0)];
    assert_eq!(planned(&snapshot(model, "10")).serve, Some(placement("f16", "standard", 2)));
}

#[test]
fn what_is_settled_and_what_each_model_will_yet_cost_is_what_is_projected() {
    let switching = Model { groups: vec![group("q4", "small", 1, 1)], ..model() };
    let mut snapshot = beside(switching, model(), "10");
    let elsewhere = Model { namespace: "other".into(), ..model() };
    snapshot.models.insert("other/chat".into(), elsewhere);
    snapshot.ceilings[0].settled = usd("0.30");
    snapshot.ceilings.push(Ceiling { namespace: None, period: "Hour".into(), ..snapshot.ceilings[0].clone() });
    snapshot.ceilings[1].period_end = Millis(NOW.0 + 6 * MINUTE);
    let plan = decide(&snapshot);
    let own = |key: &str| yet_to_come(&snapshot, &snapshot.models[key], &plan.models[key]);
    assert_eq!(plan.models["demo/chat"].groups.len(), 2, "one before, one after the switch");
    assert_eq!(own("other/chat"), [NanoUsd::ZERO, usd("0.10")], "6 minutes at 1.00");
    for (at, ceiling) in plan.ceilings.iter().enumerate() {
        let models: i64 = snapshot.models.keys().map(|key| own(key)[at].0).sum();
        assert_eq!(NanoUsd(snapshot.ceilings[at].settled.0 + models), ceiling.projected);
    }
}
