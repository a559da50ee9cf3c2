//! Spec and plan → Kubernetes objects. Pure: the same input gives the same object, byte for byte.
//!
//! One Deployment and ConfigMap per (model, class, devices), one Service, PodDisruptionBudget and
//! NetworkPolicy per model. All are owned by the ModelDeployment, so that deleting it leaves nothing behind and needs no finalizer.

pub mod admin;
mod config;
mod deployment;
mod files;
mod model;
mod pod;
mod source;

pub use config::{config_hash, config_map, serve_config};
pub use deployment::deployment;
pub use files::{Fault, files};
pub use model::{disruption_budget, network_policy, service};
pub use source::{Source, SourceError};

use crate::names;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use quartermaster_core::snapshot::Placement;
use quartermaster_crds::v1alpha1::{HardwareClass, ModelDeployment};
use std::collections::BTreeMap;

/// What the operator was told on its command line about pods.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Image of the bundled engine.
    pub inference_image: String,
    /// Pull policy of every image.
    pub pull_policy: String,
    /// Secrets to pull every image with, in the model's namespace.
    pub pull_secrets: Vec<String>,
    /// Who scrapes replicas, besides gateways and operators. None: no NetworkPolicy keeps anybody away.
    pub scrapers: Option<Vec<NetworkPolicyPeer>>,
    /// Secret of the model's namespace, if there is one, with what fetches of models need: variables and files.
    pub sources_secret: String,
    /// What the tokens are derived from by which pods take our orders.
    pub admin_secret: Vec<u8>,
}

/// Everything that one group of replicas is built from.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The model.
    pub model: &'a ModelDeployment,
    /// The hardware.
    pub class: &'a HardwareClass,
    /// Variant, class, devices.
    pub placement: &'a Placement,
    /// The variants whose files its pods hold; [`files`] says which.
    pub files: &'a [String],
    /// From the command line.
    pub settings: &'a Settings,
}

/// Why an object can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variant is not in the spec (any more).
    #[error("building {group}: the spec declares no variant {variant}")]
    Variant {
        /// Name of the Deployment.
        group: String,
        /// The variant.
        variant: String,
    },
    /// Its source can't be served from.
    #[error("building {group}")]
    Source {
        /// Name of the Deployment.
        group: String,
        /// Why.
        source: SourceError,
    },
    /// A quantity of the class can't be read.
    #[error("building {group}: HardwareClass {class}, field {field}")]
    Quantity {
        /// Name of the Deployment.
        group: String,
        /// Name of the class.
        class: String,
        /// Field of its spec.
        field: &'static str,
        /// Why.
        source: quartermaster_crds::quantity::Error,
    },
    /// A figure is out of range.
    #[error("building {group}: {field} is out of range")]
    Range {
        /// Name of the Deployment.
        group: String,
        /// Field of the model's spec.
        field: &'static str,
    },
    /// Writing serve.json or the pod.
    #[error("building {group}: writing JSON")]
    Json {
        /// Name of the Deployment.
        group: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Shape<'_> {
    /// Name of the Deployment and ConfigMap.
    #[must_use]
    pub fn name(&self) -> String {
        names::group_name(&self.model.name_any(), self.placement)
    }

    /// Labels of the pods, which the Deployment selects by.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = model_labels(self.model);
        labels.insert(names::CLASS.to_owned(), self.placement.class.clone());
        labels.insert(names::DEVICES.to_owned(), self.placement.devices.to_string());
        labels
    }

    fn meta(&self) -> ObjectMeta {
        ObjectMeta { labels: Some(self.labels()), ..meta(self.model, self.name()) }
    }
}

/// Labels of everything that belongs to a model.
fn model_labels(model: &ModelDeployment) -> BTreeMap<String, String> {
    let labels = [(names::MANAGED_BY, names::FIELD_MANAGER.to_owned()), (names::MODEL, model.name_any())];
    labels.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Metadata of an object that belongs to a model.
fn meta(model: &ModelDeployment, name: String) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: ModelDeployment::api_version(&()).into_owned(),
        kind: ModelDeployment::kind(&()).into_owned(),
        name: model.name_any(),
        uid: model.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ObjectMeta {
        name: Some(name),
        namespace: model.namespace(),
        labels: Some(model_labels(model)),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
