//! HardwareClass: a kind of device that replicas may run on, what it costs and how long it takes to start.

use k8s_openapi::api::core::v1::Toleration as CoreToleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Condition;
use super::model_deployment::Precision;
use crate::condition::list_schema as conditions_schema;
use crate::field_path::{FieldPath, NotObeyed};
use crate::{Currency, Duration, Money, limits, quantity};

/// One kind of device: where it is, what it holds, what it costs.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "quartermaster.dev",
    version = "v1alpha1",
    kind = "HardwareClass",
    plural = "hardwareclasses",
    shortname = "hwc",
    category = "quartermaster",
    status = "HardwareClassStatus",
    derive = "PartialEq",
    doc = "A kind of device that replicas may run on: its pool, its price and its start-up times.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.accelerator.kind"),
    printcolumn(name = "Price/h", type_ = "string", json_path = ".spec.price.onDemandPerHour"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.devices.used"),
    printcolumn(name = "Allocatable", type_ = "integer", json_path = ".status.devices.allocatable"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxDevices"),
    printcolumn(name = "Unhealthy", type_ = "integer", json_path = ".status.devices.unhealthy", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 27 && !self.metadata.name.contains('.')")
        .message("the name of a HardwareClass has at most 27 characters and no dot: it becomes a label and part of names")
)]
#[x_kube(
    validation = Rule::new("self.accelerator.kind != 'CPU' || has(self.cpuPerDevice)")
        .message("kind CPU needs cpuPerDevice: how much CPU one device is, such as 300m"),
    validation = Rule::new("self.accelerator.kind == 'CPU' || !has(self.cpuPerDevice)")
        .message("cpuPerDevice is for kind CPU only"),
    validation = Rule::new(
        "self.accelerator.kind != 'CPU' || (!has(self.resourceName) && !has(self.deviceClassName))"
    )
    .message("kind CPU takes no resourceName and no deviceClassName: it requests cpu and memory"),
    validation = Rule::new(
        "self.accelerator.kind == 'CPU' || has(self.resourceName) != has(self.deviceClassName)"
    )
    .message("kinds GPU, TPU and FPGA need exactly one of resourceName (device plugin) and deviceClassName (DRA)"),
    validation = Rule::new("!has(self.topology) || self.accelerator.kind == 'TPU'")
        .message("topology is for kind TPU only"),
    validation = Rule::new("self.accelerator.kind == oldSelf.accelerator.kind")
        .message("accelerator.kind is immutable: make a new HardwareClass and let models name that")
)]
pub struct HardwareClassSpec {
    /// What the device is.
    pub accelerator: Accelerator,
    /// Extended resource of a device plugin, such as nvidia.com/gpu.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::QUALIFIED_NAME), regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9_./]*[a-zA-Z0-9])?$"))]
    pub resource_name: Option<String>,
    /// DeviceClass of dynamic resource allocation (DRA).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::SUBDOMAIN), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub device_class_name: Option<String>,
    /// Labels of the nodes that carry the device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "super::labels_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of those nodes that replicas tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::TOLERATIONS))]
    pub tolerations: Vec<Toleration>,
    /// Shape of a TPU slice, such as 2x4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{1,4}x[0-9]{1,4}(x[0-9]{1,4})?$"))]
    pub topology: Option<String>,
    /// Memory of one device; for kind CPU the memory a replica requests (and is limited to) per device.
    #[schemars(schema_with = "quantity::schema")]
    pub memory_per_device: Quantity,
    /// Kind CPU: how much CPU one device is, such as 300m; request and limit of a replica per device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity::schema")]
    pub cpu_per_device: Option<Quantity>,
    /// Precisions that the device computes well; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::PRECISIONS))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub precisions: Vec<Precision>,
    /// What one device costs.
    pub price: Price,
    /// Most devices that all models together may hold. Without it, what the nodes offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::DEVICES))]
    pub max_devices: Option<i32>,
    /// Start-up times to assume until measured ones are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Startup>,
    /// Power of one device under load, in watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub watts: Option<i32>,
}

/// What the device is.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    /// GPU, TPU, FPGA or CPU.
    pub kind: AcceleratorKind,
    /// Who makes it; informational.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::TEXT))]
    pub vendor: Option<String>,
    /// The product's name; informational.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::TEXT))]
    pub model: Option<String>,
}

/// Families of devices.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum AcceleratorKind {
    /// Graphics processor.
    GPU,
    /// Tensor processor.
    TPU,
    /// Programmable gate array.
    FPGA,
    /// A share of a node's processors.
    CPU,
}

/// What one device costs an hour.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Price of one device and hour, such as "2.49".
    pub on_demand_per_hour: Money,
    /// Price of one interruptible device and hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot_per_hour: Option<Money>,
    /// Currency of both.
    #[serde(default)]
    pub currency: Currency,
}

/// Start-up times to assume until measured ones are there.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Startup {
    /// From a pod without a node to a node that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provision: Option<Duration>,
    /// To pull images and the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Duration>,
    /// From the start of the engine to its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Duration>,
}

/// A taint that replicas tolerate.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.operator != 'Exists' || !has(self.value)")
        .message("a toleration with operator Exists takes no value"),
    validation = Rule::new("self.operator == 'Exists' || has(self.key)")
        .message("a toleration with operator Equal needs a key")
)]
pub struct Toleration {
    /// Key of the taint; empty with operator Exists means every taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::QUALIFIED_NAME))]
    pub key: Option<String>,
    /// Equal or Exists.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Value of the taint for operator Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::LABEL))]
    pub value: Option<String>,
    /// Effect of the taint; without it, every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// For effect NoExecute: how long a replica stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum TolerationOperator {
    /// Key and value are equal.
    #[default]
    Equal,
    /// The key is there.
    Exists,
}

/// What a taint does.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[schemars(inline, transform = crate::render::no_description)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// No new pods when avoidable.
    PreferNoSchedule,
    /// Running pods leave.
    NoExecute,
}

impl From<&Toleration> for CoreToleration {
    fn from(from: &Toleration) -> Self {
        let operator = match from.operator {
            TolerationOperator::Equal => "Equal",
            TolerationOperator::Exists => "Exists",
        };
        let effect = from.effect.map(|effect| match effect {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        });
        Self {
            key: from.key.clone(),
            operator: Some(operator.to_owned()),
            value: from.value.clone(),
            effect: effect.map(str::to_owned),
            toleration_seconds: from.toleration_seconds,
        }
    }
}

impl HardwareClassSpec {
    /// Whether the bundled engine computes on it. It is built for the CPU: any other device would be paid for and lie idle.
    #[must_use]
    pub fn bundled_engine_computes_on_it(&self) -> bool {
        self.accelerator.kind == AcceleratorKind::CPU
    }

    /// The set fields that this version of the operator does not obey.
    #[must_use]
    pub fn not_implemented(&self) -> Vec<FieldPath> {
        let mut fields = NotObeyed::default();
        fields.when(!self.bundled_engine_computes_on_it(), "spec.accelerator.kind");
        fields.when(self.device_class_name.is_some(), "spec.deviceClassName");
        fields.when(self.topology.is_some(), "spec.topology");
        fields.when(!self.precisions.is_empty(), "spec.precisions");
        fields.when(self.price.spot_per_hour.is_some(), "spec.price.spotPerHour");
        fields.when(self.watts.is_some(), "spec.watts");
        fields.into_fields()
    }
}

/// What the operator sees of the class.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HardwareClassStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, CapacityBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Devices of the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Start-up times as measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<MeasuredStartup>,
}

/// Devices of a class.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// On all nodes of the class.
    pub total: i32,
    /// What replicas may hold: the least of what nodes offer and maxDevices.
    pub allocatable: i32,
    /// Held by replicas.
    pub used: i32,
    /// Out of order.
    pub unhealthy: i32,
}

/// Start-up times as measured.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredStartup {
    /// Half of all starts took at most this.
    pub p50: Duration,
    /// 95 of 100 starts took at most this.
    pub p95: Duration,
    /// Starts that were measured.
    pub samples: i32,
}
