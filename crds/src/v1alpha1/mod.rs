//! Version v1alpha1 of the API: one module a kind.

pub mod cost_policy;
pub mod hardware_class;
pub mod model_deployment;
pub mod token_budget;

pub use cost_policy::{CostPolicy, CostPolicySpec, CostPolicyStatus};
pub use hardware_class::{HardwareClass, HardwareClassSpec, HardwareClassStatus};
pub use model_deployment::{ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus};
pub use token_budget::{TokenBudget, TokenBudgetSpec, TokenBudgetStatus};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stretch of the calendar, in the time zone that stands beside it.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline, transform = crate::render::no_description)]
pub enum Period {
    /// From second 0 of a minute.
    Minute,
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

/// The time zone when none is given.
pub(crate) fn utc() -> String {
    "UTC".to_owned()
}

/// What Kubernetes takes as the value of a label, the empty one included.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// The schema of a map of labels, bounded.
pub(crate) fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": crate::limits::LABELS,
        "additionalProperties": { "type": "string", "maxLength": crate::limits::LABEL, "pattern": LABEL_VALUE },
    })
}

/// The schema of a map of labels with at least one.
pub(crate) fn some_labels_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = labels_schema(generator);
    schema.insert("minProperties".to_owned(), 1.into());
    schema
}
