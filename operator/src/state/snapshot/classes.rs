//! Hardware classes as the plan sees them: price and devices.

use super::Inputs;
use crate::state::devices;
use quartermaster_core::snapshot::HardwareClass;
use quartermaster_core::units::NanoUsd;
use quartermaster_crds::v1alpha1::HardwareClass as ClassObject;
use std::collections::BTreeMap;

/// Price and limit of a class; none while its price can't be read.
#[must_use]
pub fn hardware(class: &ClassObject) -> Option<HardwareClass> {
    let price_per_hour = NanoUsd(class.spec.price.on_demand_per_hour.nanos().ok()?);
    let max_devices = class.spec.max_devices.and_then(|most| u32::try_from(most).ok());
    Some(HardwareClass { price_per_hour, max_devices, offered: None, gone: false })
}

/// Every class, and those that were deleted under their replicas, as they were last known.
pub(super) fn classes(inputs: &Inputs<'_>) -> BTreeMap<String, HardwareClass> {
    let index = inputs.index;
    let there = index.classes.iter().filter_map(|(name, class)| {
        let offered = Some(offered(inputs, name, class));
        Some((name.clone(), HardwareClass { offered, ..hardware(class)? }))
    });
    let mut classes: BTreeMap<String, HardwareClass> = there.collect();
    for (name, last) in inputs.last_classes.iter().filter(|(name, _)| !index.classes.contains_key(*name)) {
        let held = held(inputs, name);
        if held > 0 {
            // Its replicas may stay, and none may be added.
            classes.insert(name.clone(), HardwareClass { max_devices: Some(held), gone: true, ..last.clone() });
        }
    }
    classes
}

/// Devices of nodes that take pods; never fewer than replicas hold, so that a cordon or a node that is not ready stops none.
fn offered(inputs: &Inputs<'_>, name: &str, class: &ClassObject) -> u32 {
    let (all, out) = devices(inputs.index.nodes.values(), &class.spec);
    u32::try_from(all.saturating_sub(out)).unwrap_or(u32::MAX).max(held(inputs, name))
}

fn held(inputs: &Inputs<'_>, class: &str) -> u32 {
    let pods = inputs.index.replicas().filter(|pod| pod.live() || pod.draining(inputs.now));
    let of_class = pods.filter(|pod| pod.scheduled_at.is_some() && pod.placement.class == class);
    of_class.map(|pod| pod.placement.devices).fold(0, u32::saturating_add)
}
