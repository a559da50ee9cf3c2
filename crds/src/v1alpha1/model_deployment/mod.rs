//! ModelDeployment: a model in one or more variants, and what it should be worth, cost and reach.

mod not_implemented;
mod serving;
mod status;
mod tokens;
mod variant;

pub use serving::{Engine, EngineKind, Objective, ObjectiveKind, ScaleToZero, Scaling, Serving, Slo};
pub use status::{
    Considered, Cost, Decision, ModelDeploymentStatus, Outcome, Plan, PoolReplicas, SloAttainment, Verdict,
};
pub use tokens::{
    Allocation, AllocationStrategy, Cache, Cascade, ExactCache, PrefixCache, Sampling, SemanticCache, TokenLimits,
    Tokens,
};
pub use variant::{Format, Hardware, Precision, Quality, QualityCurve, QualityInterval, QualityMetric, Variant};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Score, limits};

/// A model in one or more variants, and how to serve it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "quartermaster.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    shortname = "md",
    category = "quartermaster",
    namespaced,
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    doc = "A model in one or more variants, served within its budget: quality floor, latency, scaling, tokens.",
    scale(
        spec_replicas_path = ".spec.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Variant", type_ = "string", json_path = ".status.servedVariants[0]"),
    printcolumn(name = "Class", type_ = "string", json_path = ".status.replicasByPool[0].class"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".status.plan.replicas"),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.cost.perHour"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model", priority = 1),
    printcolumn(name = "Plan", type_ = "string", json_path = ".status.plan.message", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$')")
        .message("the name of a ModelDeployment begins with a letter and has at most 30 letters, digits and dashes: it becomes the name of a Service")
)]
#[x_kube(
    validation = Rule::new("self.model == oldSelf.model")
        .message("model is immutable: it is the name that clients send and that usage is recorded under; make a new ModelDeployment"),
    validation = Rule::new(
        "!has(self.qualityFloor) || self.variants.exists(v, double(v.quality.score) >= double(self.qualityFloor))"
    )
    .message("no variant reaches qualityFloor: lower the floor or add a better variant"),
    validation = Rule::new("self.variants.all(v, v.quality.metric == self.variants[0].quality.metric)")
        .message("all variants need the same quality.metric: scores are comparable only then"),
    validation = Rule::new(
        "!has(self.degradeOrder) || self.degradeOrder.all(n, self.variants.exists(v, v.name == n))"
    )
    .message("degradeOrder names a variant that is not in variants"),
    validation = Rule::new(
        "!has(self.cascade) || self.cascade.order.all(n, self.variants.exists(v, v.name == n))"
    )
    .message("cascade.order names a variant that is not in variants"),
    validation = Rule::new(
        "!has(self.tokens) || !has(self.tokens.limits) || !has(self.tokens.limits.maxContextTokens) || self.tokens.limits.maxContextTokens <= self.serving.contextTokens"
    )
    .message("tokens.limits.maxContextTokens is larger than serving.contextTokens: a request never gets more context than the engine has"),
    validation = Rule::new(
        "self.engine.kind != 'Bundled' || self.variants.all(v, v.format == 'GGUF')"
    )
    .message("the bundled engine serves format GGUF only: change the variant's format or engine.kind"),
    validation = serving::bundled_takes("contextTokens", limits::BUNDLED_CONTEXT_TOKENS),
    validation = serving::bundled_takes("parallelRequests", i64::from(limits::BUNDLED_PARALLEL_REQUESTS))
)]
pub struct ModelDeploymentSpec {
    /// The model's public name: what clients send as "model". Immutable.
    #[schemars(length(min = 1, max = limits::TEXT), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9._/:]*[A-Za-z0-9])?$"))]
    pub model: String,
    /// The forms in which the model can be served; the plan chooses.
    #[schemars(length(min = 1, max = limits::VARIANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub variants: Vec<Variant>,
    /// The server that runs the model.
    #[serde(default)]
    pub engine: Engine,
    /// Context and slots of one replica.
    #[serde(default)]
    pub serving: Serving,
    /// What the plan is after.
    #[serde(default)]
    pub objective: Objective,
    /// Latency to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Lowest quality.score that may be served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_floor: Option<Score>,
    /// How many replicas.
    #[serde(default)]
    pub scaling: Scaling,
    /// Tokens of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Smaller variant first, larger when its confidence is low.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Cascade>,
    /// Which answers may be kept and reused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Several samples a request, stopped early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Who gives way when money or devices are short: lower first.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = limits::PRIORITY))]
    pub priority: i32,
    /// Variants in the order in which quality may be given up; without it, by score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::VARIANTS), inner(length(min = 1, max = limits::LABEL)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub degrade_order: Vec<String>,
}

/// Priority when none is given: the middle.
fn default_priority() -> i32 {
    500
}
