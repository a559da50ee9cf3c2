//! Which variants' files the pods of a group hold: those that they may be told to serve without being replaced.

use super::Source;
use quartermaster_core::snapshot::Placement;
use quartermaster_crds::v1alpha1::ModelDeployment;
use quartermaster_crds::v1alpha1::model_deployment::{Format, Variant};

/// What is held against a variant on some hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its pods did not start: one of them that holds its file may never do.
    Start,
    /// A pod that serves another could not be told to serve it.
    Swap,
}

/// The variants, in the order of the spec. Pods keep what they hold (`live`), in its order, as long as the variant to serve is
/// among it, all of it is declared and none of it keeps them from starting: they are not replaced for a file that nobody
/// asks for.
#[must_use]
pub fn files(
    model: &ModelDeployment,
    placement: &Placement,
    live: Option<&[String]>,
    fault: impl Fn(&Placement) -> Option<Fault>,
) -> Vec<String> {
    let on = |variant: &Variant| Placement { variant: variant.name.clone(), ..placement.clone() };
    let asked = |variant: &Variant| variant.name == placement.variant;
    let variants = &model.spec.variants;
    let kept = live.filter(|live| live.contains(&placement.variant)).and_then(|live| {
        let held = live.iter().filter_map(|name| variants.iter().find(|variant| variant.name == *name));
        let held: Vec<&Variant> = held.filter(|variant| asked(variant) || can_be_read(variant)).collect();
        let starts = |variant: &&Variant| asked(variant) || fault(&on(variant)) != Some(Fault::Start);
        held.iter().all(starts).then_some(held)
    });
    let all = || {
        let free = |variant: &&Variant| offered(model, variant, placement) && fault(&on(variant)).is_none();
        variants.iter().filter(|variant| asked(variant) || free(variant)).collect()
    };
    kept.unwrap_or_else(all).into_iter().map(|variant| variant.name.clone()).collect()
}

fn can_be_read(variant: &Variant) -> bool {
    variant.format == Format::GGUF && Source::parse(&variant.source).is_ok()
}

/// Whether a variant may ever be served on this hardware.
fn offered(model: &ModelDeployment, variant: &Variant, placement: &Placement) -> bool {
    let score = variant.quality.score.millionths().ok();
    let floor = model.spec.quality_floor.as_ref().and_then(|floor| floor.millionths().ok());
    can_be_read(variant)
        && floor.is_none_or(|floor| score.is_some_and(|score| score >= floor))
        && variant.hardware.iter().any(|hardware| {
            hardware.class == placement.class
                && u32::try_from(hardware.devices_per_replica).unwrap_or(0).max(1) == placement.devices
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::{model, placement};

    /// A model with `q8`, `q4` and `q2` on one class, and one variant elsewhere.
    fn ladder() -> ModelDeployment {
        let mut model = model("demo", "chat");
        let mut q2 = model.spec.variants[1].clone();
        q2.name = "q2".into();
        q2.quality.score = serde_json::from_value("0.5".into()).unwrap();
        model.spec.variants[0].hardware[0].class = "cpu-small".into();
        model.spec.variants.push(q2);
        model
    }

    fn held(live: Option<&[&str]>, faults: &[(&str, Fault)]) -> Vec<String> {
        let live: Option<Vec<String>> = live.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let fault = |on: &Placement| faults.iter().find(|(name, _)| *name == on.variant).map(|(_, fault)| *fault);
        files(&ladder(), &placement("q4", "cpu-small", 1), live.as_deref(), fault)
    }

    #[test]
    fn a_new_group_holds_all_that_may_be_served_there() {
        assert_eq!(held(None, &[]), ["q8", "q4", "q2"], "what is for other hardware is not in it");
        assert_eq!(held(None, &[("q8", Fault::Start), ("q2", Fault::Swap)]), ["q4"]);
        let mut model = ladder();
        model.spec.quality_floor = Some(serde_json::from_value("0.9".into()).unwrap());
        assert_eq!(files(&model, &placement("q4", "cpu-small", 1), None, |_| None), ["q8", "q4"]);
    }

    #[test]
    fn a_live_group_keeps_what_it_holds() {
        assert_eq!(
            held(Some(&["q4", "q8"]), &[]),
            ["q4", "q8"],
            "neither a new variant nor another order replaces a pod"
        );
        assert_eq!(held(Some(&["q4", "gone"]), &[]), ["q4"]);
        assert_eq!(held(Some(&["q8", "q4"]), &[("q8", Fault::Swap)]), ["q8", "q4"]);
    }

    #[test]
    fn what_keeps_pods_from_starting_is_left_out() {
        assert_eq!(held(Some(&["q8", "q4"]), &[("q8", Fault::Start)]), ["q4", "q2"]);
        assert_eq!(held(Some(&["q4", "q2"]), &[("q8", Fault::Start)]), ["q4", "q2"], "and comes back for nobody");
        assert_eq!(held(Some(&["q4"]), &[("q4", Fault::Start)]), ["q4"], "what shall be served is always in it");
    }

    #[test]
    fn a_variant_that_pods_do_not_hold_makes_them_hold_all() {
        assert_eq!(held(Some(&["q8"]), &[]), ["q8", "q4", "q2"]);
    }
}
