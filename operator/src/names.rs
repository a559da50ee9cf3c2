//! Names that the cluster, the chart and the gateway rely on.

use quartermaster_core::snapshot::Placement;
use std::collections::BTreeMap;

/// Field manager of every apply, and reporting controller of every Event.
pub const FIELD_MANAGER: &str = "quartermaster";
/// Label: who made the object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of the chart's pods: the application, whose name is [`FIELD_MANAGER`].
pub const APP: &str = "app.kubernetes.io/name";
/// Label of the chart's pods: which component.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Components that talk to inference pods.
pub const COMPONENTS_TO_PODS: [&str; 2] = ["gateway", "operator"];
/// Label that the API server puts on every namespace.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Label: name of the ModelDeployment.
pub const MODEL: &str = "quartermaster.dev/model";
/// Label: name of the HardwareClass.
pub const CLASS: &str = "quartermaster.dev/class";
/// Label: devices of one replica.
pub const DEVICES: &str = "quartermaster.dev/devices";
/// Annotation of the Deployment: the variant that its pods are to serve. Not of the template: a change of it rolls nothing.
pub const VARIANT: &str = "quartermaster.dev/variant";
/// Annotation of the pod template: the variants whose files its pods hold, separated by commas.
pub const FILES: &str = "quartermaster.dev/variants";
/// Annotation of the pod template: hash of what its pods are and can serve, so that a change of it rolls them.
pub const CONFIG_HASH: &str = "quartermaster.dev/config-hash";
/// Annotation of the Deployment: generation of the ModelDeployment that it was built from.
pub const GENERATION: &str = "quartermaster.dev/model-generation";
/// Label that Kubernetes puts on the ReplicaSets of a Deployment and their pods.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Lease of the leader.
pub const LEASE: &str = "quartermaster-operator";
/// Secret with the salt of the key hashes.
pub const SALT_SECRET: &str = "quartermaster-key-salt";
/// Key in that Secret.
pub const SALT_KEY: &str = "salt";
/// The port of an inference pod.
pub const POD_PORT: u16 = 8000;
/// Container of the engine.
pub const ENGINE_CONTAINER: &str = "engine";

/// Init container that brings the copier.
pub const COPIER_CONTAINER: &str = "model-copy";
/// Init containers that copy models out of their images: this, and the variant's place among [`FILES`].
pub const MODEL_CONTAINER: &str = "model-";

/// Selector of everything that we made.
#[must_use]
pub fn managed_selector() -> String {
    format!("{MANAGED_BY}={FIELD_MANAGER}")
}

/// Selector of a model's pods, for the scale subresource.
#[must_use]
pub fn model_selector(model: &str) -> String {
    format!("{},{MODEL}={model}", managed_selector())
}

/// Name of the Deployment and ConfigMap of one (model, class, devices).
#[must_use]
pub fn group_name(model: &str, placement: &Placement) -> String {
    format!("{model}-{}-{}", placement.class, placement.devices)
}

/// The place among [`FILES`] of the model that an init container copies; none for any other container.
#[must_use]
pub fn model_place(container: &str) -> Option<usize> {
    container.strip_prefix(MODEL_CONTAINER)?.parse().ok()
}

/// [`FILES`], as a list.
#[must_use]
pub fn files(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let listed = annotations.get(FILES).map(String::as_str).unwrap_or_default();
    listed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `namespace/name`.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
