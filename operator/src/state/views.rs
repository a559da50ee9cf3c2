//! Pods and Deployments of ours, cut down to what is asked of them: the index of a large cluster stays small.

use super::failure::{Failure, failure};
use crate::{clock, limits, names};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;
use quartermaster_crds::v1alpha1::ModelDeployment;
use serde::Serialize;
use std::collections::BTreeMap;

/// How it is known which variant a pod serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Known {
    /// It starts with what its group is to serve; it has not been asked yet.
    #[default]
    Assumed,
    /// It is being asked, or told to serve another.
    Asked,
    /// It said so.
    Said,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Name of its ModelDeployment.
    pub model: String,
    /// What it serves, and on what. The pod itself does not tell the variant: the index knows it.
    pub placement: Placement,
    /// How the variant is known.
    pub known: Known,
    /// Hash of what it was built from.
    pub config_hash: String,
    /// Address, once it has one.
    pub ip: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it got a node and so its devices.
    pub scheduled_at: Option<Millis>,
    /// Since when it is ready.
    pub ready_since: Option<Millis>,
    /// It finishes what it has.
    pub deleting: bool,
    /// When its grace for that ends.
    pub gone_by: Option<Millis>,
    /// When its containers ended for good.
    pub finished_at: Option<Millis>,
    /// Restarts of its engine.
    pub restarts: i32,
    /// What went wrong, as the pod tells.
    pub failure: Option<Failure>,
}

impl PodView {
    /// The view of a pod; none for one that is not a replica, whatever its labels say.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.labels();
        let model = labels.get(names::MODEL)?.clone();
        let placement = placement(labels, String::new())?;
        if !of_group(pod, &names::group_name(&model, &placement)) {
            return None;
        }
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let since = |kind: &str| -> Option<Millis> {
            let met = |condition: &&PodCondition| condition.type_ == kind && condition.status == "True";
            conditions.iter().find(met)?.last_transition_time.as_ref().map(clock::millis)
        };
        let created = pod.creation_timestamp().as_ref().map(clock::millis)?;
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let engines = status.container_statuses.as_deref().unwrap_or_default();
        let ended = engines.iter().filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            uid: pod.uid()?,
            model,
            placement,
            known: Known::default(),
            config_hash: pod.annotations().get(names::CONFIG_HASH).cloned().unwrap_or_default(),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            created,
            scheduled_at: since("PodScheduled"),
            ready_since: since("Ready"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gone_by: pod.metadata.deletion_timestamp.as_ref().map(clock::millis),
            finished_at: finished.then(|| ended.map(clock::millis).max().unwrap_or(created)),
            restarts: engines.iter().map(|container| container.restart_count).max().unwrap_or(0),
            failure: failure(pod),
        })
    }

    /// Takes requests.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready_since.is_some() && !self.deleting && self.finished_at.is_none()
    }

    /// On its way, or serving: supply.
    #[must_use]
    pub fn live(&self) -> bool {
        !self.deleting && self.finished_at.is_none()
    }

    /// Finishes what it has, and its node still answers for it.
    #[must_use]
    pub fn draining(&self, now: Millis) -> bool {
        let overdue = self.gone_by.is_some_and(|by| now.since(by) > limits::POD_OVERDUE);
        self.deleting && self.finished_at.is_none() && !overdue
    }

    /// `ip:port` of its API.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        let ip = self.ip.as_ref()?;
        Some(if ip.contains(':') { format!("[{ip}]:{}", names::POD_PORT) } else { format!("{ip}:{}", names::POD_PORT) })
    }
}

/// One Deployment with our labels: the replicas of a (model, class, devices), if its owner is the ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of its ModelDeployment.
    pub model: String,
    /// UID of the ModelDeployment of that name that controls it; none for somebody else's.
    pub owner: Option<String>,
    /// What is asked of it.
    pub placement: Placement,
    /// Variants whose files its pods hold.
    pub files: Vec<String>,
    /// Hash of what it was built from.
    pub config_hash: String,
    /// Replicas asked for.
    pub wanted: u32,
    /// Changes with the object.
    pub resource_version: String,
}

impl GroupView {
    /// The view of a Deployment; none for one without our labels.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let template = spec.template.metadata.clone().unwrap_or_default();
        let annotations = template.annotations.unwrap_or_default();
        let model = deployment.labels().get(names::MODEL)?.clone();
        let owner = controller::<ModelDeployment>(deployment).filter(|owner| owner.name == model);
        Some(Self {
            namespace: deployment.namespace()?,
            name: deployment.name_any(),
            owner: owner.map(|owner| owner.uid.clone()),
            model,
            placement: placement(deployment.labels(), variant(deployment, &annotations)?)?,
            files: names::files(&annotations),
            config_hash: annotations.get(names::CONFIG_HASH).cloned().unwrap_or_default(),
            wanted: u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
            resource_version: deployment.resource_version().unwrap_or_default(),
        })
    }
}

/// The object of kind `K` that controls `object`.
fn controller<K: Resource<DynamicType = ()>>(object: &impl ResourceExt) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        owner.controller == Some(true) && owner.kind == K::kind(&()) && group == K::group(&())
    })
}

/// Whether a ReplicaSet of the Deployment `group` controls the pod: Kubernetes names it after the two.
fn of_group(pod: &Pod, group: &str) -> bool {
    let replica_set = controller::<ReplicaSet>(pod).and_then(|owner| owner.name.strip_prefix(group)?.strip_prefix('-'));
    replica_set.is_some_and(|hash| pod.labels().get(names::POD_TEMPLATE_HASH).is_some_and(|label| label == hash))
}

/// What a Deployment is to serve; one from before variants were handed to pods says it in its template.
fn variant(deployment: &Deployment, template: &BTreeMap<String, String>) -> Option<String> {
    deployment.annotations().get(names::VARIANT).or_else(|| template.get(names::VARIANT)).cloned()
}

fn placement(labels: &BTreeMap<String, String>, variant: String) -> Option<Placement> {
    Some(Placement {
        variant,
        class: labels.get(names::CLASS)?.clone(),
        devices: labels.get(names::DEVICES)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(api_version: &str, kind: &str, name: &str) -> serde_json::Value {
        json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "owner", "controller": true})
    }

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "demo", "name": "chat-cpu-1-x", "uid": "u1", "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": {names::MODEL: "chat", names::CLASS: "cpu", names::DEVICES: "1", "pod-template-hash": "5d9"},
                "annotations": {names::FILES: "q8", names::CONFIG_HASH: "abc"},
                "ownerReferences": [owner("apps/v1", "ReplicaSet", "chat-cpu-1-5d9")],
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_ready_pod_in_view() {
        let view = PodView::of(&pod(json!({
            "phase": "Running", "podIP": "10.0.0.7",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-22T10:00:01Z"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T10:00:09Z"},
            ],
        })))
        .unwrap();
        assert!(view.ready() && view.live());
        assert_eq!(view.address().as_deref(), Some("10.0.0.7:8000"));
        assert_eq!(view.ready_since.unwrap().since(view.created), Millis(9_000));
        assert_eq!((view.placement.to_string().as_str(), view.known), (" on cpu", Known::Assumed));
        assert_eq!(view.failure, None);
    }

    #[test]
    fn a_finished_pod_costs_until_its_end() {
        let view = PodView::of(&pod(json!({
            "phase": "Failed",
            "containerStatuses": [{
                "name": "engine", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-22T10:05:00Z"}},
            }],
        })))
        .unwrap();
        assert!(!view.ready() && !view.live());
        assert_eq!(view.finished_at.unwrap().since(view.created), Millis(300_000));
    }

    #[test]
    fn a_pod_without_our_labels_is_no_replica() {
        let mut other = pod(json!({}));
        other.metadata.labels = None;
        assert_eq!(PodView::of(&other), None);
    }

    #[test]
    fn a_pod_of_somebody_else_with_our_labels_is_no_replica() {
        let of = |owners: serde_json::Value| {
            let mut pod = pod(json!({}));
            pod.metadata.owner_references = serde_json::from_value(owners).unwrap();
            PodView::of(&pod)
        };
        assert!(of(json!([owner("apps/v1", "ReplicaSet", "chat-cpu-1-5d9")])).is_some());
        let mut kept = owner("apps/v1", "ReplicaSet", "chat-cpu-1-5d9");
        kept["controller"] = json!(false);
        for foreign in [
            json!(null),
            json!([kept]),
            json!([owner("apps/v1", "ReplicaSet", "chat-cpu-16-5d9")]),
            json!([owner("apps/v1", "ReplicaSet", "chat-cpu-1-other-5d9")]),
            json!([owner("apps/v1", "StatefulSet", "chat-cpu-1-5d9")]),
            json!([owner("example.org/v1", "ReplicaSet", "chat-cpu-1-5d9")]),
        ] {
            assert_eq!(of(foreign.clone()), None, "{foreign}");
        }
    }

    #[test]
    fn a_deployment_is_ours_by_its_owner() {
        let of = |owners: serde_json::Value| {
            let deployment = json!({
                "metadata": {
                    "namespace": "demo", "name": "chat-cpu-1", "ownerReferences": owners,
                    "labels": {names::MODEL: "chat", names::CLASS: "cpu", names::DEVICES: "1"},
                    "annotations": {names::VARIANT: "q4"},
                },
                "spec": {
                    "replicas": 2, "selector": {},
                    "template": {"metadata": {"annotations": {names::FILES: "q8,q4", names::CONFIG_HASH: "abc"}}},
                },
            });
            let group = GroupView::of(&serde_json::from_value(deployment).unwrap()).unwrap();
            assert_eq!((group.placement.to_string().as_str(), group.files.len()), ("q4 on cpu", 2));
            group.owner
        };
        let ours = owner("quartermaster.dev/v1alpha1", "ModelDeployment", "chat");
        assert_eq!(of(json!([owner("v1", "Node", "n"), ours])).as_deref(), Some("owner"));
        for foreign in [
            json!(null),
            json!([owner("quartermaster.dev/v1alpha1", "ModelDeployment", "other")]),
            json!([owner("example.org/v1", "ModelDeployment", "chat")]),
            json!([owner("quartermaster.dev/v1alpha1", "CostPolicy", "chat")]),
        ] {
            assert_eq!(of(foreign.clone()), None, "{foreign}");
        }
    }
}
