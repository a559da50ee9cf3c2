//! TokenBudget: who may spend how many tokens (and what amount) in which window.

mod status;

pub use status::{TightestWindow, TokenBudgetStatus, WindowAmount, WindowStatus};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Period;
use crate::field_path::{FieldPath, NotObeyed};
use crate::{Currency, Duration, Money, limits};

/// Who may spend how much, in which windows.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "quartermaster.dev",
    version = "v1alpha1",
    kind = "TokenBudget",
    plural = "tokenbudgets",
    shortname = "tb",
    category = "quartermaster",
    namespaced,
    status = "TokenBudgetStatus",
    derive = "PartialEq",
    doc = "Who may spend how many tokens, in which windows, and what happens when they are spent.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Spent", type_ = "string", json_path = ".status.tightest.settled"),
    printcolumn(name = "Limit", type_ = "string", json_path = ".status.tightest.limit"),
    printcolumn(name = "Held", type_ = "string", json_path = ".status.tightest.held"),
    printcolumn(name = "Window", type_ = "string", json_path = ".status.tightest.window"),
    printcolumn(name = "Resets", type_ = "string", json_path = ".status.tightest.resetsAt"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="WithinBudget")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Parent", type_ = "string", json_path = ".spec.parent.name", priority = 1),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".status.keys", priority = 1),
    validation = Rule::new(
        "!has(self.spec.parent) || has(self.spec.parent.__namespace__) || self.spec.parent.name != self.metadata.name"
    )
    .message("parent names the budget itself")
)]
pub struct TokenBudgetSpec {
    /// Whose requests are charged here. A budget that only others name as parent has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::SUBJECTS))]
    pub subjects: Vec<Subject>,
    /// The budget that is charged too, such as the team's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Other namespaces whose budgets may name this one as parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::NAMESPACES), inner(length(min = 1, max = limits::LABEL)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_namespaces: Vec<String>,
    /// What may be spent; every window holds.
    #[schemars(length(min = 1, max = limits::WINDOWS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub windows: Vec<Window>,
    /// How fast it may be spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::RATE_LIMITS))]
    pub rate_limits: Vec<RateLimit>,
    /// What happens when a window is spent: the steps are tried in this order.
    #[serde(default = "reject")]
    #[schemars(length(min = 1, max = limits::LADDER))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["action".into()]),
        validation = Rule::new("self[self.size() - 1].action == 'Reject'")
            .message("the last step of onExhausted is Reject: a budget is never overspent")
    )]
    pub on_exhausted: Vec<ExhaustedStep>,
    /// What is left at the end of a window goes over to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollover: Option<Rollover>,
    /// To whom finance charges it; informational.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::TEXT))]
    pub cost_center: Option<String>,
    /// Currency of every amount.
    #[serde(default)]
    pub currency: Currency,
}

fn reject() -> Vec<ExhaustedStep> {
    vec![ExhaustedStep { action: ExhaustedAction::Reject, max_wait: None }]
}

/// Whose requests are charged: exactly one of the three.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.apiKeySecret) ? 1 : 0) + (has(self.serviceAccount) ? 1 : 0) + (has(self.jwtClaim) ? 1 : 0) == 1"
    )
    .message("a subject is exactly one of apiKeySecret, serviceAccount and jwtClaim")
)]
pub struct Subject {
    /// API keys in Secrets of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<ApiKeySecret>,
    /// A ServiceAccount of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountRef>,
    /// A claim of a JSON web token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_claim: Option<JwtClaim>,
}

/// API keys in Secrets of this namespace.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.selector)")
        .message("apiKeySecret needs exactly one of name and selector")
)]
pub struct ApiKeySecret {
    /// Name of one Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::SUBDOMAIN))]
    pub name: Option<String>,
    /// Every Secret with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<SecretSelector>,
    /// Key of the Secret's data under which the API key stands.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = limits::SUBDOMAIN), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn default_key() -> String {
    "key".to_owned()
}

/// Every Secret with these labels.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SecretSelector {
    /// Labels, all of which the Secret carries.
    #[schemars(schema_with = "crate::v1alpha1::some_labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

/// A ServiceAccount of this namespace.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Its name.
    #[schemars(length(min = 1, max = limits::SUBDOMAIN))]
    pub name: String,
}

/// A claim of a JSON web token and the value that it must have.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct JwtClaim {
    /// Name of the claim.
    #[schemars(length(min = 1, max = limits::TEXT))]
    pub claim: String,
    /// Its value.
    #[schemars(length(min = 1, max = limits::SUBDOMAIN))]
    pub value: String,
}

/// The budget that is charged too.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its namespace, when another; it must list this one in allowedNamespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::LABEL))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = limits::SUBDOMAIN))]
    pub name: String,
}

/// What may be spent in one window.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.period) != has(self.rolling)")
        .message("a window needs exactly one of period (calendar) and rolling (the last so long)"),
    validation = Rule::new("has(self.tokens) || has(self.amount)")
        .message("a window needs at least one of tokens and amount"),
    validation = Rule::new("!has(self.timeZone) || has(self.period)")
        .message("timeZone is for calendar windows only: a rolling window has no midnight"),
    validation = Rule::new("!has(self.rolling) || duration(self.rolling) >= duration('1s')")
        .message("rolling is at least 1s"),
    validation = Rule::new("!has(self.rolling) || duration(self.rolling) <= duration('87600h')")
        .message("rolling is at most 87600h, ten years")
)]
pub struct Window {
    /// Unique within the budget, such as daily.
    #[schemars(length(min = 1, max = limits::LABEL), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A stretch of the calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// The last so long, at any moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Duration>,
    /// Time zone of the calendar, such as Europe/Berlin; without it, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::LABEL), regex(pattern = r"^[A-Za-z][A-Za-z0-9_+/-]*$"))]
    pub time_zone: Option<String>,
    /// Tokens of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::COUNT))]
    pub tokens: Option<i64>,
    /// Money, at the price of what was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
}

impl Window {
    /// The time zone in force.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("UTC")
    }
}

/// How fast may be spent.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.requests) != has(self.tokens)")
        .message("a rate limit counts exactly one of requests and tokens")
)]
pub struct RateLimit {
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::COUNT))]
    pub requests: Option<i64>,
    /// Tokens of prompts and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::COUNT))]
    pub tokens: Option<i64>,
    /// In so long.
    pub per: RatePeriod,
    /// So many at once; without it, as many as per period.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::COUNT))]
    pub burst: Option<i64>,
}

/// The period of a rate.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum RatePeriod {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
}

/// One step of what happens when a window is spent.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.maxWait) == (self.action == 'Queue')")
        .message("maxWait belongs to action Queue, and Queue needs it")
)]
pub struct ExhaustedStep {
    /// Degrade to a cheaper variant, Queue until the window resets, Reject with 429.
    pub action: ExhaustedAction,
    /// How long a request may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Duration>,
}

/// What happens when a window is spent.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum ExhaustedAction {
    /// Serve from a cheaper variant.
    Degrade,
    /// Hold the request until something is free.
    Queue,
    /// Answer 429.
    Reject,
}

/// What is left at the end of a window goes over to the next.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rollover {
    /// Most that goes over, in percent of the window's limit.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: i32,
}

impl TokenBudgetSpec {
    /// The set fields that this version of the operator does not obey.
    #[must_use]
    pub fn not_implemented(&self) -> Vec<FieldPath> {
        let mut fields = NotObeyed::default();
        for (index, subject) in self.subjects.iter().enumerate() {
            fields.when(subject.service_account.is_some(), format!("spec.subjects[{index}].serviceAccount"));
            fields.when(subject.jwt_claim.is_some(), format!("spec.subjects[{index}].jwtClaim"));
        }
        for window in &self.windows {
            fields.when(window.amount.is_some(), format!("spec.windows[{}].amount", window.name));
        }
        fields.when(!self.rate_limits.is_empty(), "spec.rateLimits");
        for step in self.on_exhausted.iter().filter(|step| step.action != ExhaustedAction::Reject) {
            fields.when(true, format!("spec.onExhausted[{:?}]", step.action));
        }
        fields.when(self.rollover.is_some(), "spec.rollover");
        fields.into_fields()
    }
}
