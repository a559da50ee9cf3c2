//! Snapshot → Plan: which variant, where, in how many replicas, and why.

mod choose;
mod decide;
mod floors;
pub mod optimise;
mod reason;
mod size;
mod spend;
mod start;

pub use decide::{decide, yet_to_come};
pub use reason::{Reason, Verdict};
pub use spend::{Books, DRAIN_TIME, PLAN_HORIZON, ROLL_OVERLAP, projected};

use crate::snapshot::Placement;
use crate::units::{Millis, NanoUsd};
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
    /// When they go, where that is planned: their successors serve by then, or the money is spent.
    pub planned_end: Option<Millis>,
    /// Their pods stay as they are although the spec describes others: there is no room to replace them, or they go soon.
    #[serde(default)]
    pub hold: bool,
}

impl GroupPlan {
    /// Replicas without a planned end, whose pods follow the spec.
    #[must_use]
    pub fn new(placement: Placement, replicas: u32) -> Self {
        Self { placement, replicas, planned_end: None, hold: false }
    }

    /// Replicas that stay as they are and go after `time`.
    #[must_use]
    pub fn ending(placement: Placement, replicas: u32, now: Millis, time: Millis) -> Self {
        Self { placement, replicas, planned_end: Some(now.saturating_add(time)), hold: true }
    }

    /// The time until they go, where that is planned.
    #[must_use]
    pub fn ends_in(&self, now: Millis) -> Option<Millis> {
        self.planned_end.map(|end| end.since(now))
    }
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
