//! Snapshot → Plan: which variant, where, in how many replicas, and why.

mod choose;
mod decide;
mod floors;
mod reason;
mod size;
mod spend;

pub use decide::{decide, yet_to_come};
pub use reason::{Reason, Verdict};
pub use spend::{Books, PLAN_HORIZON, projected};

use crate::snapshot::Placement;
use crate::units::NanoUsd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What shall be, for every model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// By `namespace/name`.
    pub models: BTreeMap<String, ModelPlan>,
    /// By policy and period, in the order of the snapshot.
    pub ceilings: Vec<CeilingPlan>,
}

/// What shall be, for one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelPlan {
    /// What is served once the plan is carried out; none while nothing may be.
    pub serve: Option<Placement>,
    /// Replicas of every (class, devices); one that is not named goes.
    pub groups: Vec<GroupPlan>,
    /// Replicas that the load needs, for the next snapshot's history; none while blind.
    pub needed: Option<u32>,
    /// Why.
    pub reason: Reason,
    /// Every candidate, and why it is served or not.
    pub considered: Vec<Considered>,
    /// Cost of the planned replicas an hour.
    pub cost_per_hour: NanoUsd,
}

/// Replicas of one (class, devices).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPlan {
    /// What it serves.
    pub placement: Placement,
    /// How many.
    pub replicas: u32,
}

/// A candidate and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// The candidate.
    pub placement: Placement,
    /// What became of it.
    pub verdict: Verdict,
}

/// A ceiling and what the plan makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CeilingPlan {
    /// `namespace/name` of the CostPolicy.
    pub policy: String,
    /// Its period.
    pub period: String,
    /// Spend that is projected if the plan is carried out.
    pub projected: NanoUsd,
    /// What runs already is above the ceiling; the plan goes down as fast as no request is lost.
    pub committed_above: bool,
}
