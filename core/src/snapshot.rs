//! All that a decision may read, as one serializable value. An incident is a saved Snapshot plus a test.

use crate::units::{Millis, NanoUsd, QualityPpm, Tokens};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Format of a saved snapshot; it grows when an old one can't be read any more.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// The cluster as the operator sees it at one tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// [`SNAPSHOT_FORMAT`].
    pub format: u32,
    /// The tick's instant.
    pub now: Millis,
    /// Hardware classes by name.
    pub classes: BTreeMap<String, HardwareClass>,
    /// Cost ceilings in force.
    pub ceilings: Vec<Ceiling>,
    /// Models by `namespace/name`.
    pub models: BTreeMap<String, Model>,
    /// Replicas of models or groups that are gone.
    #[serde(default)]
    pub orphans: Vec<Orphan>,
}

/// A kind of device, its price and how many there may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HardwareClass {
    /// Price of one device for an hour.
    pub price_per_hour: NanoUsd,
    /// Most devices in use at a time.
    pub max_devices: Option<u32>,
    /// Devices that nodes offer or replicas hold: the bound where none is declared.
    #[serde(default)]
    pub offered: Option<u32>,
    /// It was deleted: what serves on it goes on at its last price, nothing starts on it.
    #[serde(default)]
    pub gone: bool,
}

impl HardwareClass {
    /// Most devices in use at a time. More nodes may come, so what they offer now bounds only where nothing is declared.
    #[must_use]
    pub fn device_limit(&self) -> Option<u32> {
        self.max_devices.or(self.offered)
    }
}

/// A ceiling of a CostPolicy in its current period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ceiling {
    /// `namespace/name` of the CostPolicy.
    pub policy: String,
    /// Name of the ceiling's period, as the policy writes it.
    pub period: String,
    /// Namespace that it binds; none binds the cluster.
    pub namespace: Option<String>,
    /// Hard limit on projected spend in the period.
    pub amount: NanoUsd,
    /// Settled in the period so far.
    pub settled: NanoUsd,
    /// End of the period.
    pub period_end: Millis,
    /// False for a policy that only observes.
    pub enforced: bool,
}

/// Replicas that belong to nothing any more and hold their devices until they have drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Namespace, whose ceilings they count under.
    pub namespace: String,
    /// What they are.
    pub placement: Placement,
    /// How many.
    pub replicas: u32,
}

/// One ModelDeployment with its replicas and its load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What "best" means.
    pub objective: Objective,
    /// Candidates below it are never served.
    pub quality_floor: Option<QualityPpm>,
    /// Who is planned first when money or devices are short; higher is first.
    pub priority: u32,
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// A pin from outside (the scale subresource).
    pub pinned: Option<u32>,
    /// Idle for so long, it goes to zero; none keeps at least one replica.
    pub idle_after: Option<Millis>,
    /// Replicas go down only to the highest need of so long.
    pub scale_down_after: Millis,
    /// Every variant × hardware that the spec allows.
    pub candidates: Vec<Candidate>,
    /// Replicas that exist, by (hardware class, devices).
    pub groups: Vec<Group>,
    /// Load now; none when the signals can't be trusted.
    pub load: Option<Load>,
    /// Why `load` is absent, for people.
    pub blind_because: Option<String>,
    /// Past needs, oldest first.
    pub needs: Vec<Need>,
    /// Since when needs have been observed without a break.
    pub observed_since: Millis,
}

/// The objective of a ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objective {
    /// The cheapest candidate at or above the quality floor.
    MinimizeCost,
    /// The best candidate whose projected spend fits every ceiling.
    MaximizeValue,
}

/// A variant on so many devices of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Variant name.
    pub variant: String,
    /// Hardware class name.
    pub class: String,
    /// Devices of one replica.
    pub devices: u32,
}

impl Placement {
    /// Whether both run in the same Deployment: the variant is handed to the pod, the hardware is not.
    #[must_use]
    pub fn same_hardware(&self, other: &Self) -> bool {
        self.class == other.class && self.devices == other.devices
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.devices {
            1 => write!(f, "{} on {}", self.variant, self.class),
            devices => write!(f, "{} on {devices} × {}", self.variant, self.class),
        }
    }
}

/// A placement that could be served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// What and where.
    pub placement: Placement,
    /// Declared quality.
    pub quality: QualityPpm,
    /// Upper end of its interval: it may be as good as that, as far as was measured. The score itself without interval.
    pub quality_high: QualityPpm,
    /// Why it can't run, as its pods or its hardware class said; none when nothing speaks against it.
    pub unusable: Option<String>,
    /// Measured capacity of one replica; none before the first one ran.
    pub capacity: Option<Capacity>,
}

/// What one replica can do, as it measured itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Requests decoded at the same time.
    pub slots: u32,
    /// Tokens a second with all slots busy.
    pub tokens_per_second: f64,
}

/// Replicas of one (class, devices).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What is asked of it now.
    pub placement: Placement,
    /// Replicas asked for.
    pub wanted: u32,
    /// Replicas ready with that variant.
    pub ready: u32,
    /// Replicas ready with any variant: one that is told to serve another serves on until it does.
    #[serde(default)]
    pub serving: u32,
    /// Replicas on their way: supply, with `wanted`.
    pub pending: u32,
    /// Replicas that finish what they have.
    pub draining: u32,
    /// Live replicas beyond `wanted`: a roll-out's newcomer, or one that has yet to be told to go.
    #[serde(default)]
    pub surplus: u32,
    /// Live replicas that a roll-out under way has yet to replace.
    #[serde(default)]
    pub replacing: u32,
    /// Its spec, class or image has changed since its pods were described: asking for the same variant rolls them.
    #[serde(default)]
    pub outdated: bool,
    /// Variants that its pods can be told to serve as they live.
    #[serde(default)]
    pub holds: Vec<String>,
    /// Measured or declared start-up time.
    pub startup: Millis,
}

/// Load of a model over gateway and replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Requests being decoded.
    pub running: u32,
    /// Requests waiting, in replicas and in the gateway.
    pub waiting: u32,
    /// Tokens that the open requests may still use.
    pub tokens_in_flight: Tokens,
}

/// Replicas that were needed at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// When.
    pub at: Millis,
    /// How many.
    pub replicas: u32,
}
