//! Status of a HardwareClass. Pure.

use super::{Conditions, Draft, not_implemented, whole};
use crate::actuate::Note;
use crate::state::{Index, Memory, devices};
use kube::ResourceExt;
use quartermaster_core::plan::{Plan, Reason as PlanReason};
use quartermaster_core::units::Millis;
use quartermaster_crds::Duration;
use quartermaster_crds::condition::{ConditionType, Reason, Status};
use quartermaster_crds::v1alpha1::HardwareClass;
use quartermaster_crds::v1alpha1::hardware_class::{Devices, HardwareClassStatus, MeasuredStartup};

/// The status, and what to tell.
#[must_use]
pub fn status(
    class: &HardwareClass,
    index: &Index,
    memory: &Memory,
    plan: &Plan,
    now: Millis,
) -> (HardwareClassStatus, Vec<Note>) {
    let old = class.status.clone().unwrap_or_default();
    let devices = count(class, index);
    let mut list = Conditions::new(&old.conditions, class.metadata.generation, now);
    let fault = class
        .spec
        .price
        .on_demand_per_hour
        .nanos()
        .err()
        .map(|error| (Reason::InvalidSpec, format!("spec.price.onDemandPerHour: {error}")));
    let usable = fault.is_none() && class.spec.bundled_engine_computes_on_it();
    let fault = fault.or_else(|| not_implemented(&class.spec.not_implemented()));
    match &fault {
        Some((reason, message)) if !usable => list.set(ConditionType::Ready, Status::False, *reason, message),
        _ => list.set(ConditionType::Ready, Status::True, Reason::InForce, "models may be placed on it"),
    }
    list.fault(ConditionType::Reconciling, None, Reason::AsExpected);
    list.fault(ConditionType::Stalled, fault, Reason::AsExpected);
    list.fault(ConditionType::CapacityBlocked, blocked(class, &devices, plan), Reason::CapacityAvailable);
    let (conditions, notes) = list.finish(&[ConditionType::Stalled, ConditionType::CapacityBlocked], "Observe");
    let status = HardwareClassStatus {
        observed_generation: class.metadata.generation,
        conditions,
        devices: Some(devices),
        startup: startup(&class.name_any(), memory),
    };
    (status, notes)
}

/// The draft of the status.
pub fn draft(
    class: &HardwareClass,
    index: &Index,
    memory: &Memory,
    plan: &Plan,
    now: Millis,
) -> serde_json::Result<Draft> {
    let (status, notes) = status(class, index, memory, plan, now);
    Draft::new(class, class.status.as_ref(), &status, notes)
}

fn count(class: &HardwareClass, index: &Index) -> Devices {
    let (total, unhealthy) = devices(index.nodes.values(), &class.spec);
    let offered = total.saturating_sub(unhealthy);
    let most = class.spec.max_devices.and_then(|most| u64::try_from(most).ok());
    let name = class.name_any();
    let holds = index.replicas().filter(|pod| pod.placement.class == name && pod.scheduled_at.is_some());
    let used: u32 = holds.filter(|pod| pod.finished_at.is_none()).map(|pod| pod.placement.devices).sum();
    Devices {
        total: whole(total),
        allocatable: whole(most.map_or(offered, |most| most.min(offered))),
        used: whole(used),
        unhealthy: whole(unhealthy),
    }
}

fn blocked(class: &HardwareClass, devices: &Devices, plan: &Plan) -> Option<(Reason, String)> {
    let name = class.name_any();
    let waiting = plan.models.iter().find_map(|(key, model)| match &model.reason {
        PlanReason::PoolExhausted { class, .. } if *class == name => Some(format!("{key}: {}", model.reason)),
        _ => None,
    });
    if let Some(message) = waiting {
        return Some((Reason::MaxDevicesReached, message));
    }
    (devices.total == 0).then(|| (Reason::NoDevices, "no node offers devices of this class".to_owned()))
}

fn startup(class: &str, memory: &Memory) -> Option<MeasuredStartup> {
    let models = memory.models.values().flat_map(|model| &model.startups);
    let mut times: Vec<u64> = models
        .filter(|(placement, _)| placement.class == class)
        .flat_map(|(_, times)| times)
        .filter_map(|time| u64::try_from(time.0).ok())
        .collect();
    times.sort_unstable();
    // Whole seconds: that is how exactly Kubernetes tells.
    let at = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).map(|millis| Duration::from_millis(millis / 1_000 * 1_000))
    };
    Some(MeasuredStartup { p50: at(50)?, p95: at(95)?, samples: whole(times.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::{class, gpu_class, placement, ready_pod};
    use crate::state::{Kind, NodeView, Object};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use quartermaster_crds::condition::get;

    fn index() -> Index {
        let mut index = Index::default();
        let amounts =
            [("cpu", "2"), ("memory", "8Gi")].map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
        let node = NodeView { allocatable: amounts.into(), usable: true, ..NodeView::default() };
        index.apply(Kind::Node, "n".into(), Object::Node(node));
        let pod = ready_pod("demo", "chat", "q4", "cpu-small", 2);
        index.apply(Kind::Pod, "demo/p".into(), Object::Pod(pod));
        index
    }

    #[test]
    fn devices_and_startups() {
        let mut memory = Memory::default();
        let times = (1..=20).map(|second| Millis(second * 1_000)).collect();
        memory.models.entry("demo/chat".into()).or_default().startups.insert(placement("q4", "cpu-small", 2), times);
        let (status, _) = status(&class("cpu-small"), &index(), &memory, &Plan::default(), Millis(0));
        assert_eq!(status.devices, Some(Devices { total: 6, allocatable: 3, used: 2, unhealthy: 0 }));
        let startup = status.startup.unwrap();
        assert_eq!((startup.p50.0.as_str(), startup.p95.0.as_str(), startup.samples), ("10s", "19s", 20));
        assert_eq!(get(&status.conditions, ConditionType::Ready).unwrap().reason, "InForce");
    }

    #[test]
    fn a_class_without_devices_and_one_with_unheeded_fields_say_so() {
        let mut gpu = gpu_class("h200");
        gpu.spec.watts = Some(700);
        let (status, notes) = status(&gpu, &index(), &Memory::default(), &Plan::default(), Millis(0));
        assert_eq!(get(&status.conditions, ConditionType::CapacityBlocked).unwrap().reason, "NoDevices");
        let stalled = get(&status.conditions, ConditionType::Stalled).unwrap();
        assert_eq!(stalled.reason, "NotImplemented");
        assert_eq!(
            get(&status.conditions, ConditionType::Ready).unwrap().status,
            "False",
            "no model may be placed on it"
        );
        assert!(stalled.message.ends_with("remove: spec.accelerator.kind, spec.watts"), "{}", stalled.message);
        assert_eq!(notes.len(), 2);
    }
}
