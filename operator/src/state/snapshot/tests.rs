use super::super::fixtures::{class, gpu_class, group, model, placement, pod, policy, ready_pod};
use super::super::{GroupView, Kind, NodeView, Object, Settled};
use super::*;
use crate::state::Failure;
use crate::telemetry::{GatewayModel, GatewayReading, PodReading};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quartermaster_core::plan::{Reason, decide};
use quartermaster_core::snapshot::{Group, Orphan};
use quartermaster_core::units::Tokens;
use std::sync::Arc;

const NOW: Millis = Millis(1_795_340_000_000);

struct World {
    index: Index,
    memory: Memory,
    readings: Readings,
    settings: Settings,
    last_classes: BTreeMap<String, HardwareClass>,
}

impl World {
    /// A model with one ready replica of q8, an idle gateway, a policy of 1 USD an hour of which 0.25 are settled.
    fn new() -> Self {
        let mut index = Index::default();
        for class in [class("cpu-standard"), class("cpu-small"), gpu_class("h200")] {
            index.apply(Kind::HardwareClass, class.name_any(), Object::HardwareClass(Arc::new(class)));
        }
        index.apply(
            Kind::ModelDeployment,
            "demo/chat".into(),
            Object::ModelDeployment(Arc::new(model("demo", "chat"))),
        );
        index.apply(
            Kind::CostPolicy,
            "demo/cap".into(),
            Object::CostPolicy(Arc::new(policy("demo", "cap", "Namespace", "1"))),
        );
        let (memory, readings, settings) = (Memory::default(), Readings::default(), settings());
        let mut world = Self { index, memory, readings, settings, last_classes: BTreeMap::new() };
        let config_hash = world.hash("q8");
        let group = group("demo", "chat", "q8", "cpu-standard", 1);
        world.put_group(GroupView { config_hash: config_hash.clone(), ..group });
        world.put_pod(PodView { config_hash, ..ready_pod("demo", "chat", "q8", "cpu-standard", 1) });
        world.readings.gateways_expected = true;
        let said = GatewayModel { waiting: 1, tokens_in_flight: Tokens(300) };
        let reading = GatewayReading { at: NOW, models: [("demo/chat".to_owned(), said)].into() };
        world.readings.gateways.insert("10.0.0.9:9090".into(), reading);
        world.settle("demo", NanoUsd(250_000_000));
        world
    }

    /// Hash of a variant on `cpu-standard`, as it would be built now.
    fn hash(&self, variant: &str) -> String {
        self.inputs().described().alone("demo/chat", &placement(variant, "cpu-standard", 1)).unwrap()
    }

    fn group(&self) -> Group {
        self.build().snapshot.models["demo/chat"].groups[0].clone()
    }

    fn put_group(&mut self, group: GroupView) {
        self.index.apply(Kind::Deployment, format!("{}/{}", group.namespace, group.name), Object::Deployment(group));
    }

    fn put_pod(&mut self, pod: PodView) {
        if pod.ready() {
            let reading = PodReading { at: NOW, running: 2, waiting: 0, slots: Some(4), tokens_per_second: Some(40.0) };
            self.readings.pods.insert(pod.uid.clone(), reading);
        }
        self.index.apply(Kind::Pod, format!("{}/{}", pod.namespace, pod.name), Object::Pod(pod));
    }

    fn settle(&mut self, namespace: &str, amount: NanoUsd) {
        let start = Millis(NOW.0.div_euclid(3_600_000) * 3_600_000);
        self.memory.settled.insert((Some(namespace.into()), start), Settled { amount, at: NOW, ..Settled::default() });
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            index: &self.index,
            memory: &self.memory,
            readings: &self.readings,
            last_classes: &self.last_classes,
            settings: &self.settings,
            namespace: "quartermaster-system",
            fresh_for: Millis(15_000),
            now: NOW,
        }
    }

    fn build(&self) -> Seen {
        build(&self.inputs())
    }
}

fn settings() -> Settings {
    Settings { inference_image: "example/inference-pod:1".into(), ..Settings::default() }
}

#[test]
fn a_snapshot() {
    let mut world = World::new();
    let readings = world.readings.clone();
    world.memory.measure(world.index.replicas(), &readings);
    insta::assert_json_snapshot!("snapshot", world.build().snapshot);
}

#[test]
fn the_same_inputs_give_the_same_snapshot() {
    assert_eq!(World::new().build(), World::new().build());
}

#[test]
fn a_silent_replica_or_gateway_is_blindness_and_holds() {
    let silences: [fn(&mut World); 3] = [
        |world| world.readings.pods.clear(),
        |world| world.readings.gateways.clear(),
        |world| world.readings.gateways.get_mut("10.0.0.9:9090").unwrap().at = Millis(NOW.0 - 15_001),
    ];
    for silence in silences {
        let mut world = World::new();
        silence(&mut world);
        let seen = world.build();
        assert_eq!(seen.snapshot.models["demo/chat"].load, None);
        assert!(seen.blind.contains_key("demo/chat"));
        let plan = decide(&seen.snapshot);
        assert!(matches!(plan.models["demo/chat"].reason, Reason::SignalsBlind { .. }));
        assert_eq!(plan.models["demo/chat"].groups[0].replicas, 1);
    }
}

#[test]
fn a_ceiling_whose_spend_is_not_known_lets_nothing_new_start() {
    let mut world = World::new();
    world.memory.settled.clear();
    world.memory.ledger_failed = Some("reading spend at the ledger http://ledger: refused".into());
    let seen = world.build();
    assert!(seen.snapshot.ceilings.is_empty(), "an unknown sum is not zero");
    let model = &seen.snapshot.models["demo/chat"];
    assert_eq!(model.load, None);
    assert!(model.blind_because.as_deref().unwrap().contains("http://ledger"));
    assert!(seen.unknown.contains_key("demo/cap"));
}

#[test]
fn an_observing_policy_without_figures_holds_nobody() {
    let mut world = World::new();
    world.memory.settled.clear();
    let mut watch = policy("demo", "cap", "Namespace", "1");
    watch.spec.mode = Mode::Observe;
    world.index.apply(Kind::CostPolicy, "demo/cap".into(), Object::CostPolicy(Arc::new(watch)));
    assert!(world.build().snapshot.models["demo/chat"].load.is_some());
}

#[test]
fn scope_cluster_is_obeyed_in_the_own_namespace_only() {
    let mut world = World::new();
    let start = Millis(NOW.0.div_euclid(3_600_000) * 3_600_000);
    let settled = Settled { amount: NanoUsd(5), at: NOW, ..Settled::default() };
    world.memory.settled.insert((None, start), settled);
    for (namespace, count) in [("demo", 1), ("quartermaster-system", 2)] {
        let wide = policy(namespace, "wide", "Cluster", "1");
        let key = format!("{namespace}/wide");
        world.index.apply(Kind::CostPolicy, key.clone(), Object::CostPolicy(Arc::new(wide)));
        assert_eq!(world.build().snapshot.ceilings.len(), count, "{namespace}");
        world.index.delete(Kind::CostPolicy, &key);
    }
}

#[test]
fn a_wake_counts_as_one_waiting_request_even_without_gateway_figures() {
    let mut world = World::new();
    world.index.delete(Kind::Pod, "demo/chat-cpu-standard-1-x");
    world.readings.gateways.clear();
    world.memory.wakes.insert("demo/chat".into(), Millis(NOW.0 - 1_000));
    assert_eq!(world.build().snapshot.models["demo/chat"].load.unwrap().waiting, 1);
    world.memory.wakes.insert("demo/chat".into(), Millis(NOW.0 - limits::WAKE_FRESH.0 - 1));
    assert_eq!(world.build().snapshot.models["demo/chat"].load, None);
}

#[test]
fn old_pods_of_a_rolling_variant_are_not_ready_with_the_new_one() {
    let mut world = World::new();
    world.put_group(group("demo", "chat", "q4", "cpu-standard", 2));
    let seen = world.build();
    let group = &seen.snapshot.models["demo/chat"].groups[0];
    assert_eq!((group.wanted, group.ready, group.pending), (2, 0, 2));
    assert_eq!((group.replacing, group.surplus), (1, 0), "the old one has yet to be replaced");
}

#[test]
fn a_pod_that_serves_another_variant_of_its_group_serves_somebody() {
    let mut world = holding(&["q8", "q4"]);
    let view = world.index.group("demo/chat-cpu-standard-1").unwrap().clone();
    world.put_group(GroupView { placement: placement("q4", "cpu-standard", 1), ..view });
    let group = world.group();
    assert_eq!((group.ready, group.serving, group.replacing), (0, 1, 0));
}

#[test]
fn whoever_holds_a_device_is_counted_until_it_has_ended() {
    let mut world = World::new();
    let leaving = |name: &str, uid: &str, finished_at| {
        let pod = pod("demo", "chat", "q8", "cpu-standard", 1);
        PodView { name: name.into(), uid: uid.into(), deleting: true, finished_at, ..pod }
    };
    world.put_pod(leaving("leaves", "u1", None));
    world.put_pod(leaving("left", "u2", Some(NOW)));
    let told_soon = PodView { name: "more".into(), config_hash: world.hash("q8"), ..leaving("", "u3", None) };
    world.put_pod(PodView { deleting: false, ..told_soon });
    let group = world.group();
    assert_eq!((group.draining, group.surplus, group.replacing), (1, 1, 0));
    let gone_by = Some(Millis(NOW.0 - limits::POD_OVERDUE.0 - 1));
    world.put_pod(PodView { gone_by, ..leaving("leaves", "u1", None) });
    assert_eq!(world.group().draining, 0, "it is lost with its node");
}

#[test]
fn a_change_of_model_class_or_image_makes_a_group_outdated() {
    let outdated = |change: fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.group().outdated
    };
    assert!(!outdated(|_| {}));
    assert!(outdated(|world| world.settings.inference_image = "example/inference-pod:2".into()));
    assert!(outdated(|world| {
        let mut object = model("demo", "chat");
        object.spec.serving.context_tokens = 512;
        world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(object)));
    }));
    assert!(outdated(|world| {
        let mut object = class("cpu-standard");
        object.spec.node_selector.insert("pool".into(), "cpu".into());
        world.index.apply(Kind::HardwareClass, "cpu-standard".into(), Object::HardwareClass(Arc::new(object)));
    }));
    assert!(!outdated(|world| {
        world.index.delete(Kind::HardwareClass, "cpu-standard");
    }));
}

#[test]
fn pods_that_outlive_their_model_or_deployment_are_orphans() {
    let mut world = World::new();
    assert_eq!(world.build().snapshot.orphans, []);
    world.index.delete(Kind::Deployment, "demo/chat-cpu-standard-1");
    let orphans = [Orphan { namespace: "demo".into(), placement: placement("q8", "cpu-standard", 1), replicas: 1 }];
    assert_eq!(world.build().snapshot.orphans, orphans);
    world.index.delete(Kind::ModelDeployment, "demo/chat");
    assert_eq!(world.build().snapshot.orphans, orphans);
}

#[test]
fn nodes_offer_what_is_usable_and_never_less_than_is_held() {
    let mut world = World::new();
    let mut node = NodeView { usable: true, ..NodeView::default() };
    node.allocatable =
        [("cpu", "1"), ("memory", "64Gi")].map(|(name, amount)| (name.into(), Quantity(amount.into()))).into();
    world.index.apply(Kind::Node, "n".into(), Object::Node(node.clone()));
    let standard = |world: &World| world.build().snapshot.classes["cpu-standard"].clone();
    assert_eq!((standard(&world).offered, standard(&world).max_devices), (Some(3), Some(3)));
    world.index.apply(Kind::Node, "n".into(), Object::Node(NodeView { usable: false, ..node }));
    assert_eq!(standard(&world).offered, Some(1), "a cordon stops no replica");
}

#[test]
fn what_serves_on_a_deleted_class_keeps_its_price_and_its_place() {
    let mut world = World::new();
    let before = world.build().snapshot.classes;
    world.index.delete(Kind::HardwareClass, "cpu-standard");
    world.last_classes = before.clone();
    let seen = world.build();
    let gone = &seen.snapshot.classes["cpu-standard"];
    assert_eq!(
        (gone.gone, gone.max_devices, gone.price_per_hour),
        (true, Some(1), before["cpu-standard"].price_per_hour)
    );
    let plan = decide(&seen.snapshot);
    assert_eq!((plan.models["demo/chat"].groups.len(), plan.models["demo/chat"].groups[0].replicas), (1, 1));
    world.index.delete(Kind::Pod, "demo/chat-cpu-standard-1-x");
    assert!(!world.build().snapshot.classes.contains_key("cpu-standard"), "nothing holds it any more");
}

#[test]
fn a_restarted_operator_holds_what_serves_on_a_deleted_class() {
    let mut world = World::new();
    world.index.delete(Kind::HardwareClass, "cpu-standard");
    let seen = world.build();
    let because = "there is no HardwareClass cpu-standard: what its replicas cost is not known";
    assert_eq!(seen.snapshot.models["demo/chat"].blind_because.as_deref(), Some(because));
    assert_eq!(decide(&seen.snapshot).models["demo/chat"].groups[0].replicas, 1);
}

fn failing(world: &World, variant: &str) -> PodView {
    let reason = quartermaster_crds::condition::Reason::ModelCorrupt;
    let failure = Failure { reason, message: "no GGUF".into(), since: None, variant: None };
    PodView {
        config_hash: world.hash(variant),
        failure: Some(failure),
        uid: "bad".into(),
        ..pod("demo", "chat", variant, "cpu-standard", 1)
    }
}

/// A world whose one group holds `files`, serves q8, and has a pod without trouble.
fn holding(files: &[&str]) -> World {
    let mut world = World::new();
    let mut object = model("demo", "chat");
    object.spec.variants[1].hardware[0].class = "cpu-standard".into();
    world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(object)));
    let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
    let held = GroupView { files, ..group("demo", "chat", "q8", "cpu-standard", 1) };
    world.put_group(held.clone());
    let config_hash = world.inputs().described().hash("demo/chat", &held.placement).unwrap();
    world.put_group(GroupView { config_hash: config_hash.clone(), ..held });
    world.put_pod(PodView { config_hash, ..ready_pod("demo", "chat", "q8", "cpu-standard", 1) });
    world
}

#[test]
fn pods_that_hold_a_file_can_be_told_to_serve_it_unless_they_are_outdated() {
    let mut world = holding(&["q8", "q4"]);
    assert_eq!((world.group().holds, world.group().outdated), (vec!["q8".to_owned(), "q4".to_owned()], false));
    let mut object = model("demo", "chat");
    object.spec.variants[1].hardware[0].class = "cpu-standard".into();
    object.spec.variants.remove(0);
    let declared = world.index.models["demo/chat"].clone();
    world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(object)));
    assert_eq!(world.group().holds, Vec::<String>::new(), "pods with a file that is no longer declared are replaced");
    world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(declared));
    world.settings.inference_image = "example/inference-pod:2".into();
    assert_eq!((world.group().holds, world.group().outdated), (vec![], true));
}

#[test]
fn a_file_that_keeps_pods_from_starting_is_held_against_its_variant_and_left_out() {
    let mut world = holding(&["q8", "q4"]);
    let reason = quartermaster_crds::condition::Reason::SourceUnavailable;
    let failure = Failure { reason, message: "no image".into(), since: None, variant: Some("q4".into()) };
    let config_hash = world.index.group("demo/chat-cpu-standard-1").unwrap().config_hash.clone();
    let starting = pod("demo", "chat", "q8", "cpu-standard", 1);
    let created = Millis(NOW.0 - limits::FILE_GRACE.0);
    let bad =
        PodView { name: "bad".into(), uid: "bad".into(), config_hash, failure: Some(failure), created, ..starting };
    let mut memory = world.memory.clone();
    world.put_pod(PodView { created: Millis(created.0 + 1), ..bad.clone() });
    note_failures(&world.index, &world.settings, NOW, &mut memory);
    assert!(memory.models.is_empty(), "a registry may have a bad moment, and others serve");
    world.put_pod(bad);
    note_failures(&world.index, &world.settings, NOW, &mut memory);
    world.memory = memory;
    let candidates = world.build().snapshot.models["demo/chat"].candidates.clone();
    assert_eq!((&candidates[0].unusable, candidates[1].unusable.is_some()), (&None, true));
    assert!(world.group().outdated, "its pods are described without it now");
    let q8 = placement("q8", "cpu-standard", 1);
    assert_eq!(world.inputs().described().files("demo/chat", &q8), ["q8"]);
}

#[test]
fn a_refused_swap_bars_the_variant_and_replaces_no_pod() {
    let mut world = holding(&["q8", "q4"]);
    let on = placement("q4", "cpu-standard", 1);
    let refusal = Refusal { model: "demo/chat".into(), placement: on, generation: 1, message: "too large".into() };
    let mut memory = world.memory.clone();
    let older = Refusal { generation: 0, ..refusal.clone() };
    note_refusal(&world.index, &world.settings, NOW, &mut memory, older);
    assert!(memory.models.is_empty(), "what was refused is not what is declared now");
    note_refusal(&world.index, &world.settings, NOW, &mut memory, refusal);
    world.memory = memory;
    let candidate = &world.build().snapshot.models["demo/chat"].candidates[1];
    assert_eq!(candidate.unusable.as_deref(), Some("EngineFailing: too large"));
    assert!(!world.group().outdated);
}

fn verdict(world: &World) -> Option<String> {
    world.build().snapshot.models["demo/chat"].candidates[0].unusable.clone()
}

#[test]
fn a_failing_pod_makes_its_candidate_unusable_for_a_while() {
    let mut world = World::new();
    world.index.delete(Kind::Pod, "demo/chat-cpu-standard-1-x");
    let bad = failing(&world, "q8");
    world.put_pod(bad.clone());
    let mut memory = Memory::default();
    note_failures(&world.index, &world.settings, NOW, &mut memory);
    world.memory.models = memory.models;
    assert_eq!(verdict(&world).as_deref(), Some("ModelCorrupt: no GGUF"));
    let mut changed = model("demo", "chat");
    changed.metadata.generation = Some(2);
    world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(changed)));
    assert_eq!(verdict(&world), None, "a new spec is tried");
}

#[test]
fn a_failure_is_not_held_against_a_placement_that_serves_or_that_changed() {
    let mut world = World::new();
    let bad = PodView { name: "bad".into(), ..failing(&world, "q8") };
    world.put_pod(bad.clone());
    let mut memory = Memory::default();
    note_failures(&world.index, &world.settings, NOW, &mut memory);
    assert!(memory.models.is_empty(), "another pod of the placement serves");
    world.index.delete(Kind::Pod, "demo/chat-cpu-standard-1-x");
    world.put_pod(PodView { config_hash: "older".into(), ..bad });
    note_failures(&world.index, &world.settings, NOW, &mut memory);
    assert!(memory.models.is_empty(), "what failed is no longer what would run");
}

#[test]
fn what_is_not_implemented_is_unusable_and_says_so() {
    let mut world = World::new();
    let mut object = model("demo", "chat");
    object.spec.variants[0].source = "hf://org/model".into();
    world.index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(object)));
    assert!(verdict(&world).unwrap().contains("source hf://org/model: write"));
    world.index.delete(Kind::HardwareClass, "cpu-small");
    let seen = world.build();
    assert_eq!(seen.snapshot.models["demo/chat"].candidates[1].unusable, None);
    let plan = decide(&seen.snapshot);
    let sentence = plan.models["demo/chat"].considered[1].verdict.to_string();
    assert_eq!(sentence, "there is no HardwareClass cpu-small");
}

#[test]
fn an_unreadable_policy_keeps_its_ceiling_or_hides_what_it_may_bind() {
    let mut world = World::new();
    let unread = || Object::Invalid("unknown period".into());
    world.index.apply(Kind::CostPolicy, "demo/cap".into(), unread());
    let seen = world.build();
    assert_eq!(seen.snapshot.ceilings.len(), 1, "the last readable ceiling stays");
    assert!(seen.snapshot.models["demo/chat"].load.is_some());
    world.index.apply(Kind::CostPolicy, "other/new".into(), unread());
    assert!(world.build().snapshot.models["demo/chat"].load.is_some(), "it binds another namespace");
    world.index.apply(Kind::CostPolicy, "demo/new".into(), unread());
    let seen = world.build();
    let model = &seen.snapshot.models["demo/chat"];
    assert_eq!(model.load, None);
    assert!(model.blind_because.as_deref().unwrap().contains("demo/new"));
}
