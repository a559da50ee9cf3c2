//! Pods and Deployments of ours, cut down to what is asked of them: the index of a large cluster stays small.

use super::failure::{Failure, failure};
use crate::{clock, limits, names};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt;
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// What it serves, and on what.
    pub placement: Placement,
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
    /// The view of a pod; none for one that is not a replica.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.labels();
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
            model: labels.get(names::MODEL)?.clone(),
            placement: placement(labels, pod.annotations())?,
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

/// One Deployment of ours: the replicas of a (model, class, devices).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of its ModelDeployment.
    pub model: String,
    /// What is asked of it.
    pub placement: Placement,
    /// Hash of what it was built from.
    pub config_hash: String,
    /// Replicas asked for.
    pub wanted: u32,
    /// Changes with the object.
    pub resource_version: String,
}

impl GroupView {
    /// The view of a Deployment; none for one that is not ours.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let template = spec.template.metadata.clone().unwrap_or_default();
        let annotations = template.annotations.unwrap_or_default();
        Some(Self {
            namespace: deployment.namespace()?,
            name: deployment.name_any(),
            model: deployment.labels().get(names::MODEL)?.clone(),
            placement: placement(deployment.labels(), &annotations)?,
            config_hash: annotations.get(names::CONFIG_HASH).cloned().unwrap_or_default(),
            wanted: u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
            resource_version: deployment.resource_version().unwrap_or_default(),
        })
    }
}

fn placement(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<Placement> {
    Some(Placement {
        variant: annotations.get(names::VARIANT)?.clone(),
        class: labels.get(names::CLASS)?.clone(),
        devices: labels.get(names::DEVICES)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "demo", "name": "chat-cpu-1-x", "uid": "u1", "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": {names::MODEL: "chat", names::CLASS: "cpu", names::DEVICES: "1"},
                "annotations": {names::VARIANT: "q8", names::CONFIG_HASH: "abc"},
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
        assert_eq!(view.placement.to_string(), "q8 on cpu");
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
}
