//! The Deployment of a group.

use super::{Error, Shape, config, pod};
use crate::{limits, names};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

/// Old ReplicaSets to keep: one to look at.
const HISTORY: i32 = 1;

/// The Deployment with so many replicas. The variant is no part of its template: it is handed to the pods. Only where they
/// have not its file do they roll, new before old.
pub fn deployment(shape: &Shape<'_>, replicas: u32) -> Result<Deployment, Error> {
    let range = |field| Error::Range { group: shape.name(), field };
    let annotations = [
        (names::FILES.to_owned(), shape.files.join(",")),
        (names::CONFIG_HASH.to_owned(), config::config_hash(shape)?),
    ];
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(shape.labels()),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod::spec(shape)?),
    };
    let rolling =
        RollingUpdateDeployment { max_surge: Some(IntOrString::Int(1)), max_unavailable: Some(IntOrString::Int(0)) };
    let strategy = DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) };
    let mut metadata = shape.meta();
    let generation = shape.model.metadata.generation.unwrap_or(0).to_string();
    let variant = shape.placement.variant.clone();
    metadata.annotations =
        Some([(names::GENERATION.to_owned(), generation), (names::VARIANT.to_owned(), variant)].into());
    Ok(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(i32::try_from(replicas).map_err(|_| range("spec.scaling.max"))?),
            selector: LabelSelector { match_labels: Some(shape.labels()), ..LabelSelector::default() },
            strategy: Some(strategy),
            revision_history_limit: Some(HISTORY),
            progress_deadline_seconds: Some(limits::STARTUP_PROBE_SECONDS.saturating_add(60)),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}
