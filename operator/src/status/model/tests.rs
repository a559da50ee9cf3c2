use super::*;
use crate::state::fixtures::{class, group, model as model_object, placement, pod, policy, ready_pod};
use crate::state::snapshot::{Inputs, Seen, build};
use crate::state::{Kind, Object, Settled};
use crate::telemetry::{GatewayModel, GatewayReading, PodReading, Readings};
use quartermaster_core::plan::{Plan as CorePlan, decide};
use quartermaster_core::units::Tokens;
use quartermaster_crds::condition::{ConditionType, get};
use std::sync::Arc;

const NOW: Millis = Millis(1_795_340_000_000);

struct World {
    index: Index,
    memory: Memory,
    readings: Readings,
}

impl World {
    fn new() -> Self {
        let mut index = Index::default();
        for class in [class("cpu-standard"), class("cpu-small")] {
            index.apply(Kind::HardwareClass, class.name_any(), Object::HardwareClass(Arc::new(class)));
        }
        let mut readings = Readings { gateways_expected: true, ..Readings::default() };
        let said = GatewayModel { waiting: 0, tokens_in_flight: Tokens(0) };
        let reading = GatewayReading { at: NOW, models: [("demo/chat".to_owned(), said)].into() };
        readings.gateways.insert("g".into(), reading);
        let mut world = Self { index, memory: Memory::default(), readings };
        let mut object = model_object("demo", "chat");
        object.spec.variants.pop();
        world.put_model(object);
        world
    }

    fn put_model(&mut self, model: ModelDeployment) {
        self.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(model)));
    }

    fn put_pod(&mut self, pod: PodView) {
        let reading = PodReading { at: NOW, running: 0, waiting: 0, slots: Some(4), tokens_per_second: Some(50.0) };
        self.readings.pods.insert(pod.uid.clone(), reading);
        self.index.apply(Kind::Pod, pod.uid.clone(), Object::Pod(pod));
    }

    fn serve(&mut self, variant: &str, class: &str) {
        let view = group("demo", "chat", variant, class, 1);
        self.index.apply(Kind::Deployment, format!("demo/{}", view.name), Object::Deployment(view));
        self.put_pod(ready_pod("demo", "chat", variant, class, 1));
    }

    /// A ceiling that lets only `amount` USD an hour be spent.
    fn ceiling(&mut self, amount: &str) {
        let object = Object::CostPolicy(Arc::new(policy("demo", "cap", "Namespace", amount)));
        self.index.apply(Kind::CostPolicy, "demo/cap".into(), object);
        let start = Millis(NOW.0.div_euclid(3_600_000) * 3_600_000);
        self.memory.settled.insert((Some("demo".into()), start), Settled { amount: NanoUsd::ZERO, at: NOW });
    }

    fn decided(&self, now: Millis) -> (Seen, CorePlan) {
        let settings = crate::build::Settings { inference_image: "i".into(), pull_policy: "Always".into() };
        let seen = build(&Inputs {
            index: &self.index,
            memory: &self.memory,
            readings: &self.readings,
            last_classes: &std::collections::BTreeMap::new(),
            settings: &settings,
            namespace: "qm",
            fresh_for: Millis(15_000),
            now,
        });
        let plan = decide(&seen.snapshot);
        (seen, plan)
    }

    fn status(&self, now: Millis) -> (ModelDeploymentStatus, Vec<Note>) {
        let (seen, plan) = self.decided(now);
        status(&Facts {
            key: "demo/chat",
            object: &self.index.models["demo/chat"],
            index: &self.index,
            memory: &self.memory,
            snapshot: &seen.snapshot,
            model: &seen.snapshot.models["demo/chat"],
            plan: &plan.models["demo/chat"],
            ceilings: &plan.ceilings,
            blind: seen.blind.get("demo/chat"),
            refused: None,
            now,
        })
    }
}

fn reason(status: &ModelDeploymentStatus, kind: ConditionType) -> (&str, &str) {
    let condition = get(&status.conditions, kind).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn a_model_that_serves() {
    let mut world = World::new();
    world.serve("q8", "cpu-standard");
    let (status, notes) = world.status(NOW);
    insta::assert_json_snapshot!("serving", status);
    assert_eq!(notes[0].reason, status.plan.as_ref().unwrap().reason, "one reason, several renderings");
    assert_eq!(notes[0].message, status.plan.as_ref().unwrap().message);
}

#[test]
fn the_same_plan_is_no_news_and_keeps_its_time() {
    let mut world = World::new();
    world.serve("q8", "cpu-standard");
    let (first, _) = world.status(NOW);
    let mut object = ModelDeployment::clone(&world.index.models["demo/chat"]);
    object.status = Some(first.clone());
    world.put_model(object);
    let (second, notes) = world.status(Millis(NOW.0 + 10_000));
    assert_eq!(second, first);
    assert!(notes.is_empty());
}

#[test]
fn a_lesser_variant_under_a_ceiling_says_why() {
    let mut world = World::new();
    let mut dear = class("cpu-standard");
    dear.spec.price.on_demand_per_hour = Money::from("10");
    world.index.apply(Kind::HardwareClass, "cpu-standard".into(), Object::HardwareClass(Arc::new(dear)));
    world.serve("q4", "cpu-small");
    world.ceiling("1");
    let (status, notes) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Degraded), ("True", "QualityLowered"));
    assert_eq!(reason(&status, ConditionType::AtCeiling), ("True", "CeilingReached"));
    assert_eq!(status.considered[0].verdict, Verdict::OverCeiling);
    assert_eq!(status.considered[1].verdict, Verdict::Chosen);
    let degraded = get(&status.conditions, ConditionType::Degraded).unwrap();
    assert!(
        degraded
            .message
            .starts_with("serving q4 on cpu-small (quality 0.95) instead of q8 on cpu-standard (quality 1)")
    );
    assert!(notes.iter().any(|note| note.reason == "QualityLowered" && note.warning));
}

#[test]
fn a_dominated_candidate_is_explained() {
    let mut world = World::new();
    let mut object = ModelDeployment::clone(&world.index.models["demo/chat"]);
    object.spec.variants[1].quality.score = Score::from("1");
    object.spec.variants[1].hardware[0].devices_per_replica = 2;
    world.put_model(object);
    world.serve("q8", "cpu-standard");
    let (status, _) = world.status(NOW);
    assert_eq!(status.considered[1].verdict, Verdict::Dominated);
    assert!(status.considered[1].message.contains("is as good and saves 0.01 USD an hour"));
    assert_eq!(reason(&status, ConditionType::Degraded).0, "False");
}

#[test]
fn an_unknown_class_and_an_unheeded_field_stall() {
    let mut world = World::new();
    world.index.delete(Kind::HardwareClass, "cpu-standard");
    world.serve("q4", "cpu-small");
    let (status, _) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Stalled), ("True", "UnknownHardwareClass"));
    assert_eq!(reason(&status, ConditionType::Ready), ("True", "Serving"), "what can be served is");
    assert_eq!(status.considered[0].verdict, Verdict::UnknownClass);
    let mut world = World::new();
    let mut object = ModelDeployment::clone(&world.index.models["demo/chat"]);
    object.spec.degrade_order = vec!["q8".into()];
    world.put_model(object);
    let (status, _) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Stalled), ("True", "NotImplemented"));
}

#[test]
fn a_corrupt_model_without_alternative_stalls() {
    let mut world = World::new();
    for (variant, class) in [("q8", "cpu-standard"), ("q4", "cpu-small")] {
        let on = placement(variant, class, 1);
        let settings = crate::build::Settings { inference_image: "i".into(), pull_policy: "Always".into() };
        let (object, class) = (&world.index.models["demo/chat"], &world.index.classes[class]);
        let shape = crate::build::Shape { model: object, class, placement: &on, settings: &settings };
        let failed = crate::state::Failed {
            reason: Reason::ModelCorrupt,
            message: "no GGUF magic".into(),
            config_hash: crate::build::config_hash(&shape).unwrap(),
            generation: 1,
            at: NOW,
        };
        world.memory.models.entry("demo/chat".into()).or_default().failures.insert(on, failed);
    }
    let (status, notes) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Stalled), ("True", "ModelCorrupt"));
    assert_eq!(reason(&status, ConditionType::Ready), ("False", "NoCandidate"));
    assert_eq!(status.considered[0].verdict, Verdict::SourceFailed);
    assert_eq!(status.plan, None);
    assert!(notes.iter().any(|note| note.message.contains("no GGUF magic")));
}

#[test]
fn blindness_is_a_condition() {
    let mut world = World::new();
    world.serve("q8", "cpu-standard");
    world.readings.gateways.clear();
    world.readings.gateways_failed = Some("getting http://gateway:9090/metrics: refused".into());
    let (first, notes) = world.status(NOW);
    assert_eq!(reason(&first, ConditionType::SignalsHealthy).0, "Unknown", "at first sight");
    assert!(notes.is_empty(), "{notes:?}");
    let mut object = ModelDeployment::clone(&world.index.models["demo/chat"]);
    object.status = Some(first);
    world.put_model(object);
    let (status, notes) = world.status(NOW);
    assert!(notes.iter().any(|note| note.warning && note.reason == "SignalsMissing"));
    assert_eq!(reason(&status, ConditionType::SignalsHealthy), ("False", "SignalsMissing"));
    assert!(
        get(&status.conditions, ConditionType::SignalsHealthy).unwrap().message.contains("http://gateway:9090/metrics")
    );
    assert_eq!(status.plan.unwrap().reason, "SignalsBlind");
}

#[test]
fn a_starting_model_reconciles() {
    let mut world = World::new();
    let view = group("demo", "chat", "q8", "cpu-standard", 1);
    world.index.apply(Kind::Deployment, "demo/chat-cpu-standard-1".into(), Object::Deployment(view));
    world.index.apply(Kind::Pod, "p".into(), Object::Pod(pod("demo", "chat", "q8", "cpu-standard", 1)));
    let (status, _) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Ready), ("False", "Starting"));
    assert_eq!(reason(&status, ConditionType::Reconciling), ("True", "Progressing"));
    assert_eq!((status.replicas, status.ready_replicas), (1, 0));
    assert_eq!(status.decisions[0].realised, None);
}
