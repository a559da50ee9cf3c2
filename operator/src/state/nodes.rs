//! Devices that the nodes offer, for a class's status.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use quartermaster_crds::quantity;
use quartermaster_crds::v1alpha1::HardwareClassSpec;
use std::collections::BTreeMap;

/// One node, cut down to what classes ask of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What pods may request on it.
    pub allocatable: BTreeMap<String, Quantity>,
    /// It takes pods: ready and not cordoned.
    pub usable: bool,
}

impl NodeView {
    /// The view of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        Self {
            labels: node.labels().clone(),
            allocatable: status.allocatable.unwrap_or_default(),
            usable: ready && !cordoned,
        }
    }

    /// Devices of a class on this node, were it empty.
    fn devices(&self, class: &HardwareClassSpec) -> u64 {
        if !class.node_selector.iter().all(|(key, value)| self.labels.get(key) == Some(value)) {
            return 0;
        }
        let has = |name: &str| self.allocatable.get(name);
        if let Some(resource) = &class.resource_name {
            return has(resource).and_then(|amount| quantity::bytes(amount).ok()).unwrap_or(0);
        }
        let Some(cpu) = class.cpu_per_device.as_ref().and_then(|cpu| quantity::millis(cpu).ok()) else { return 0 };
        let memory = quantity::bytes(&class.memory_per_device).unwrap_or(u64::MAX);
        let cpus = has("cpu").and_then(|amount| quantity::millis(amount).ok()).unwrap_or(0);
        let bytes = has("memory").and_then(|amount| quantity::bytes(amount).ok()).unwrap_or(0);
        (cpus / cpu.max(1)).min(bytes / memory.max(1))
    }
}

/// Devices of a class on all nodes, and on those that take no pods now.
#[must_use]
pub fn devices<'a>(nodes: impl Iterator<Item = &'a NodeView>, class: &HardwareClassSpec) -> (u64, u64) {
    nodes.fold((0, 0), |(all, out), node| {
        let devices = node.devices(class);
        (all.saturating_add(devices), out.saturating_add(if node.usable { 0 } else { devices }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{class, gpu_class};
    use super::*;

    fn node(allocatable: &[(&str, &str)], usable: bool) -> NodeView {
        let allocatable = allocatable.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
        NodeView { labels: BTreeMap::new(), allocatable: allocatable.collect(), usable }
    }

    #[test]
    fn a_cpu_device_is_a_share_of_cpu_and_memory() {
        let nodes = [node(&[("cpu", "2"), ("memory", "1Gi")], true), node(&[("cpu", "2"), ("memory", "64Gi")], false)];
        // 300m and 512Mi a device: the first node is bound by memory, the second by CPU.
        assert_eq!(devices(nodes.iter(), &class("cpu-small").spec), (2 + 6, 6));
    }

    #[test]
    fn a_gpu_is_counted_by_its_resource_on_selected_nodes() {
        let mut labelled = node(&[("nvidia.com/gpu", "8")], true);
        labelled.labels.insert("pool".into(), "gpu".into());
        let nodes = [labelled, node(&[("nvidia.com/gpu", "8")], true)];
        assert_eq!(devices(nodes.iter(), &gpu_class("h200").spec), (8, 0));
    }
}
