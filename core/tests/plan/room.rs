//! What there is room for: what leaves, what rolls, and what is there no more.

use super::*;
use quartermaster_core::plan::{GroupPlan, Reason};

/// All three devices of `standard` are of one model.
fn full(ready: u32) -> Model {
    Model { min: 3, groups: vec![group("q8", "standard", 3, ready)], ..model() }
}

/// The second model, planned before the first and without a replica yet.
fn newcomer() -> Model {
    Model { priority: 200, groups: vec![], candidates: vec![candidate("q8", "standard", 1, 900_000)], ..model() }
}

fn group_plan(snapshot: &Snapshot, key: &str) -> GroupPlan {
    decide(snapshot).models[key].groups[0].clone()
}

#[test]
fn what_drains_holds_its_device_until_it_has_gone() {
    let busy = Model { load: load(4, 8, 100), ..model() };
    let mut draining = snapshot(busy, "100");
    draining.models.get_mut("demo/chat").expect("there").groups[0].draining = 1;
    let plan = planned(&draining);
    assert_eq!(replicas(&plan), [("q8", 2)], "one runs, one drains, one is free");
    assert_eq!(plan.reason.to_string(), "HardwareClass standard has devices for 2 of 3 replicas");
    // 0.50 for each that runs, two minutes of 1.00 an hour for the one that drains.
    assert_eq!(decide(&draining).ceilings[0].projected, usd("1.033333334"));
}

#[test]
fn who_gives_way_drains_first() {
    let mut both = beside(Model { min: 1, load: load(4, 8, 100), ..full(3) }, newcomer(), "100");
    let plans = decide(&both).models;
    assert_eq!(replicas(&plans["demo/chat"]), [("q8", 2)], "the one of lower priority shrinks");
    assert_eq!(replicas(&plans["demo/a"]), [("q8", 0)], "its device is not free yet");
    assert_eq!(plans["demo/a"].reason.name(), "PoolExhausted");
    let chat = &mut both.models.get_mut("demo/chat").expect("there").groups[0];
    (chat.wanted, chat.ready, chat.serving, chat.draining) = (2, 2, 2, 1);
    assert_eq!(replicas(&decide(&both).models["demo/a"]), [("q8", 0)], "it drains");
    both.models.get_mut("demo/chat").expect("there").groups[0].draining = 0;
    assert_eq!(replicas(&decide(&both).models["demo/a"]), [("q8", 1)]);
}

#[test]
fn the_money_of_what_leaves_is_spent_with_it() {
    // Half an hour of one replica is 0.50. The two that leave cost 0.067 while they drain.
    let mut poor = beside(Model { min: 1, ..full(3) }, newcomer(), "1.06");
    poor.classes.get_mut("standard").expect("there").max_devices = Some(9);
    let plan = decide(&poor);
    assert_eq!(replicas(&plan.models["demo/chat"]), [("q8", 1)]);
    assert_eq!(replicas(&plan.models["demo/a"]), [("q8", 0)]);
    assert_eq!(plan.models["demo/a"].reason.name(), "AtCeiling");
    poor.ceilings[0].amount = usd("1.07");
    assert_eq!(replicas(&decide(&poor).models["demo/a"]), [("q8", 1)]);
}

#[test]
fn orphans_hold_their_devices_and_cost_money() {
    let mut orphaned = snapshot(Model { load: load(4, 8, 100), ..model() }, "100");
    orphaned.orphans.push(Orphan { namespace: "demo".into(), placement: placement("x", "standard", 1), replicas: 1 });
    assert_eq!(replicas(&planned(&orphaned)), [("q8", 2)]);
    assert_eq!(decide(&orphaned).ceilings[0].projected, usd("1.033333334"));
}

/// One or more replicas of q8 whose image has changed.
fn outdated(wanted: u32, ready: u32, ceiling: &str) -> Snapshot {
    let mut model = Model { min: wanted, groups: vec![group("q8", "standard", wanted, ready)], ..model() };
    model.groups[0].outdated = true;
    snapshot(model, ceiling)
}

#[test]
fn a_roll_out_begins_when_old_and_new_fit_side_by_side() {
    // 0.50 for the replica, and 0.05 for a minute of start-up and two of draining beside its successor.
    let plan = decide(&outdated(1, 1, "0.55"));
    assert!(!plan.models["demo/chat"].groups[0].hold);
    assert_eq!(plan.ceilings[0].projected, usd("0.55"));
}

#[test]
fn the_last_replica_that_serves_is_held_when_its_successor_has_no_room() {
    let plan = decide(&outdated(1, 1, "0.54"));
    let chat = &plan.models["demo/chat"];
    assert_eq!((replicas(chat), chat.groups[0].hold), (vec![("q8", 1)], true));
    assert_eq!(
        chat.reason.to_string(),
        "the ceiling of 0.54 USD of CostPolicy demo/cost affords 1 of 2 replicas that a roll-out has side by side"
    );
    assert_eq!(plan.ceilings[0].projected, usd("0.50"));
    let mut full = outdated(1, 1, "100");
    full.classes.get_mut("standard").expect("there").max_devices = Some(1);
    let group = group_plan(&full, "demo/chat");
    assert_eq!((group.replicas, group.hold), (1, true));
    assert_eq!(planned(&full).reason.name(), "PoolExhausted");
}

#[test]
fn pods_that_hold_the_file_of_another_variant_need_no_room_to_serve_it() {
    let candidates = vec![candidate("q8", "standard", 1, 1_000_000)];
    let mut model = Model { groups: vec![group("q4", "standard", 1, 1)], candidates, ..model() };
    // 0.50 for half an hour of the replica, and nothing for one beside it.
    let plan = decide(&snapshot(model.clone(), "0.50")).models["demo/chat"].clone();
    assert_eq!((replicas(&plan), plan.groups[0].hold), (vec![("q4", 1)], true), "it would have to roll");
    model.groups[0].holds = vec!["q4".into(), "q8".into()];
    let plan = decide(&snapshot(model, "0.50"));
    assert_eq!(plan.ceilings[0].projected, usd("0.50"));
    let plan = &plan.models["demo/chat"];
    assert_eq!((replicas(plan), plan.groups[0].hold, plan.reason.name()), (vec![("q8", 1)], false, "Switching"));
}

#[test]
fn a_replica_that_serves_nobody_makes_room_for_its_successor() {
    let group = group_plan(&outdated(1, 0, "0.54"), "demo/chat");
    assert_eq!((group.replicas, group.hold), (0, true));
    let mut gone = outdated(0, 0, "0.54");
    gone.models.get_mut("demo/chat").expect("there").min = 1;
    let group = group_plan(&gone, "demo/chat");
    assert_eq!((group.replicas, group.hold), (1, false));
}

#[test]
fn a_full_pool_rolls_with_fewer_replicas() {
    let mut world = outdated(3, 3, "100");
    let first = group_plan(&world, "demo/chat");
    assert_eq!(
        (first.replicas, first.hold),
        (1, true),
        "one and its successor; two would be four with those that drain"
    );
    let group = |world: &mut Snapshot, wanted: u32, draining: u32| {
        let group = &mut world.models.get_mut("demo/chat").expect("there").groups[0];
        (group.wanted, group.ready, group.serving, group.draining) = (wanted, wanted, wanted, draining);
    };
    group(&mut world, 1, 2);
    let waits = group_plan(&world, "demo/chat");
    assert_eq!((waits.replicas, waits.hold), (1, true), "those that drain still hold their devices");
    group(&mut world, 1, 0);
    let rolls = group_plan(&world, "demo/chat");
    assert_eq!((rolls.replicas, rolls.hold), (2, false));
}

#[test]
fn another_variant_on_the_same_hardware_is_a_roll_out() {
    let mut model = model();
    model.candidates[1] = candidate("q9", "standard", 1, 1_000_000);
    model.candidates.remove(0);
    assert_eq!(replicas(&planned(&snapshot(model.clone(), "0.55"))), [("q9", 1)]);
    let held = planned(&snapshot(model, "0.54"));
    assert_eq!((replicas(&held), held.groups[0].hold), (vec![("q8", 1)], true));
    assert_eq!(held.serve, Some(placement("q8", "standard", 1)), "what serves is what is said to serve");
}

#[test]
fn a_roll_out_under_way_keeps_its_room_from_others() {
    let mut rolling = beside(model(), newcomer(), "100");
    rolling.models.get_mut("demo/chat").expect("there").groups[0].replacing = 1;
    rolling.classes.get_mut("standard").expect("there").max_devices = Some(2);
    assert_eq!(replicas(&decide(&rolling).models["demo/a"]), [("q8", 0)]);
}

#[test]
fn a_blind_model_that_cannot_roll_is_held_whole() {
    let mut blind = outdated(3, 3, "100");
    let chat = blind.models.get_mut("demo/chat").expect("there");
    (chat.load, chat.blind_because) = (None, Some("no gateway answers".into()));
    let group = group_plan(&blind, "demo/chat");
    assert_eq!((group.replicas, group.hold), (3, true));
    assert_eq!(planned(&blind).reason.name(), "SignalsBlind");
}

#[test]
fn nodes_bound_what_declares_no_maximum() {
    let mut open = snapshot(Model { load: load(4, 8, 100), ..model() }, "100");
    let class = open.classes.get_mut("standard").expect("there");
    (class.max_devices, class.offered) = (None, Some(2));
    assert_eq!(replicas(&planned(&open)), [("q8", 2)]);
    open.classes.get_mut("standard").expect("there").max_devices = Some(3);
    assert_eq!(replicas(&planned(&open)), [("q8", 3)], "more nodes may come: what is declared counts alone");
}

#[test]
fn what_serves_on_a_deleted_class_goes_on_and_nothing_starts_there() {
    let mut gone = snapshot(Model { load: load(4, 8, 100), ..model() }, "100");
    let class = gone.classes.get_mut("standard").expect("there");
    (class.gone, class.max_devices) = (true, Some(1));
    let plan = planned(&gone);
    assert_eq!(replicas(&plan), [("q8", 1)]);
    assert_eq!(verdict(&plan, "f16").to_string(), "there is no HardwareClass standard");
    gone.models.get_mut("demo/chat").expect("there").groups.clear();
    assert_eq!(replicas(&planned(&gone)), [("q4", 3)]);
}

#[test]
fn the_last_replica_serves_until_the_money_is_spent() {
    let only = Model { candidates: vec![candidate("q8", "standard", 1, 1_000_000)], ..model() };
    let mut late = snapshot(only, "1.00");
    late.ceilings[0].settled = usd("0.90");
    let plan = decide(&late);
    let chat = &plan.models["demo/chat"];
    assert_eq!(replicas(chat), [("q8", 1)]);
    assert_eq!(chat.groups[0].planned_end, Some(Millis(NOW.0 + 6 * MINUTE)), "0.10 pays for six minutes");
    assert_eq!(plan.ceilings[0].projected, usd("1.00"));
    let sentence = chat.reason.to_string();
    assert_eq!(
        sentence,
        "the ceiling of 1.00 USD of CostPolicy demo/cost is almost spent; 1 replica serves until it is"
    );
    late.ceilings[0].settled = usd("0.97");
    assert_eq!(replicas(&planned(&late)), [], "what is left pays for no drain");
    late.ceilings[0].settled = usd("0.90");
    let one = &mut late.models.get_mut("demo/chat").expect("there").groups[0];
    one.ready = 0;
    assert_eq!(replicas(&planned(&late)), [("q8", 1)], "it serves the variant before, until it is told another");
    late.models.get_mut("demo/chat").expect("there").groups[0].serving = 0;
    assert_eq!(replicas(&planned(&late)), [], "a replica that does not serve is none to keep");
    let three = Model { groups: vec![group("q8", "standard", 3, 3)], min: 3, ..late.models["demo/chat"].clone() };
    late.models.insert("demo/chat".into(), three);
    assert_eq!(planned(&late).reason, {
        let (policy, amount) = ("demo/cost".to_owned(), usd("1.00"));
        Reason::AtCeiling { policy, replicas: 1, wanted: 3, amount, roll_out: false }
    });
}

#[test]
fn a_way_down_that_has_no_devices_waits_for_those_of_its_own_model() {
    let mut large = model();
    large.candidates = vec![candidate("f16", "standard", 2, 1_000_000), candidate("q8", "standard", 1, 900_000)];
    large.groups = vec![group("f16", "standard", 2, 2)];
    large.groups[0].placement.devices = 2;
    let mut world = snapshot(large, "0.70");
    world.classes.get_mut("standard").expect("there").max_devices = Some(4);
    assert_eq!(replicas(&planned(&world)), [("f16", 1)], "1.00 is too much for either, 0.50 has no device yet");
    let group = &mut world.models.get_mut("demo/chat").expect("there").groups[0];
    (group.wanted, group.ready) = (1, 1);
    assert_eq!(replicas(&planned(&world)), [("q8", 1), ("f16", 1)]);
}
