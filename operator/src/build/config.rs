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
/// Where claims are mounted in the pod, each under its name.
pub(super) const CLAIMS: &str = "/mnt/pvc";
/// Name of the file in the ConfigMap and in the pod.
pub(super) const SERVE_JSON: &str = "serve.json";
/// Hex digits of the hash that are kept.
const HASH_DIGITS: usize = 16;

/// A variant whose file the pods hold.
pub(super) struct Held<'a> {
    pub(super) variant: &'a Variant,
    pub(super) source: Source,
}

impl Held<'_> {
    /// Path of the file in the pod.
    pub(super) fn path(&self) -> String {
        match &self.source {
            Source::File { path } => path.clone(),
            Source::Claim { claim, path } => format!("{CLAIMS}/{claim}/{path}"),
            Source::Image { .. } | Source::Remote { .. } => format!("{MODELS}/{}.gguf", self.variant.name),
        }
    }
}

/// The variants whose files the pods hold, in the order of `shape.files`.
pub(super) fn held<'a>(shape: &Shape<'a>) -> Result<Vec<Held<'a>>, Error> {
    let missing = |name: &String| Error::Variant { group: shape.name(), variant: name.clone() };
    let each = shape.files.iter().map(|name| {
        let variant = shape.model.spec.variants.iter().find(|variant| variant.name == *name);
        let variant = variant.ok_or_else(|| missing(name))?;
        let source = Source::parse(&variant.source);
        Ok(Held { variant, source: source.map_err(|source| Error::Source { group: shape.name(), source })? })
    });
    let held: Vec<Held<'a>> = each.collect::<Result<_, Error>>()?;
    let served = held.iter().any(|held| held.variant.name == shape.placement.variant);
    served.then_some(held).ok_or_else(|| missing(&shape.placement.variant))
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

/// What the pods of a group serve, and what else they have at hand.
pub fn serve_config(shape: &Shape<'_>) -> Result<ServeConfig, Error> {
    let range = |field| Error::Range { group: shape.name(), field };
    let serving = &shape.model.spec.serving;
    let cpu = shape.class.spec.accelerator.kind == AcceleratorKind::CPU;
    let files = held(shape)?.into_iter().map(|held| VariantFile {
        name: held.variant.name.clone(),
        path: held.path(),
        precision: format!("{:?}", held.variant.precision),
    });
    Ok(ServeConfig {
        model: shape.model.spec.model.clone(),
        namespace: shape.model.namespace().unwrap_or_default(),
        variants: files.collect(),
        variant: shape.placement.variant.clone(),
        draft: None,
        context_tokens: u32::try_from(serving.context_tokens).map_err(|_| range("spec.serving.contextTokens"))?,
        slots: u32::try_from(serving.parallel_requests).map_err(|_| range("spec.serving.parallelRequests"))?,
        // A GPU's memory is not the container's.
        memory_limit_bytes: if cpu { Some(memory(shape)?) } else { None },
        hardware_class: shape.placement.class.clone(),
        devices: shape.placement.devices,
        threads: None,
    })
}

fn serve_json(shape: &Shape<'_>, config: &ServeConfig) -> Result<String, Error> {
    let json = serde_json::to_string_pretty(config);
    json.map_err(|source| Error::Json { group: shape.name(), source })
}

/// Hash of everything that a pod of the group is and can serve; when it changes, pods are replaced one by one. Which of its
/// variants it serves is no part of it: that is handed to pods that live.
pub fn config_hash(shape: &Shape<'_>) -> Result<String, Error> {
    let serves = ServeConfig { variant: String::new(), ..serve_config(shape)? };
    let pod = serde_json::to_string(&pod::spec(shape)?);
    let pod = pod.map_err(|source| Error::Json { group: shape.name(), source })?;
    let mut hash = Sha256::new();
    for part in [serve_json(shape, &serves)?, pod] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    Ok(hex::encode(hash.finalize()).chars().take(HASH_DIGITS).collect())
}

/// The ConfigMap of a group.
pub fn config_map(shape: &Shape<'_>) -> Result<ConfigMap, Error> {
    let data = [(SERVE_JSON.to_owned(), serve_json(shape, &serve_config(shape)?)?)].into();
    let mut metadata = shape.meta();
    metadata.annotations = Some([(names::CONFIG_HASH.to_owned(), config_hash(shape)?)].into());
    Ok(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
}
