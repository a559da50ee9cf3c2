//! Makes a plan fit, and fills what is left.

use super::relaxed::Priced;
use super::room::Room;
use std::collections::BTreeSet;

/// Sweeps over all columns until a plan fits, before models are taken out whole.
const FIT_SWEEPS_MAX: u32 = 16;
/// Sweeps over all columns that fill a plan.
const FILL_SWEEPS_MAX: u32 = 8;

/// Gives back what is over, from whom it costs least for what it brings. `priced` come in the order of their regrets.
pub(super) fn fit(plan: &mut Room<'_>, priced: &[Priced]) {
    for _ in 0..FIT_SWEEPS_MAX {
        if plan.fits() || !sweep(plan, priced) {
            break;
        }
    }
    take_out(plan, priced);
}

/// One pass over what brings relief; `false` where nothing does.
fn sweep(plan: &mut Room<'_>, priced: &[Priced]) -> bool {
    let reliefs = priced.iter().filter_map(|each| {
        let relief = plan.relief(each.model, each.column);
        (relief > 0.0 && plan.takes(each.model, each.column)).then(|| (each.regret / relief, each))
    });
    let mut reliefs: Vec<(f64, &Priced)> = reliefs.collect();
    reliefs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut moved, mut changed) = (BTreeSet::new(), false);
    for (_, each) in reliefs {
        if plan.fits() {
            break;
        }
        let brings = !moved.contains(&each.model) && plan.relief(each.model, each.column) > 0.0;
        if brings && plan.takes(each.model, each.column) {
            plan.swap(each.model, each.column);
            moved.insert(each.model);
            changed = true;
        }
    }
    changed
}

/// Models that use what is still over take nothing, those with the least regret first.
fn take_out(plan: &mut Room<'_>, priced: &[Priced]) {
    let outs = priced.iter().filter(|each| each.column == plan.way_out(each.model));
    let outs: Vec<&Priced> = outs.collect();
    for each in outs {
        if plan.fits() {
            return;
        }
        if plan.relief(each.model, each.column) > 0.0 {
            plan.swap(each.model, each.column);
        }
    }
}

/// Takes what is left, the columns with the least regret first.
pub(super) fn fill(plan: &mut Room<'_>, priced: &[Priced]) {
    for _ in 0..FILL_SWEEPS_MAX {
        let mut changed = false;
        for each in priced {
            if plan.gain(each.model, each.column) > 0 && plan.takes(each.model, each.column) {
                plan.swap(each.model, each.column);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
