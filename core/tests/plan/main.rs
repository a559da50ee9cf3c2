//! The interim rule: what is chosen, what there is room for, and what holds for every snapshot.

#![expect(clippy::expect_used, reason = "a test may fail")]

mod choice;
mod properties;
mod room;

use quartermaster_core::plan::{ModelPlan, Verdict, decide};
use quartermaster_core::snapshot::*;
use quartermaster_core::units::{Millis, NanoUsd, QualityPpm, Tokens};

const MINUTE: i64 = 60_000;
const NOW: Millis = Millis(1_000 * MINUTE);

fn usd(text: &str) -> NanoUsd {
    text.parse().expect("test money")
}

fn placement(variant: &str, class: &str, devices: u32) -> Placement {
    Placement { variant: variant.into(), class: class.into(), devices }
}

fn candidate(variant: &str, class: &str, devices: u32, quality: u32) -> Candidate {
    let capacity = Some(Capacity { slots: 4, tokens_per_second: 20.0 });
    Candidate {
        placement: placement(variant, class, devices),
        quality: QualityPpm(quality),
        quality_high: QualityPpm(quality),
        unusable: None,
        capacity,
    }
}

fn group(variant: &str, class: &str, wanted: u32, ready: u32) -> Group {
    let placement = placement(variant, class, 1);
    let (draining, surplus, replacing) = (0, 0, 0);
    let (pending, startup) = (wanted - ready, Millis(MINUTE));
    Group {
        placement,
        wanted,
        ready,
        serving: ready,
        pending,
        draining,
        surplus,
        replacing,
        outdated: false,
        holds: vec![],
        startup,
    }
}

fn model() -> Model {
    Model {
        namespace: "demo".into(),
        name: "chat".into(),
        objective: Objective::MaximizeValue,
        quality_floor: None,
        priority: 100,
        min: 1,
        max: 3,
        pinned: None,
        idle_after: None,
        scale_down_after: Millis(MINUTE),
        candidates: vec![
            candidate("f16", "standard", 2, 1_000_000),
            candidate("q8", "standard", 1, 1_000_000),
            candidate("q4", "small", 1, 950_000),
        ],
        groups: vec![group("q8", "standard", 1, 1)],
        load: Some(Load::default()),
        blind_because: None,
        needs: vec![],
        observed_since: Millis(0),
    }
}

fn snapshot(model: Model, ceiling: &str) -> Snapshot {
    let class = |price| HardwareClass { price_per_hour: usd(price), max_devices: Some(3), offered: None, gone: false };
    Snapshot {
        format: SNAPSHOT_FORMAT,
        now: NOW,
        classes: [("standard".into(), class("1.00")), ("small".into(), class("0.20"))].into(),
        ceilings: vec![Ceiling {
            policy: "demo/cost".into(),
            period: "Month".into(),
            namespace: Some("demo".into()),
            amount: usd(ceiling),
            settled: NanoUsd::ZERO,
            period_end: Millis(NOW.0 + 10_000 * MINUTE),
            enforced: true,
        }],
        models: [("demo/chat".into(), model)].into(),
        orphans: vec![],
    }
}

fn load(running: u32, waiting: u32, tokens: u64) -> Option<Load> {
    Some(Load { running, waiting, tokens_in_flight: Tokens(tokens) })
}

fn planned(snapshot: &Snapshot) -> ModelPlan {
    decide(snapshot).models["demo/chat"].clone()
}

fn replicas(plan: &ModelPlan) -> Vec<(&str, u32)> {
    plan.groups.iter().map(|group| (group.placement.variant.as_str(), group.replicas)).collect()
}

fn verdict<'a>(plan: &'a ModelPlan, variant: &str) -> &'a Verdict {
    &plan.considered.iter().find(|considered| considered.placement.variant == variant).expect("considered").verdict
}

/// A second model beside the first, of the same priority, planned before it.
fn beside(first: Model, second: Model, ceiling: &str) -> Snapshot {
    let mut both = snapshot(first, ceiling);
    both.models.insert("demo/a".into(), Model { name: "a".into(), ..second });
    both
}
