//! What the operator says about a model: what serves, what the plan is and why, what it costs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{list_schema, time_schema};
use crate::{Currency, Money, Score, limits};

/// What the operator says about a model.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, SignalsHealthy, AtCeiling, Degraded, CapacityBlocked, Draining.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub conditions: Vec<Condition>,
    /// Variants with a ready replica; the one with most stands first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::VARIANTS), inner(length(max = limits::LABEL)))]
    pub served_variants: Vec<String>,
    /// All replicas, ready or not.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that serve.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the replicas, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::MESSAGE))]
    pub selector: Option<String>,
    /// Replicas of each variant on each class; the pool that serves most stands first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::STATUS_POOLS))]
    pub replicas_by_pool: Vec<PoolReplicas>,
    /// The plan in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Every candidate, and why it is served or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::STATUS_CONSIDERED))]
    pub considered: Vec<Considered>,
    /// The last decisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::STATUS_DECISIONS))]
    pub decisions: Vec<Decision>,
    /// What the model costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How far the latency of the slo was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo_attainment: Option<SloAttainment>,
}

/// Replicas of one variant on one class.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PoolReplicas {
    /// Variant.
    pub variant: String,
    /// HardwareClass.
    pub class: String,
    /// Devices of one replica.
    pub devices: i32,
    /// All replicas, ready or not.
    pub replicas: i32,
    /// Replicas that serve.
    pub ready: i32,
}

/// The plan in force.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Chosen variant.
    pub variant: String,
    /// Chosen HardwareClass.
    pub class: String,
    /// Devices of one replica.
    pub devices: i32,
    /// Replicas wanted.
    pub replicas: i32,
    /// One word for machines.
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// quality.score of the variant.
    pub quality: Score,
    /// Cost an hour when the plan is reached.
    pub cost_per_hour: Money,
    /// When this plan was first chosen.
    #[schemars(schema_with = "time_schema")]
    pub since: Time,
}

/// One candidate, and why it is served or not.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Variant.
    pub variant: String,
    /// HardwareClass.
    pub class: String,
    /// Devices of one replica.
    pub devices: i32,
    /// One word for machines.
    pub verdict: Verdict,
    /// A sentence for people.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
}

/// Why a candidate is served or not.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum Verdict {
    /// It is the plan.
    Chosen,
    /// It could be served; another is preferred by the objective.
    Eligible,
    /// Another costs no more and is no worse.
    Dominated,
    /// Its score is below the quality floor.
    BelowFloor,
    /// Its projected spend would cross a ceiling.
    OverCeiling,
    /// It does not fit the memory of the devices.
    DoesNotFit,
    /// Too few devices are free.
    NoCapacity,
    /// The HardwareClass does not exist.
    UnknownClass,
    /// The source or the file failed.
    SourceFailed,
    /// It needs something that this version does not do.
    NotImplemented,
}

/// One decision of the past.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When.
    #[schemars(schema_with = "time_schema")]
    pub at: Time,
    /// One word for machines.
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = limits::MESSAGE))]
    pub message: String,
    /// Variant after the decision.
    pub variant: String,
    /// HardwareClass after the decision.
    pub class: String,
    /// Replicas wanted before.
    pub replicas_before: i32,
    /// Replicas wanted after.
    pub replicas_after: i32,
    /// What was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Outcome>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realised: Option<Outcome>,
}

/// What a decision brings.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Seconds until the replicas were ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_after_seconds: Option<i64>,
    /// Cost an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<Money>,
    /// Tokens a second that the replicas can serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<i64>,
}

/// What the model costs.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// All replicas, an hour, now.
    pub per_hour: Money,
    /// Projected spend of the model in the tightest ceiling's period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<Money>,
    /// Currency of both.
    #[serde(default)]
    pub currency: Currency,
}

/// How far the latency of the slo was kept, in percent of requests.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SloAttainment {
    /// Requests whose first token came in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_percent: Option<i32>,
    /// Requests whose tokens followed in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub itl_percent: Option<i32>,
}
