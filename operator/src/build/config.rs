//! serve.json, its ConfigMap, and the hash that rolls the pods.

use super::{Error, Shape, Source, pod};
use crate::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use quartermaster_core::wire::serve::{ServeConfig, VariantFile};
use quartermaster_crds::quantity;
use quartermaster_crds::v1alpha1::hardware_class::AcceleratorKind;
use quartermaster_crds::v1alpha1::model_deployment::Variant;
use sha2::{Digest, Sha256};

/// Where copied model files lie in the pod.
pub(super) const MODELS: &str = "/models";
/// Name of the file in the ConfigMap and in the pod.
pub(super) const SERVE_JSON: &str = "serve.json";
/// Hex digits of the hash that are kept.
const HASH_DIGITS: usize = 16;

/// The variant that the placement names.
pub(super) fn variant<'a>(shape: &Shape<'a>) -> Result<&'a Variant, Error> {
    let found = shape.model.spec.variants.iter().find(|variant| variant.name == shape.placement.variant);
    found.ok_or_else(|| Error::Variant { group: shape.name(), variant: shape.placement.variant.clone() })
}

pub(super) fn source(shape: &Shape<'_>) -> Result<Source, Error> {
    Source::parse(&variant(shape)?.source).map_err(|source| Error::Source { group: shape.name(), source })
}

/// Path of the served file in the pod.
pub(super) fn model_path(shape: &Shape<'_>) -> Result<String, Error> {
    Ok(match source(shape)? {
        Source::File { path } => path,
        Source::Image { .. } => format!("{MODELS}/{}.gguf", shape.placement.variant),
    })
}

/// Memory of one replica: what the class gives per device, times its devices.
pub(super) fn memory(shape: &Shape<'_>) -> Result<u64, Error> {
    let field = "spec.memoryPerDevice";
    let bytes = quantity::bytes(&shape.class.spec.memory_per_device);
    let bytes = bytes.map_err(|source| Error::Quantity {
        group: shape.name(),
        class: shape.class.name_any(),
        field,
        source,
    })?;
    Ok(bytes.saturating_mul(u64::from(shape.placement.devices)))
}

/// What the pods of a group serve. Only the file of the served variant is in the pod, so only that one is named.
pub fn serve_config(shape: &Shape<'_>) -> Result<ServeConfig, Error> {
    let variant = variant(shape)?;
    let range = |field| Error::Range { group: shape.name(), field };
    let serving = &shape.model.spec.serving;
    let cpu = shape.class.spec.accelerator.kind == AcceleratorKind::CPU;
    let file = VariantFile {
        name: variant.name.clone(),
        path: model_path(shape)?,
        precision: format!("{:?}", variant.precision),
    };
    Ok(ServeConfig {
        model: shape.model.spec.model.clone(),
        namespace: shape.model.namespace().unwrap_or_default(),
        variants: vec![file],
        variant: variant.name.clone(),
        context_tokens: u32::try_from(serving.context_tokens).map_err(|_| range("spec.serving.contextTokens"))?,
        slots: u32::try_from(serving.parallel_requests).map_err(|_| range("spec.serving.parallelRequests"))?,
        // A GPU's memory is not the container's.
        memory_limit_bytes: if cpu { Some(memory(shape)?) } else { None },
        hardware_class: shape.placement.class.clone(),
        devices: shape.placement.devices,
        threads: None,
    })
}

fn serve_json(shape: &Shape<'_>) -> Result<String, Error> {
    let json = serde_json::to_string_pretty(&serve_config(shape)?);
    json.map_err(|source| Error::Json { group: shape.name(), source })
}

/// Hash of everything that a pod of the group is and serves from; when it changes, pods are replaced one by one.
pub fn config_hash(shape: &Shape<'_>) -> Result<String, Error> {
    let pod = serde_json::to_string(&pod::spec(shape)?);
    let pod = pod.map_err(|source| Error::Json { group: shape.name(), source })?;
    let mut hash = Sha256::new();
    for part in [serve_json(shape)?, pod] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    Ok(hex::encode(hash.finalize()).chars().take(HASH_DIGITS).collect())
}

/// The ConfigMap of a group.
pub fn config_map(shape: &Shape<'_>) -> Result<ConfigMap, Error> {
    let data = [(SERVE_JSON.to_owned(), serve_json(shape)?)].into();
    let mut metadata = shape.meta();
    metadata.annotations = Some([(names::CONFIG_HASH.to_owned(), config_hash(shape)?)].into());
    Ok(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
}
