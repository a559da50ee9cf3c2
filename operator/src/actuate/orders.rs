//! What to do so that the cluster becomes the plan. Pure.

use crate::names;
use crate::state::{Index, Memory};
use kube::ResourceExt;
use quartermaster_core::plan::{ModelPlan, Plan};
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
        /// How many.
        replicas: u32,
        /// Their pods stay as they are, whatever the spec says.
        hold: bool,
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
pub fn orders(index: &Index, plan: &Plan, memory: &Memory, now: Millis) -> Vec<Order> {
    let mut orders = Vec::new();
    for (key, planned) in &plan.models {
        let Some(object) = index.models.get(key) else { continue };
        let generation = object.metadata.generation.unwrap_or(0);
        orders.push(Order::Model { model: key.clone(), generation });
        orders.extend(planned.groups.iter().map(|group| Order::Group {
            model: key.clone(),
            generation,
            placement: group.placement.clone(),
            replicas: group.replicas,
            hold: group.hold,
        }));
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
            Self::Stop { namespace, name } | Self::Delete { namespace, name } => names::key(namespace, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn nothing_is_done_about_a_model_that_is_not_planned() {
        let orders = orders(&index(1, true), &Plan::default(), &Memory::default(), Millis(0));
        assert!(orders.is_empty());
    }
}
