//! CostPolicy: what models may cost, and what gives way first.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::condition::{list_schema, time_schema};
use crate::field_path::{FieldPath, NotObeyed};
use crate::{Balance, Currency, Money, limits};

/// What the models of a namespace (or of the cluster) may cost.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "quartermaster.dev",
    version = "v1alpha1",
    kind = "CostPolicy",
    plural = "costpolicies",
    shortname = "cpol",
    category = "quartermaster",
    namespaced,
    status = "CostPolicyStatus",
    derive = "PartialEq",
    doc = "What the models of a namespace may cost: hard ceilings on projected spend, alerts, and what gives way first.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Ceiling", type_ = "string", json_path = ".status.tightest.ceiling"),
    printcolumn(name = "Settled", type_ = "string", json_path = ".status.tightest.settled"),
    printcolumn(name = "Projected", type_ = "string", json_path = ".status.tightest.projected"),
    printcolumn(name = "Headroom", type_ = "string", json_path = ".status.tightest.headroom"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="AtCeiling")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope", priority = 1),
    printcolumn(name = "Rung", type_ = "string", json_path = ".status.activeRung", priority = 1)
)]
#[x_kube(
    validation = Rule::new("!has(self.protectPriority) || has(self.breaker)")
        .message("protectPriority is for policies with a breaker: it says which models the breaker never touches")
)]
pub struct CostPolicySpec {
    /// Namespace: the models beside this object. Cluster: all models; obeyed in the operator's own namespace only.
    #[serde(default)]
    pub scope: Scope,
    /// Enforce: the plan stays below the ceilings. Observe: it only says what it would do.
    #[serde(default)]
    pub mode: Mode,
    /// Hard limits on projected spend, at most one a period.
    #[schemars(length(min = 1, max = limits::CEILINGS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["period".into()]))]
    pub ceilings: Vec<Ceiling>,
    /// What happens when a ceiling is settled in full.
    #[serde(default)]
    pub when_exhausted: WhenExhausted,
    /// Who is told at which share of a ceiling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ALERTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["atPercent".into()]))]
    pub alerts: Vec<Alert>,
    /// What gives way before a ceiling is reached, gentlest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::LADDER))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["action".into()]),
        validation = Rule::new(
            "self.all(x, self.all(y, x.atPercent >= y.atPercent || (x.action == 'ShrinkTokens' ? 0 : x.action == 'CheaperVariant' ? 1 : x.action == 'QueueBatch' ? 2 : 3) < (y.action == 'ShrinkTokens' ? 0 : y.action == 'CheaperVariant' ? 1 : y.action == 'QueueBatch' ? 2 : 3)))"
        )
        .message("breaker: a gentler action needs the lower atPercent: ShrinkTokens, CheaperVariant, QueueBatch, ShedByPriority")
    )]
    pub breaker: Option<Vec<BreakerRung>>,
    /// The breaker never touches models of this priority or higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::PRIORITY))]
    pub protect_priority: Option<i32>,
    /// Usage for finance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chargeback: Option<Chargeback>,
    /// Currency of every amount.
    #[serde(default)]
    pub currency: Currency,
}

/// Whose models a policy holds.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[schemars(inline)]
pub enum Scope {
    /// The models of this namespace.
    #[default]
    Namespace,
    /// All models; obeyed in the operator's own namespace only.
    Cluster,
}

/// Whether a policy binds.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[schemars(inline)]
pub enum Mode {
    /// Say what would be done.
    Observe,
    /// Do it.
    #[default]
    Enforce,
}

/// A hard limit on projected spend in one period.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ceiling {
    /// A stretch of the calendar.
    pub period: CeilingPeriod,
    /// Time zone of the calendar, such as Europe/Berlin.
    #[serde(default = "super::utc")]
    #[schemars(length(min = 1, max = limits::LABEL), regex(pattern = r"^[A-Za-z][A-Za-z0-9_+/-]*$"))]
    pub time_zone: String,
    /// What may be spent in it.
    pub amount: Money,
}

/// Periods of a ceiling.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum CeilingPeriod {
    /// From minute 0 of an hour.
    Hour,
    /// From midnight.
    Day,
    /// From Monday, midnight.
    Week,
    /// From the first of the month.
    Month,
    /// From the first of January, April, July or October.
    Quarter,
    /// From the first of January.
    Year,
}

impl From<CeilingPeriod> for super::Period {
    fn from(period: CeilingPeriod) -> Self {
        match period {
            CeilingPeriod::Hour => Self::Hour,
            CeilingPeriod::Day => Self::Day,
            CeilingPeriod::Week => Self::Week,
            CeilingPeriod::Month => Self::Month,
            CeilingPeriod::Quarter => Self::Quarter,
            CeilingPeriod::Year => Self::Year,
        }
    }
}

/// What happens when a ceiling is settled in full.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.minPriority) == (self.action == 'KeepPriority')")
        .message("whenExhausted.minPriority belongs to action KeepPriority, and KeepPriority needs it")
)]
pub struct WhenExhausted {
    /// Stop every model after its requests are done, or keep those of a priority.
    #[serde(default)]
    pub action: ExhaustedCeiling,
    /// Models of this priority or higher go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::PRIORITY))]
    pub min_priority: Option<i32>,
}

/// What happens when a ceiling is settled in full.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[schemars(inline)]
pub enum ExhaustedCeiling {
    /// Every model stops after its requests are done.
    #[default]
    Stop,
    /// Models of minPriority or higher go on.
    KeepPriority,
}

/// Who is told at which share of a ceiling.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Share of the ceiling in percent.
    #[schemars(range(min = 1, max = 200))]
    pub at_percent: i32,
    /// Of what was settled or of what is projected.
    #[serde(default)]
    pub of: AlertBasis,
    /// By which ways.
    #[serde(default = "event")]
    #[schemars(length(min = 1, max = limits::LADDER))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub notify: Vec<Notify>,
}

fn event() -> Vec<Notify> {
    vec![Notify::Event]
}

/// What an alert looks at.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum AlertBasis {
    /// What was spent.
    Settled,
    /// What will be spent.
    #[default]
    Projected,
}

/// By which way somebody is told.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[schemars(inline)]
pub enum Notify {
    /// A Kubernetes Event on the policy.
    Event,
    /// A Prometheus alert.
    Prometheus,
}

/// What gives way at which share of a ceiling.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BreakerRung {
    /// Share of the ceiling in percent, of projected spend.
    #[schemars(range(min = 1, max = 100))]
    pub at_percent: i32,
    /// What gives way.
    pub action: BreakerAction,
}

/// What gives way, gentlest first.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline, transform = crate::render::no_description)]
pub enum BreakerAction {
    /// Shorter answers.
    ShrinkTokens,
    /// A cheaper variant.
    CheaperVariant,
    /// Batch requests wait.
    QueueBatch,
    /// Requests of low priority are refused.
    ShedByPriority,
}

/// Usage for finance.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Chargeback {
    /// Format of the export.
    #[serde(default)]
    pub export: ExportFormat,
    /// When, as five fields of cron in UTC.
    #[schemars(length(min = 9, max = limits::TEXT))]
    #[x_kube(
        validation = Rule::new(r"self.matches('^[-0-9*,/]+( [-0-9*,/]+){4}$')")
            .message("chargeback.schedule has five fields of cron, such as \"0 6 1 * *\"")
    )]
    pub schedule: String,
}

/// Formats of an export.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum ExportFormat {
    /// FinOps Open Cost and Usage Specification.
    #[default]
    FOCUS,
}

impl CostPolicySpec {
    /// The set fields that this version of the operator does not obey.
    #[must_use]
    pub fn not_implemented(&self) -> Vec<FieldPath> {
        let mut fields = NotObeyed::default();
        fields.when(self.when_exhausted.action != ExhaustedCeiling::Stop, "spec.whenExhausted.action");
        fields.when(!self.alerts.is_empty(), "spec.alerts");
        fields.when(self.breaker.is_some(), "spec.breaker");
        fields.when(self.protect_priority.is_some(), "spec.protectPriority");
        fields.when(self.chargeback.is_some(), "spec.chargeback");
        fields.into_fields()
    }
}

/// What is spent and what will be.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CostPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, AtCeiling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "list_schema")]
    pub conditions: Vec<Condition>,
    /// Every ceiling of the spec, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::CEILINGS))]
    pub ceilings: Vec<CeilingStatus>,
    /// The ceiling with the least share left, as text for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tightest: Option<TightestCeiling>,
    /// The breaker's rung in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_rung: Option<BreakerAction>,
}

/// One ceiling: amount = projected + headroom.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CeilingStatus {
    /// Its period.
    pub period: CeilingPeriod,
    /// What may be spent in it.
    pub amount: Money,
    /// What was spent in it.
    pub settled: Money,
    /// What was spent and what runs or is on its way will yet cost.
    pub projected: Money,
    /// What may yet be started; below zero when the ceiling was lowered below what runs.
    pub headroom: Balance,
    /// When the period began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub period_start: Option<Time>,
    /// When the next begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub resets_at: Option<Time>,
}

/// The ceiling with the least share left, as text.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TightestCeiling {
    /// Such as 10.00/Day.
    pub ceiling: String,
    /// Spent.
    pub settled: String,
    /// Projected.
    pub projected: String,
    /// Left.
    pub headroom: String,
}
