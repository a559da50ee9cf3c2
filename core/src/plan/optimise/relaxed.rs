//! Without its rows, at prices: every model takes what is worth most to it.

use super::{Column, Problem};
use crate::units::float;
use std::ops::Range;

/// The columns that can be part of the best plan, laid out for many passes. Amounts are shares of their row.
pub(super) struct Relaxed {
    models: Vec<Range<usize>>,
    columns: Vec<Flat>,
    /// Those of each model that can be worth most at some prices.
    tops: Vec<Vec<usize>>,
    uses: Vec<(usize, f64)>,
    rows: usize,
}

struct Flat {
    /// Where it stands among the model's columns.
    index: usize,
    value: f64,
    uses: Range<usize>,
}

/// What the models take at some prices.
pub(super) struct Taken {
    pub(super) chosen: Vec<usize>,
    /// Of each row, as a share of it.
    pub(super) shares: Vec<f64>,
    /// What all that and what is left of the rows is worth: at least what the best plan is.
    pub(super) bound: f64,
}

/// A column of a model, and how little it is worth to it after prices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priced {
    pub(super) model: usize,
    pub(super) column: usize,
    /// Less than the model's best one by so much.
    pub(super) regret: f64,
}

impl Relaxed {
    pub(super) fn new(problem: &Problem) -> Self {
        let rows = problem.limits.len();
        let mut relaxed = Self { models: Vec::new(), columns: Vec::new(), tops: Vec::new(), uses: Vec::new(), rows };
        for columns in &problem.models {
            let begin = relaxed.columns.len();
            let mut tops = Vec::new();
            for (index, top) in undominated(columns, &problem.limits) {
                if top {
                    tops.push(relaxed.columns.len());
                }
                let column = &columns[index];
                let first = relaxed.uses.len();
                let taken = column.uses.iter().filter(|use_| use_.amount > 0);
                relaxed.uses.extend(taken.map(|use_| (use_.row, float(use_.amount) / float(problem.limits[use_.row]))));
                let uses = first..relaxed.uses.len();
                relaxed.columns.push(Flat { index, value: float(column.value), uses });
            }
            relaxed.models.push(begin..relaxed.columns.len());
            relaxed.tops.push(tops);
        }
        relaxed
    }

    fn worth(&self, column: &Flat, prices: &[f64]) -> f64 {
        self.uses[column.uses.clone()].iter().fold(column.value, |worth, (row, share)| worth - prices[*row] * share)
    }

    pub(super) fn take(&self, prices: &[f64]) -> Taken {
        let mut taken =
            Taken { chosen: Vec::with_capacity(self.models.len()), shares: vec![0.0; self.rows], bound: 0.0 };
        for tops in &self.tops {
            let mut best: Option<(&Flat, f64)> = None;
            for column in tops.iter().map(|top| &self.columns[*top]) {
                let worth = self.worth(column, prices);
                if best.is_none_or(|(_, most)| worth > most) {
                    best = Some((column, worth));
                }
            }
            let Some((column, worth)) = best else { continue };
            taken.chosen.push(column.index);
            taken.bound += worth;
            for (row, share) in &self.uses[column.uses.clone()] {
                taken.shares[*row] += share;
            }
        }
        taken.bound += prices.iter().sum::<f64>();
        taken
    }

    /// The columns of each model that are worth most at these prices, `most` of them, and the one that takes nothing; all in
    /// the order of their regrets.
    pub(super) fn priced(&self, prices: &[f64], most: usize) -> Vec<Priced> {
        let mut all = Vec::new();
        let mut worths: Vec<(f64, &Flat)> = Vec::new();
        for (model, range) in self.models.iter().enumerate() {
            worths.clear();
            worths.extend(self.columns[range.clone()].iter().map(|each| (self.worth(each, prices), each)));
            let best = worths.iter().map(|(worth, _)| *worth).fold(f64::NEG_INFINITY, f64::max);
            if worths.len() > most {
                // Of equals the first one, so that the same columns are kept each time.
                worths.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0).then(a.1.index.cmp(&b.1.index)));
            }
            let kept = worths.iter().enumerate().filter(|(at, (_, each))| *at < most || each.uses.is_empty());
            all.extend(kept.map(|(_, (worth, each))| Priced { model, column: each.index, regret: best - worth }));
        }
        all.sort_unstable_by(|a, b| a.regret.total_cmp(&b.regret).then((a.model, a.column).cmp(&(b.model, b.column))));
        all
    }
}

/// Columns that fit at all, and than which none is as good for as little of the same rows; each with whether it can be worth
/// most at some prices.
fn undominated(columns: &[Column], limits: &[i64]) -> Vec<(usize, bool)> {
    let fits = |column: &Column| column.uses.iter().all(|use_| use_.amount == 0 || use_.amount <= limits[use_.row]);
    let rows = |index: usize| columns[index].uses.iter().map(|use_| use_.row);
    let amounts = |index: usize| columns[index].uses.iter().map(|use_| use_.amount);
    let mut order: Vec<usize> = (0..columns.len()).filter(|index| fits(&columns[*index])).collect();
    order.sort_by(|a, b| {
        let by_use = rows(*a).cmp(rows(*b)).then_with(|| amounts(*a).cmp(amounts(*b)));
        by_use.then_with(|| columns[*b].value.cmp(&columns[*a].value)).then(a.cmp(b))
    });
    let mut kept: Vec<(usize, bool)> = Vec::new();
    for group in order.chunk_by(|a, b| rows(*a).eq(rows(*b))) {
        let mut best: Vec<usize> = Vec::new();
        for index in group {
            // The last one that was kept is the one worth most, as a rule.
            let dominates = |other: &usize| {
                columns[*other].value >= columns[*index].value
                    && amounts(*other).zip(amounts(*index)).all(|(a, b)| a <= b)
            };
            if !best.iter().rev().any(dominates) {
                best.push(*index);
            }
        }
        let tops = tops(columns, &best);
        kept.extend(best.iter().map(|index| (*index, tops.contains(index))));
    }
    kept.sort_unstable();
    kept
}

/// Of columns that take of the same rows, more and more: those that are not below the line between two others. Where they
/// take of the rows in other proportions, that could be any.
fn tops(columns: &[Column], rising: &[usize]) -> Vec<usize> {
    let amount = |index: usize, place: usize| columns[index].uses.get(place).map_or(0, |use_| i128::from(use_.amount));
    let alike = |index: &usize| {
        let first = rising[0];
        (1..columns[first].uses.len())
            .all(|place| amount(*index, place) * amount(first, 0) == amount(first, place) * amount(*index, 0))
    };
    if !rising.iter().all(alike) {
        return rising.to_vec();
    }
    let mut hull: Vec<usize> = Vec::new();
    for index in rising {
        while let [.., before, last] = hull[..] {
            let over = |from: usize, to: usize| {
                (amount(to, 0) - amount(from, 0), i128::from(columns[to].value) - i128::from(columns[from].value))
            };
            let ((run, rise), (whole_run, whole_rise)) = (over(before, last), over(before, *index));
            if rise * whole_run > whole_rise * run {
                break;
            }
            hull.pop();
        }
        hull.push(*index);
    }
    hull
}
