use super::*;
use crate::state::fixtures::{class, gpu_class, group, model as model_object, placement, pod, policy, ready_pod};
use crate::state::snapshot::{Inputs, Seen, build};
use crate::state::{Kind, Object, Settled};
use crate::telemetry::{GatewayModel, GatewayReading, PodReading, Readings};
use quartermaster_core::plan::{Plan as CorePlan, decide};
use quartermaster_core::units::Tokens;
use quartermaster_crds::condition::{ConditionType, get};
use quartermaster_crds::v1alpha1::cost_policy::{CeilingPeriod, Mode};
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
        let models = [("demo/chat".to_owned(), NanoUsd(2_000_000)), ("demo/other".to_owned(), NanoUsd(7_000_000))];
        let settled = Settled { amount: NanoUsd(9_000_000), models: Arc::new(models.into()), at: NOW };
        self.memory.settled.insert((Some("demo".into()), start), settled);
    }

    fn decided(&self, now: Millis) -> (Seen, CorePlan) {
        let settings = crate::build::Settings::default();
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
            settled: &seen.settled,
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
fn the_models_own_part_of_the_tightest_ceiling_is_projected() {
    let mut world = World::new();
    world.serve("q8", "cpu-standard");
    let projected = |world: &World| world.status(NOW).0.cost.unwrap().projected.map(|money| money.0);
    assert_eq!(projected(&world), None, "nothing binds it");
    world.ceiling("1");
    // 2 mUSD are spent; 1,600 s of the hour at 10 mUSD an hour are to come.
    assert_eq!(projected(&world).as_deref(), Some("0.006444445"));
    let mut tight = policy("demo", "a-day", "Namespace", "0.01");
    tight.spec.ceilings[0].period = CeilingPeriod::Day;
    let start = Millis(NOW.0.div_euclid(86_400_000) * 86_400_000);
    world.memory.settled.insert((Some("demo".into()), start), Settled { at: NOW, ..Settled::default() });
    for (mode, says) in [(Mode::Enforce, "0.005"), (Mode::Observe, "0.006444445")] {
        tight.spec.mode = mode;
        world.index.apply(Kind::CostPolicy, "demo/a-day".into(), Object::CostPolicy(Arc::new(tight.clone())));
        assert_eq!(projected(&world).as_deref(), Some(says), "{mode:?}");
    }
    let mut object = ModelDeployment::clone(&world.index.models["demo/chat"]);
    object.status = Some(world.status(NOW).0);
    world.put_model(object);
    world.memory.settled.clear();
    assert_eq!(projected(&world), None);
    world.memory.ledger_failed = Some("away".into());
    assert_eq!(projected(&world).as_deref(), Some("0.006444445"), "a silent ledger is not zero");
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
fn hardware_that_the_engine_does_not_compute_on_is_barred_and_stalls() {
    let mut world = World::new();
    let gpu = Object::HardwareClass(Arc::new(gpu_class("h200")));
    world.index.apply(Kind::HardwareClass, "h200".into(), gpu);
    world.put_model(model_object("demo", "chat"));
    world.serve("q8", "cpu-standard");
    let (status, _) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Stalled), ("True", "NotImplemented"));
    let stalled = get(&status.conditions, ConditionType::Stalled).unwrap();
    assert!(stalled.message.ends_with("remove: spec.variants[local].hardware[h200]"), "{}", stalled.message);
    let local = status.considered.iter().find(|each| each.variant == "local").unwrap();
    assert_eq!(local.verdict, Verdict::NotImplemented);
    assert!(local.message.contains("HardwareClass h200 is of kind GPU"), "{}", local.message);
    assert_eq!(reason(&status, ConditionType::Ready), ("True", "Serving"), "what can be served is");
}

#[test]
fn of_two_models_with_one_name_the_one_that_clients_do_not_get_stalls() {
    let mut world = World::new();
    let put = |world: &mut World, namespace: &str, name: &str| {
        let mut object = model_object(namespace, name);
        object.spec.model = "chat-135m".into();
        world.index.apply(
            Kind::ModelDeployment,
            format!("{namespace}/{name}"),
            Object::ModelDeployment(Arc::new(object)),
        );
    };
    put(&mut world, "demo", "zebra");
    put(&mut world, "another", "bot");
    assert_eq!(reason(&world.status(NOW).0, ConditionType::Stalled).0, "False", "the first by name has it");
    put(&mut world, "demo", "bot");
    let (status, _) = world.status(NOW);
    assert_eq!(reason(&status, ConditionType::Stalled), ("True", "DuplicateModel"));
    let message = &get(&status.conditions, ConditionType::Stalled).unwrap().message;
    assert!(message.contains("chat-135m get ModelDeployment bot, and this one only as chat"), "{message}");
}

#[test]
fn the_conditions_are_those_that_the_schema_announces() {
    let (status, _) = World::new().status(NOW);
    let set: Vec<&str> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    let crds = quartermaster_crds::all();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == "ModelDeployment").unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let of_status = schema.properties.as_ref().unwrap()["status"].properties.as_ref().unwrap();
    assert_eq!(of_status["conditions"].description.as_deref(), Some(format!("{}.", set.join(", ")).as_str()));
}

#[test]
fn a_corrupt_model_without_alternative_stalls() {
    let mut world = World::new();
    for (variant, class) in [("q8", "cpu-standard"), ("q4", "cpu-small")] {
        let on = placement(variant, class, 1);
        let settings = crate::build::Settings::default();
        let (index, memory) = (&world.index, &world.memory);
        let described = crate::state::Described { index, memory, settings: &settings, now: NOW };
        let config_hash = described.alone("demo/chat", &on).unwrap();
        let failed = crate::state::Failed {
            reason: Reason::ModelCorrupt,
            message: "no GGUF magic".into(),
            fault: crate::build::Fault::Start,
            config_hash,
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
