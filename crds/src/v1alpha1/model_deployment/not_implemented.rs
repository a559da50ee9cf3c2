//! What the API can say and this version of the operator does not obey yet.

use super::{EngineKind, Format, ModelDeploymentSpec, Variant};
use crate::field_path::{FieldPath, NotObeyed};

impl ModelDeploymentSpec {
    /// The set fields that this version of the operator does not obey.
    #[must_use]
    pub fn not_implemented(&self) -> Vec<FieldPath> {
        let mut fields = NotObeyed::default();
        for variant in &self.variants {
            note_variant(variant, &mut fields);
        }
        fields.when(self.engine.kind != EngineKind::Bundled, "spec.engine.kind");
        fields.when(self.objective.value_per_request.is_some(), "spec.objective.valuePerRequest");
        fields.when(self.slo.is_some(), "spec.slo");
        fields.when(self.scaling.warm_pool.is_some_and(|n| n > 0), "spec.scaling.warmPool");
        fields.when(self.tokens.as_ref().is_some_and(|t| t.allocation.is_some()), "spec.tokens.allocation");
        fields.when(self.cascade.is_some(), "spec.cascade");
        fields.when(self.cache.is_some(), "spec.cache");
        fields.when(self.sampling.is_some(), "spec.sampling");
        fields.when(!self.degrade_order.is_empty(), "spec.degradeOrder");
        fields.into_fields()
    }
}

/// Notes what one variant asks in vain.
fn note_variant(variant: &Variant, fields: &mut NotObeyed) {
    let path = |field: &str| format!("spec.variants[{}].{field}", variant.name);
    fields.when(variant.format != Format::GGUF, path("format"));
    fields.when(variant.quality.curve.is_some(), path("quality.curve"));
    for hardware in &variant.hardware {
        fields.when(hardware.profile.is_some(), path(&format!("hardware[{}].profile", hardware.class)));
    }
}
