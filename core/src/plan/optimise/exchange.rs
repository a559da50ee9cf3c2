//! Betters a plan by exchange: one model takes less, so that others can take more.

use super::relaxed::Priced;
use super::repair;
use super::room::Room;

/// Exchanges, at most.
const EXCHANGES_MAX: u32 = 64;
/// Columns that are tried in an exchange, those with the least regret.
const TRIED_MAX: usize = 160;

/// Models that change, each with its new column.
type Moves = Vec<(usize, usize)>;

/// Exchanges columns while that makes the plan worth more. No plan is worth more than `bound`; `priced` come in the order of
/// their regrets.
pub(super) fn better(plan: &mut Room<'_>, mut priced: Vec<Priced>, bound: f64) {
    for _ in 0..EXCHANGES_MAX {
        // The regrets of a plan and what it leaves unused are all that it is worth less than the bound: a column that is
        // regretted more than this plan is part of no better one.
        let missing = bound - plan.value();
        priced.retain(|each| each.regret < missing);
        let Some(moves) = best_exchange(plan, &priced) else { return };
        moves.into_iter().for_each(|(model, column)| plan.swap(model, column));
        repair::fill(plan, &priced);
    }
}

fn best_exchange(plan: &mut Room<'_>, priced: &[Priced]) -> Option<Moves> {
    let wins = |plan: &Room<'_>, each: &&Priced| plan.gain(each.model, each.column) > 0;
    let ups: Vec<Priced> = priced.iter().filter(|each| wins(plan, each)).take(TRIED_MAX).copied().collect();
    let loses = |plan: &Room<'_>, each: &&Priced| !wins(plan, each) && plan.column(each.model) != each.column;
    let downs: Vec<Priced> = priced.iter().filter(|each| loses(plan, each)).take(TRIED_MAX).copied().collect();
    let mut best: Option<(i128, Moves)> = None;
    for down in downs.iter().filter(|_| !ups.is_empty()) {
        if plan.takes(down.model, down.column) {
            let (won, moves) = exchange(plan, *down, &ups);
            if won > best.as_ref().map_or(0, |(most, _)| *most) {
                best = Some((won, moves));
            }
        }
    }
    best.map(|(_, moves)| moves)
}

/// What is won where a model takes `down` and others what there is room for then, the most gain first.
fn exchange(plan: &mut Room<'_>, down: Priced, ups: &[Priced]) -> (i128, Moves) {
    let before = plan.column(down.model);
    let (mut won, mut moves, mut undo) =
        (plan.gain(down.model, down.column), vec![(down.model, down.column)], vec![(down.model, before)]);
    plan.swap(down.model, down.column);
    loop {
        let still = ups.iter().filter(|up| moves.iter().all(|(model, _)| *model != up.model));
        let fitting = still.filter(|up| plan.takes(up.model, up.column));
        // The first of equals: they come in the order of their regrets.
        let gains = fitting.map(|up| (plan.gain(up.model, up.column), up));
        let Some((gain, up)) = gains.reduce(|most, each| if each.0 > most.0 { each } else { most }) else { break };
        undo.push((up.model, plan.column(up.model)));
        moves.push((up.model, up.column));
        plan.swap(up.model, up.column);
        won += gain;
    }
    undo.into_iter().for_each(|(model, column)| plan.swap(model, column));
    (won, moves)
}
