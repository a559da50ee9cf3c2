//! What the operator says about a budget: what is spent, held and left in each window.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{list_schema, time_schema};
use crate::{Balance, Money, limits};

/// What is spent, held and left.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TokenBudgetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, WithinBudget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub conditions: Vec<Condition>,
    /// API keys found in the subjects' Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<i32>,
    /// Every window of the spec, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::WINDOWS))]
    pub windows: Vec<WindowStatus>,
    /// The window with the least share left, as text for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tightest: Option<TightestWindow>,
    /// Tokens an hour, lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_rate_tokens_per_hour: Option<i64>,
    /// When the tightest window will be spent at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub exhausted_at: Option<Time>,
}

/// One window: settled + held + free = limit.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WindowStatus {
    /// Name of the window.
    pub name: String,
    /// Tokens that may be spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Tokens that were spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<i64>,
    /// Tokens reserved by requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// Tokens left; below zero when in debt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
    /// The same in money, when the window has an amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<WindowAmount>,
    /// When the window began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub window_start: Option<Time>,
    /// When a calendar window begins anew; for a rolling one, when the oldest spending leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub resets_at: Option<Time>,
}

/// One window in money.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WindowAmount {
    /// May be spent.
    pub limit: Money,
    /// Was spent.
    pub settled: Money,
    /// Reserved by requests in flight.
    pub held: Money,
    /// Left; below zero when in debt.
    pub free: Balance,
}

/// The window with the least share left, as text.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TightestWindow {
    /// Name of the window.
    pub window: String,
    /// Spent, such as 1200 or $3.20.
    pub settled: String,
    /// May be spent.
    pub limit: String,
    /// Reserved by requests in flight.
    pub held: String,
    /// When it begins anew, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
}
