//! Replicas that are there: those of a Deployment of ours, and those that belong to none any more.

use super::{Inputs, startup};
use crate::names;
use crate::state::{GroupView, PodView};
use quartermaster_core::snapshot::{Group, Model, Orphan, Placement};
use std::collections::BTreeMap;

pub(super) fn group(inputs: &Inputs<'_>, key: &str, view: &GroupView) -> Group {
    let count = |matches: &dyn Fn(&PodView) -> bool| {
        let pods = inputs.index.pods_of(&view.namespace, &view.model);
        let matching = pods.filter(|pod| pod.placement.same_hardware(&view.placement) && matches(pod));
        u32::try_from(matching.count()).unwrap_or(u32::MAX)
    };
    let ready = count(&|pod| pod.ready() && pod.placement == view.placement);
    Group {
        placement: view.placement.clone(),
        wanted: view.wanted,
        ready,
        serving: count(&PodView::ready),
        pending: view.wanted.saturating_sub(ready),
        draining: count(&|pod| pod.draining(inputs.now)),
        surplus: count(&PodView::live).saturating_sub(view.wanted),
        replacing: count(&|pod| pod.live() && pod.config_hash != view.config_hash),
        outdated: outdated(inputs, key, view),
        holds: view.files.iter().filter(|variant| serves_in_place(inputs, key, view, variant)).cloned().collect(),
        startup: startup(inputs.index, inputs.memory, key, &view.placement),
    }
}

/// Whether its pods stay as they are when they are to serve this variant.
fn serves_in_place(inputs: &Inputs<'_>, key: &str, view: &GroupView, variant: &str) -> bool {
    let placement = Placement { variant: variant.to_owned(), ..view.placement.clone() };
    inputs.described().hash(key, &placement).is_some_and(|hash| hash == view.config_hash)
}

/// Whether its pods would be described otherwise now. What can't be described any more stays as it is.
fn outdated(inputs: &Inputs<'_>, key: &str, view: &GroupView) -> bool {
    inputs.described().hash(key, &view.placement).is_some_and(|hash| hash != view.config_hash)
}

/// Pods of models that are gone or going, and of Deployments that are gone.
pub(super) fn orphans(inputs: &Inputs<'_>, models: &BTreeMap<String, Model>) -> Vec<Orphan> {
    let mut orphans: BTreeMap<(&str, &Placement), u32> = BTreeMap::new();
    for pod in inputs.index.replicas().filter(|pod| pod.live() || pod.draining(inputs.now)) {
        let model = models.get(&names::key(&pod.namespace, &pod.model));
        let of_group = |model: &Model| model.groups.iter().any(|group| group.placement.same_hardware(&pod.placement));
        if !model.is_some_and(of_group) {
            *orphans.entry((&pod.namespace, &pod.placement)).or_default() += 1;
        }
    }
    let each = orphans.into_iter().map(|((namespace, placement), replicas)| Orphan {
        namespace: namespace.to_owned(),
        placement: placement.clone(),
        replicas,
    });
    each.collect()
}
