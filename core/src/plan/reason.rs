//! Why a plan is as it is: one value that renders as condition reason, Event, metric label and sentence.

use crate::snapshot::Placement;
use crate::units::{NanoUsd, QualityPpm};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a model gets what it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
#[expect(missing_docs, reason = "Display says it")]
pub enum Reason {
    Steady {
        replicas: u32,
    },
    ScalingUp {
        from: u32,
        to: u32,
        needed: u32,
    },
    ScalingDown {
        from: u32,
        to: u32,
    },
    QuietWindow {
        replicas: u32,
        needed: u32,
    },
    AtMaximum {
        replicas: u32,
        needed: u32,
    },
    ReplicasPinned {
        replicas: u32,
    },
    Switching {
        from: Placement,
        to: Placement,
        because: Box<Verdict>,
    },
    AtCeiling {
        policy: String,
        replicas: u32,
        wanted: u32,
        amount: NanoUsd,
        #[serde(default)]
        roll_out: bool,
    },
    PoolExhausted {
        class: String,
        replicas: u32,
        wanted: u32,
        #[serde(default)]
        roll_out: bool,
    },
    SignalsBlind {
        because: String,
    },
    NoUsableVariant {
        because: String,
    },
    Asleep,
}

impl Reason {
    /// The machine-readable name: condition reason, Event reason and metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Steady { .. } => "Steady",
            Self::ScalingUp { .. } => "ScalingUp",
            Self::ScalingDown { .. } => "ScalingDown",
            Self::QuietWindow { .. } => "QuietWindow",
            Self::AtMaximum { .. } => "AtMaximum",
            Self::ReplicasPinned { .. } => "ReplicasPinned",
            Self::Switching { .. } => "Switching",
            Self::AtCeiling { .. } => "AtCeiling",
            Self::PoolExhausted { .. } => "PoolExhausted",
            Self::SignalsBlind { .. } => "SignalsBlind",
            Self::NoUsableVariant { .. } => "NoUsableVariant",
            Self::Asleep => "Asleep",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady { replicas: 1 } => f.write_str("1 replica carries the load"),
            Self::Steady { replicas } => write!(f, "{replicas} replicas carry the load"),
            Self::ScalingUp { from, to, needed } if needed < to => {
                write!(f, "going from {from} to {to} replicas: scaling.min keeps so many")
            }
            Self::ScalingUp { from, to, needed } => {
                write!(f, "going from {from} to {to} replicas: the load needs {needed}")
            }
            Self::ScalingDown { from, to } => {
                write!(f, "going from {from} to {to} replicas: the load has needed no more for the whole quiet window")
            }
            Self::QuietWindow { replicas, needed } => {
                write!(f, "keeping {replicas} replicas until the quiet window has passed; the load needs {needed} now")
            }
            Self::AtMaximum { replicas, needed } => {
                write!(f, "at scaling.max = {replicas} replicas; the load needs {needed}")
            }
            Self::ReplicasPinned { replicas } => write!(f, "scaling.replicas pins {replicas} replicas"),
            Self::Switching { from, to, because } => write!(f, "switching from {from} to {to}: {because}"),
            Self::AtCeiling { policy, replicas: 1, wanted: 1, amount, .. } => {
                write!(
                    f,
                    "the ceiling of {amount} USD of CostPolicy {policy} is almost spent; 1 replica serves until it is"
                )
            }
            Self::AtCeiling { policy, replicas, wanted, amount, roll_out } => {
                let what = replicas_of(*roll_out);
                write!(f, "the ceiling of {amount} USD of CostPolicy {policy} affords {replicas} of {wanted} {what}")
            }
            Self::PoolExhausted { class, replicas, wanted, roll_out } => {
                let what = replicas_of(*roll_out);
                write!(f, "HardwareClass {class} has devices for {replicas} of {wanted} {what}")
            }
            Self::SignalsBlind { because } => write!(f, "holding the last plan: {because}"),
            Self::NoUsableVariant { because } => write!(f, "no variant can be served: {because}"),
            Self::Asleep => f.write_str("idle, at zero replicas; the next request wakes it"),
        }
    }
}

fn replicas_of(roll_out: bool) -> &'static str {
    if roll_out { "replicas that a roll-out has side by side" } else { "replicas" }
}

/// Why a candidate is served or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
#[expect(missing_docs, reason = "Display says it")]
pub enum Verdict {
    Served,
    BelowQualityFloor { quality: QualityPpm, floor: QualityPpm },
    OverCeiling { placement: Placement, policy: String, amount: NanoUsd },
    Dominated { by: Placement, saves_per_hour: NanoUsd },
    LowerQuality { than: Placement },
    Dearer { than: Placement },
    Unusable { because: String },
    Pool { class: String },
}

impl Verdict {
    /// The machine-readable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Served => "Served",
            Self::BelowQualityFloor { .. } => "BelowQualityFloor",
            Self::OverCeiling { .. } => "OverCeiling",
            Self::Dominated { .. } => "Dominated",
            Self::LowerQuality { .. } => "LowerQuality",
            Self::Dearer { .. } => "Dearer",
            Self::Unusable { .. } => "Unusable",
            Self::Pool { .. } => "PoolTooSmall",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str("this is served"),
            Self::BelowQualityFloor { quality, floor } => write!(f, "quality {quality} is below the floor {floor}"),
            Self::OverCeiling { placement, policy, amount } => {
                write!(f, "{placement} does not fit the ceiling of {amount} USD of CostPolicy {policy}")
            }
            Self::Dominated { by, saves_per_hour: NanoUsd::ZERO } => {
                write!(f, "dominated: {by} is as good at the same price")
            }
            Self::Dominated { by, saves_per_hour } => {
                write!(f, "dominated: {by} is as good and saves {saves_per_hour} USD an hour per replica")
            }
            Self::LowerQuality { than } => write!(f, "{than} is better and affordable"),
            Self::Dearer { than } => write!(f, "{than} is cheaper and good enough"),
            Self::Unusable { because } => f.write_str(because),
            Self::Pool { class } => write!(f, "HardwareClass {class} has no devices left for one replica"),
        }
    }
}
