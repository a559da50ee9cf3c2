//! Objects for tests.

use super::{GroupView, Known, PodView};
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;
use quartermaster_crds::v1alpha1::{CostPolicy, HardwareClass, ModelDeployment, TokenBudget};
use serde_json::json;

pub(crate) fn placement(variant: &str, class: &str, devices: u32) -> Placement {
    Placement { variant: variant.into(), class: class.into(), devices }
}

/// A CPU class of 0.01 USD an hour.
pub(crate) fn class(name: &str) -> HardwareClass {
    serde_json::from_value(json!({
        "metadata": {"name": name, "generation": 1, "uid": format!("uid-{name}")},
        "spec": {
            "accelerator": {"kind": "CPU"}, "memoryPerDevice": "512Mi", "cpuPerDevice": "300m",
            "price": {"onDemandPerHour": "0.01"}, "maxDevices": 3, "startup": {"pull": "5s", "load": "10s"},
        },
    }))
    .unwrap()
}

pub(crate) fn gpu_class(name: &str) -> HardwareClass {
    serde_json::from_value(json!({
        "metadata": {"name": name, "generation": 1, "uid": format!("uid-{name}")},
        "spec": {
            "accelerator": {"kind": "GPU"}, "resourceName": "nvidia.com/gpu", "memoryPerDevice": "140Gi",
            "nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "price": {"onDemandPerHour": "4.00"},
        },
    }))
    .unwrap()
}

/// Q8 on `cpu-standard`, Q4 on `cpu-small`, a local file on `h200`.
pub(crate) fn model(namespace: &str, name: &str) -> ModelDeployment {
    let variant = |name: &str, source: &str, precision: &str, score: &str, class: &str| {
        json!({
            "name": name, "source": source, "format": "GGUF", "precision": precision,
            "quality": {"score": score, "metric": "RelativePerplexity"}, "hardware": [{"class": class}],
        })
    };
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "generation": 1, "uid": format!("uid-{name}")},
        "spec": {
            "model": format!("{name}-135m"),
            "variants": [
                variant("q8", "oci://example/models:q8#/model.gguf", "Q8_0", "1", "cpu-standard"),
                variant("q4", "oci://example/models:q4#/model.gguf", "Q4_0", "0.95", "cpu-small"),
                variant("local", "file:///var/models/x.gguf", "F16", "1", "h200"),
            ],
            "objective": {"type": "MaximizeValue"},
            "serving": {"contextTokens": 1024, "parallelRequests": 4},
            "scaling": {"min": 1, "max": 3, "scaleDownAfter": "1m"},
            "tokens": {"limits": {"maxCompletionTokens": 256}},
        },
    }))
    .unwrap()
}

pub(crate) fn budget(namespace: &str, name: &str, secret: &str, parent: Option<&str>) -> TokenBudget {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "generation": 1, "uid": format!("uid-{name}")},
        "spec": {
            "subjects": [{"apiKeySecret": {"name": secret}}],
            "parent": parent.map(|name| json!({"name": name})),
            "windows": [{"name": "hourly", "period": "Hour", "tokens": 1000}],
        },
    }))
    .unwrap()
}

pub(crate) fn policy(namespace: &str, name: &str, scope: &str, amount: &str) -> CostPolicy {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name, "generation": 1, "uid": format!("uid-{name}")},
        "spec": {"scope": scope, "ceilings": [{"period": "Hour", "amount": amount}]},
    }))
    .unwrap()
}

/// A scheduled pod that is not ready.
pub(crate) fn pod(namespace: &str, model: &str, variant: &str, class: &str, devices: u32) -> PodView {
    PodView {
        namespace: namespace.into(),
        name: format!("{model}-{class}-{devices}-x"),
        uid: format!("uid-{model}-{class}-{devices}"),
        model: model.into(),
        placement: placement(variant, class, devices),
        known: Known::Said,
        config_hash: String::new(),
        ip: Some("10.0.0.1".into()),
        created: Millis(0),
        scheduled_at: Some(Millis(0)),
        ready_since: None,
        deleting: false,
        gone_by: None,
        finished_at: None,
        restarts: 0,
        failure: None,
    }
}

pub(crate) fn ready_pod(namespace: &str, model: &str, variant: &str, class: &str, devices: u32) -> PodView {
    PodView { ready_since: Some(Millis(9_000)), ..pod(namespace, model, variant, class, devices) }
}

pub(crate) fn group(namespace: &str, model: &str, variant: &str, class: &str, wanted: u32) -> GroupView {
    GroupView {
        namespace: namespace.into(),
        name: format!("{model}-{class}-1"),
        model: model.into(),
        owner: Some(format!("uid-{model}")),
        placement: placement(variant, class, 1),
        files: vec![variant.into()],
        config_hash: String::new(),
        wanted,
        resource_version: "1".into(),
    }
}
