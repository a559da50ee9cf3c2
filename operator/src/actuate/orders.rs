//! What to do so that the cluster becomes the plan. Pure.

use crate::names;
use crate::state::{Described, Index, Known, Memory, PodView};
use kube::ResourceExt;
use quartermaster_core::plan::{GroupPlan, ModelPlan, Plan};
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Service, PodDisruptionBudget and NetworkPolicy of a model are as built.
    Model {
        /// `namespace/name`.
        model: String,
        /// Generation of the spec that the plan was made of.
        generation: i64,
    },
    /// ConfigMap and Deployment of a group are as built, or as they were, with so many replicas.
    Group {
        /// `namespace/name`.
        model: String,
        /// Generation of the spec that the plan was made of.
        generation: i64,
        /// What it serves.
        placement: Placement,
        /// The variants whose files its pods hold.
        files: Vec<String>,
        /// How many.
        replicas: u32,
        /// Their pods stay as they are, whatever the spec says.
        hold: bool,
    },
    /// A pod says what it serves, or is told to serve another variant.
    Tell {
        /// `namespace/name` of the model.
        model: String,
        /// Generation of the spec that the plan was made of.
        generation: i64,
        /// UID of the pod.
        uid: String,
        /// Name of the pod.
        pod: String,
        /// `ip:port` of its API.
        address: String,
        /// What it shall serve; none only asks.
        variant: Option<Placement>,
    },
    /// A group that gateways know as draining goes to zero.
    Stop {
        /// Namespace.
        namespace: String,
        /// Name of the Deployment.
        name: String,
    },
    /// A group without pods goes.
    Delete {
        /// Namespace.
        namespace: String,
        /// Name of the Deployment and ConfigMap.
        name: String,
    },
}

/// Notes which groups the plan names no more; from the next publication on, gateways send them nothing new.
pub fn retire(index: &Index, plan: &Plan, memory: &mut Memory, now: Millis) {
    for (key, planned) in &plan.models {
        let Some((namespace, name)) = key.split_once('/') else { continue };
        let leaving: Vec<(String, u32)> = index
            .groups_of(namespace, name)
            .filter(|group| !named(planned, &group.placement))
            .map(|group| (group.placement.class.clone(), group.placement.devices))
            .collect();
        let model = memory.models.entry(key.clone()).or_default();
        model.retiring.retain(|group, _| leaving.contains(group));
        for group in leaving {
            model.retiring.entry(group).or_insert(now);
        }
    }
}

/// Everything to do now. New groups come first: make before break.
#[must_use]
pub fn orders(described: &Described<'_>, plan: &Plan) -> Vec<Order> {
    let Described { index, memory, now, .. } = *described;
    let mut orders = Vec::new();
    for (key, planned) in &plan.models {
        let Some(object) = index.models.get(key) else { continue };
        let generation = object.metadata.generation.unwrap_or(0);
        orders.push(Order::Model { model: key.clone(), generation });
        orders.extend(planned.groups.iter().map(|group| Order::Group {
            model: key.clone(),
            generation,
            placement: group.placement.clone(),
            files: described.files(key, &group.placement),
            replicas: group.replicas,
            hold: group.hold,
        }));
        orders.extend(planned.groups.iter().flat_map(|group| tell(described, key, generation, group)));
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        for group in index.groups_of(&namespace, &name).filter(|group| !named(planned, &group.placement)) {
            let hardware = (group.placement.class.clone(), group.placement.devices);
            let since = memory.models.get(key).and_then(|model| model.retiring.get(&hardware));
            let of_group = |pod: &&crate::state::PodView| pod.placement.same_hardware(&group.placement);
            let pods = index.pods_of(&namespace, &name).filter(of_group).count();
            let (namespace, name) = (group.namespace.clone(), group.name.clone());
            match (group.wanted, pods) {
                (0, 0) => orders.push(Order::Delete { namespace, name }),
                // Told to the gateways in an earlier tick.
                (1.., _) if since.is_some_and(|since| *since < now) => orders.push(Order::Stop { namespace, name }),
                _ => {}
            }
        }
    }
    orders
}

/// Pods that have not said what they serve are asked. Of those that serve another variant than planned and hold its file,
/// one at a time is told to serve it, so that no more than one is busy with it; none while their group is held, before it is
/// written down what they are to serve, or after one could not.
fn tell(described: &Described<'_>, key: &str, generation: i64, planned: &GroupPlan) -> Vec<Order> {
    let Some(group) = described.group(key, &planned.placement) else { return Vec::new() };
    let all = || {
        let pods = described.index.pods_of(&group.namespace, &group.model);
        pods.filter(|pod| pod.live() && pod.placement.same_hardware(&planned.placement))
    };
    let pods: Vec<&PodView> = all().filter(|pod| pod.ready()).collect();
    let order = |pod: &PodView, variant: Option<&Placement>| {
        let (model, uid, name) = (key.to_owned(), pod.uid.clone(), pod.name.clone());
        Some(Order::Tell { model, generation, uid, pod: name, address: pod.address()?, variant: variant.cloned() })
    };
    let ask = pods.iter().filter(|pod| pod.known == Known::Assumed).filter_map(|pod| order(pod, None));
    // Looked at only where one is to be told: it describes the pods anew.
    let swaps = || {
        !planned.hold
        && group.placement == planned.placement
        // One that swaps may be unready meanwhile.
        && pods.iter().all(|pod| pod.known == Known::Said)
        && all().all(|pod| pod.known != Known::Asked)
        && described.failed(key, &planned.placement).is_none()
        // A template that is about to change replaces them all.
        && described.hash(key, &planned.placement).as_deref() == Some(&group.config_hash)
    };
    let other =
        |pod: &&&PodView| pod.config_hash == group.config_hash && pod.placement.variant != planned.placement.variant;
    let swap = pods.iter().find(other).filter(|_| swaps()).and_then(|pod| order(pod, Some(&planned.placement)));
    ask.chain(swap).collect()
}

fn named(planned: &ModelPlan, placement: &Placement) -> bool {
    planned.groups.iter().any(|group| group.placement.same_hardware(placement))
}

impl Order {
    /// `namespace/name` of the Deployment that it is about, for logs.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::Model { model, .. } => model.clone(),
            Self::Group { model, placement, .. } => {
                let (namespace, name) = model.split_once('/').unwrap_or(("", model));
                names::key(namespace, &names::group_name(name, placement))
            }
            Self::Tell { model, pod, .. } => {
                let namespace = model.split_once('/').map_or("", |(namespace, _)| namespace);
                names::key(namespace, pod)
            }
            Self::Stop { namespace, name } | Self::Delete { namespace, name } => names::key(namespace, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Settings;
    use crate::state::fixtures::{group, model, placement, ready_pod};
    use crate::state::{GroupView, Kind, Object};
    use quartermaster_core::plan::{GroupPlan, Reason};
    use quartermaster_core::units::NanoUsd;
    use std::sync::Arc;

    fn plan(groups: &[(&str, &str, u32)]) -> Plan {
        let groups =
            groups.iter().map(|(variant, class, replicas)| GroupPlan::new(placement(variant, class, 1), *replicas));
        let planned = ModelPlan {
            serve: None,
            groups: groups.collect(),
            needed: Some(1),
            reason: Reason::Asleep,
            considered: vec![],
            cost_per_hour: NanoUsd::ZERO,
        };
        Plan { models: [("demo/chat".to_owned(), planned)].into(), ceilings: vec![] }
    }

    fn index(wanted: u32, with_pod: bool) -> Index {
        let mut index = Index::default();
        index.apply(
            Kind::ModelDeployment,
            "demo/chat".into(),
            Object::ModelDeployment(Arc::new(model("demo", "chat"))),
        );
        let old = group("demo", "chat", "q8", "cpu-standard", wanted);
        index.apply(Kind::Deployment, "demo/chat-cpu-standard-1".into(), Object::Deployment(old));
        if with_pod {
            let pod = ready_pod("demo", "chat", "q8", "cpu-standard", 1);
            index.apply(Kind::Pod, "demo/p".into(), Object::Pod(pod));
        }
        index
    }

    fn orders(index: &Index, plan: &Plan, memory: &Memory, now: Millis) -> Vec<Order> {
        super::orders(&Described { index, memory, settings: &Settings::default(), now }, plan)
    }

    fn stops(orders: &[Order]) -> usize {
        orders.iter().filter(|order| matches!(order, Order::Stop { .. })).count()
    }

    #[test]
    fn a_group_drains_then_stops_then_goes() {
        let plan = plan(&[("q4", "cpu-small", 2)]);
        let mut memory = Memory::default();
        retire(&index(1, true), &plan, &mut memory, Millis(10));
        let first = orders(&index(1, true), &plan, &memory, Millis(10));
        assert_eq!(first.len(), 2, "gateways hear of it first: {first:?}");
        assert_eq!(first[1].object(), "demo/chat-cpu-small-1");
        retire(&index(1, true), &plan, &mut memory, Millis(15));
        assert_eq!(stops(&orders(&index(1, true), &plan, &memory, Millis(15))), 1);
        assert_eq!(orders(&index(0, true), &plan, &memory, Millis(20)).len(), 2, "its pod still finishes");
        let (namespace, name) = ("demo".to_owned(), "chat-cpu-standard-1".to_owned());
        assert_eq!(orders(&index(0, false), &plan, &memory, Millis(25))[2], Order::Delete { namespace, name });
    }

    #[test]
    fn a_group_that_is_wanted_again_stays() {
        let mut memory = Memory::default();
        retire(&index(1, true), &plan(&[]), &mut memory, Millis(10));
        assert_eq!(memory.models["demo/chat"].retiring.len(), 1);
        let back = plan(&[("q4", "cpu-standard", 1)]);
        retire(&index(1, true), &back, &mut memory, Millis(15));
        assert!(memory.models["demo/chat"].retiring.is_empty());
        assert_eq!(stops(&orders(&index(1, true), &back, &memory, Millis(20))), 0);
    }

    #[test]
    fn a_deployment_of_somebody_else_with_our_labels_is_left_alone() {
        let mut index = index(0, false);
        let foreign = GroupView { owner: None, ..group("demo", "chat", "q8", "cpu-standard", 2) };
        index.apply(Kind::Deployment, "demo/chat-cpu-standard-1".into(), Object::Deployment(foreign));
        let mut memory = Memory::default();
        retire(&index, &plan(&[]), &mut memory, Millis(10));
        assert_eq!(orders(&index, &plan(&[]), &memory, Millis(15)).len(), 1, "only what the model has once");
    }

    #[test]
    fn a_group_that_may_not_roll_is_only_scaled() {
        let mut held = plan(&[("q8", "cpu-standard", 1)]);
        held.models.get_mut("demo/chat").unwrap().groups[0].hold = true;
        let orders = orders(&index(1, true), &held, &Memory::default(), Millis(0));
        assert!(matches!(orders[1], Order::Group { hold: true, replicas: 1, .. }), "{orders:?}");
    }

    /// What the pods of a group that holds q8 and q4 are told, by name, when q4 is planned.
    fn told(pods: &[(&str, &str, Known)], change: impl Fn(&mut GroupView)) -> Vec<(String, Option<String>)> {
        let mut index = index(2, false);
        let mut object = model("demo", "chat");
        object.spec.variants[1].hardware[0].class = "cpu-standard".into();
        index.apply(Kind::ModelDeployment, "demo/chat".into(), Object::ModelDeployment(Arc::new(object)));
        let class = Arc::new(crate::state::fixtures::class("cpu-standard"));
        index.apply(Kind::HardwareClass, "cpu-standard".into(), Object::HardwareClass(class));
        let mut held = group("demo", "chat", "q8", "cpu-standard", 2);
        held.files = vec!["q8".into(), "q4".into()];
        let put = |index: &mut Index, group: &GroupView| {
            index.apply(Kind::Deployment, "demo/chat-cpu-standard-1".into(), Object::Deployment(group.clone()));
        };
        put(&mut index, &held);
        let (memory, settings) = (Memory::default(), Settings::default());
        let described = Described { index: &index, memory: &memory, settings: &settings, now: Millis(0) };
        held.config_hash = described.hash("demo/chat", &placement("q4", "cpu-standard", 1)).unwrap();
        held.placement.variant = "q4".into();
        for (name, variant, known) in pods {
            let ready = ready_pod("demo", "chat", variant, "cpu-standard", 1);
            let config_hash = held.config_hash.clone();
            let pod = PodView { name: (*name).into(), uid: (*name).into(), known: *known, config_hash, ..ready };
            index.apply(Kind::Pod, format!("demo/{name}"), Object::Pod(pod));
        }
        change(&mut held);
        put(&mut index, &held);
        let orders = orders(&index, &plan(&[("q4", "cpu-standard", 2)]), &memory, Millis(0));
        let each = orders.into_iter().filter_map(|order| match order {
            Order::Tell { pod, variant, .. } => Some((pod, variant.map(|placement| placement.variant))),
            _ => None,
        });
        each.collect()
    }

    #[test]
    fn pods_are_asked_what_they_serve_and_one_at_a_time_is_told_another_variant() {
        let told = |pods: &[(&str, &str, Known)]| told(pods, |_| {});
        let ask = |name: &str| (name.to_owned(), None);
        let swap = |name: &str| (name.to_owned(), Some("q4".to_owned()));
        assert_eq!(told(&[("a", "q8", Known::Assumed), ("b", "q4", Known::Assumed)]), [ask("a"), ask("b")]);
        assert_eq!(told(&[("a", "q8", Known::Said), ("b", "q8", Known::Said)]), [swap("a")]);
        assert_eq!(told(&[("a", "q8", Known::Asked), ("b", "q8", Known::Said)]), [], "one is busy with it");
        assert_eq!(told(&[("a", "q4", Known::Said), ("b", "q8", Known::Said)]), [swap("b")]);
        assert_eq!(told(&[("a", "q4", Known::Said), ("b", "q4", Known::Said)]), []);
    }

    #[test]
    fn pods_that_are_to_be_replaced_are_told_nothing() {
        let pods = [("a", "q8", Known::Said), ("b", "q8", Known::Said)];
        assert_eq!(told(&pods, |group| group.config_hash = "older".into()), []);
        assert_eq!(told(&pods, |group| group.placement.variant = "q8".into()), [], "it is not written down yet");
        let assumed = [("a", "q8", Known::Assumed)];
        assert_eq!(told(&assumed, |group| group.config_hash = "older".into()), [("a".to_owned(), None)], "but asked");
    }

    #[test]
    fn nothing_is_done_about_a_model_that_is_not_planned() {
        let orders = orders(&index(1, true), &Plan::default(), &Memory::default(), Millis(0));
        assert!(orders.is_empty());
    }
}
