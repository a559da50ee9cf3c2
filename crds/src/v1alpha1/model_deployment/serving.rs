//! How a model is served: engine, slots, objective, latency, replicas.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{Currency, Duration, Money, limits};

/// The server that runs the model.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.kind != 'Custom' || (has(self.image) && has(self.metrics))")
        .message("engine.kind Custom needs engine.image and engine.metrics (which of its metrics mean what)"),
    validation = Rule::new(
        "self.kind != 'Bundled' || (!has(self.image) && !has(self.args) && !has(self.port) && !has(self.metrics))"
    )
    .message("engine.kind Bundled takes no image, args, port or metrics: they are for external engines")
)]
pub struct Engine {
    /// The bundled server, a well-known one, or any OpenAI-compatible image.
    #[serde(default)]
    pub kind: EngineKind,
    /// Image of an external engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::URL))]
    pub image: Option<String>,
    /// Further arguments of an external engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ENGINE_ARGS), inner(length(max = limits::URL)))]
    pub args: Option<Vec<String>>,
    /// Port on which an external engine serves the OpenAI API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Which metric of an external engine means what: our name of a signal to its name of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metrics_schema")]
    pub metrics: Option<BTreeMap<String, String>>,
}

/// The schema of a metrics map.
fn metrics_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": limits::ENGINE_METRICS,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": limits::SUBDOMAIN },
    })
}

/// Engines.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum EngineKind {
    /// Quartermaster's own server.
    #[default]
    Bundled,
    /// vLLM.
    VLLM,
    /// SGLang.
    SGLang,
    /// The server of llama.cpp.
    LlamaCppServer,
    /// Any image that speaks the OpenAI API.
    Custom,
}

/// Context and slots of one replica.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// Context of one request in tokens: prompt and answer together.
    #[serde(default = "default_context")]
    #[schemars(range(min = 16, max = limits::CONTEXT_TOKENS))]
    pub context_tokens: i64,
    /// Requests that one replica decodes at once.
    #[serde(default = "default_parallel")]
    #[schemars(range(min = 1, max = limits::PARALLEL_REQUESTS))]
    pub parallel_requests: i32,
}

/// The rule that the bundled engine takes at most so much of a field of `serving`; other engines know their own bounds.
pub(super) fn bundled_takes(field: &str, most: i64) -> Rule {
    let message = format!("serving.{field}: the bundled engine takes at most {most}");
    Rule::new(format!("self.engine.kind != 'Bundled' || self.serving.{field} <= {most}")).message(message.as_str())
}

fn default_context() -> i64 {
    2048
}

fn default_parallel() -> i32 {
    4
}

impl Default for Serving {
    fn default() -> Self {
        Self { context_tokens: default_context(), parallel_requests: default_parallel() }
    }
}

/// What the plan is after.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.valuePerRequest) || self.type == 'MaximizeValue'")
        .message("objective.valuePerRequest is for type MaximizeValue only")
)]
pub struct Objective {
    /// MinimizeCost: the cheapest at or above the floor. MaximizeValue: the best whose projected spend fits.
    #[serde(default, rename = "type")]
    pub kind: ObjectiveKind,
    /// What one answered request of full quality is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_per_request: Option<Money>,
    /// Currency of the value.
    #[serde(default)]
    pub currency: Currency,
}

/// Objectives.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum ObjectiveKind {
    /// The cheapest variant and class at or above the quality floor.
    #[default]
    MinimizeCost,
    /// The highest value whose projected spend fits every ceiling.
    MaximizeValue,
}

/// Latency to keep.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ttft) || has(self.itl)")
        .message("slo needs at least one of ttft (time to first token) and itl (time between tokens)")
)]
pub struct Slo {
    /// Time to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Duration>,
    /// Time between two tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub itl: Option<Duration>,
    /// Share of requests that keep it, in percent.
    #[serde(default = "default_percentile")]
    #[schemars(range(min = 50, max = 99))]
    pub percentile: i32,
}

fn default_percentile() -> i32 {
    95
}

/// How many replicas.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("scaling.min is larger than scaling.max"),
    validation = Rule::new("!has(self.scaleToZero) || !self.scaleToZero.enabled || self.min == 0")
        .message("scaling.scaleToZero needs scaling.min 0"),
    validation = Rule::new("self.min > 0 || (has(self.scaleToZero) && self.scaleToZero.enabled)")
        .message("scaling.min 0 needs scaling.scaleToZero.enabled true: else one replica is kept"),
    validation = Rule::new("!has(self.warmPool) || self.warmPool <= self.max")
        .message("scaling.warmPool is larger than scaling.max")
)]
pub struct Scaling {
    /// Fewest replicas.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = limits::REPLICAS))]
    pub min: i32,
    /// Most replicas.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = limits::REPLICAS))]
    pub max: i32,
    /// A pin from outside (kubectl scale, an HPA); kept within min, max and the ceilings. Leave it out to let the plan decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::REPLICAS))]
    pub replicas: Option<i32>,
    /// No replica while nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<ScaleToZero>,
    /// Replicas kept ready beyond demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::REPLICAS))]
    pub warm_pool: Option<i32>,
    /// How long demand must have been lower before replicas stop.
    #[serde(default = "default_scale_down_after")]
    pub scale_down_after: Duration,
}

fn default_replicas() -> i32 {
    1
}

fn default_scale_down_after() -> Duration {
    Duration::from("5m")
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min: default_replicas(),
            max: default_replicas(),
            replicas: None,
            scale_to_zero: None,
            warm_pool: None,
            scale_down_after: default_scale_down_after(),
        }
    }
}

/// No replica while nobody asks.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleToZero {
    /// Whether the model may be at zero.
    #[serde(default)]
    pub enabled: bool,
    /// Time without a request after which the last replica stops.
    #[serde(default = "default_idle_after")]
    pub idle_after: Duration,
}

fn default_idle_after() -> Duration {
    Duration::from("10m")
}
