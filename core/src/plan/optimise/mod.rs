//! The optimisation: one column for each model, rows for money and devices, the most value that fits.
//!
//! A column is one way to serve a model, with all that it is worth and all that it takes. The rows are relaxed: each gets a
//! price, and each model then takes what is worth most after prices ([`relaxed`]). The prices that make the least of that are a
//! bound which no plan can pass. What the models took is made to fit ([`repair`]) and then bettered ([`exchange`]); how far that is
//! from the bound is the gap, which is certified. There is no clock and no randomness: effort is counted in rounds.
//!
//! The relaxation is Held and Karp's, its step Polyak's.

mod exchange;
mod relaxed;
mod repair;
mod room;

use crate::units::float;
use relaxed::{Priced, Relaxed, Taken};
use room::Room;

/// Rounds without a better bound after which steps are halved.
const PATIENCE: u32 = 12;
/// Every so many rounds what the models took is made to fit: a better plan makes better steps.
const REPAIR_EVERY: u32 = 25;
/// Columns of each model of which plans are made, on the way and at the end: so many at least, and of all models together.
const TRIED: (usize, usize) = (6, 6_000);
const TRIED_LAST: (usize, usize) = (24, 24_000);
/// Steps shorter than this share of the first change nothing.
const STEP_MIN: f64 = 1e-4;

/// What a column takes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which row, counted from zero.
    pub row: usize,
    /// How much of it.
    pub amount: i64,
}

/// One way to serve a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// What it is worth, in nano-USD an hour; costs are negative.
    pub value: i64,
    /// What it takes.
    pub uses: Vec<Use>,
}

/// What there is to choose from. The same problem has one solution, so models and columns come in an order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// How much there is of each row. Where that is less than nothing, nothing may take of it.
    pub limits: Vec<i64>,
    /// Columns of each model; one of them takes nothing.
    pub models: Vec<Vec<Column>>,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Most rounds of the relaxation.
    pub rounds: u32,
    /// A gap that is good enough.
    pub gap: f64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { rounds: 400, gap: 5e-4 }
    }
}

/// Why a problem can't be solved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// Some column must always fit.
    #[error("model {model} has no column that takes nothing")]
    NoWayOut {
        /// Counted from zero.
        model: usize,
    },
    /// A column gives instead of taking, or takes of what is not there.
    #[error(
        "column {column} of model {model} takes {amount} of row {row}; there are {rows} rows, and nothing gives to one"
    )]
    BadUse {
        /// Counted from zero.
        model: usize,
        /// Counted from zero.
        column: usize,
        /// As it was given.
        row: usize,
        /// As it was given.
        amount: i64,
        /// How many there are.
        rows: usize,
    },
}

/// The columns that were chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Which column of each model.
    pub chosen: Vec<usize>,
    /// What they are worth together.
    pub value: f64,
    /// No choice that fits is worth more.
    pub bound: f64,
    /// What one more of each row would be worth, in nano-USD an hour: the shadow prices.
    pub prices: Vec<f64>,
    /// Rounds that it took.
    pub rounds: u32,
}

impl Solution {
    /// How much of the bound is not reached, at most: a share of it.
    #[must_use]
    pub fn gap(&self) -> f64 {
        gap(self.value, self.bound)
    }
}

fn gap(value: f64, bound: f64) -> f64 {
    if bound.is_infinite() {
        return bound;
    }
    let size = bound.abs().max(value.abs());
    if size > 0.0 { ((bound - value) / size).max(0.0) } else { 0.0 }
}

/// The best columns that fit together, as far as the effort goes.
///
/// # Errors
/// Names the model that has no way out, or the use that is none.
pub fn solve(problem: &Problem, effort: Effort) -> Result<Solution, ProblemError> {
    check(problem)?;
    let relaxed = Relaxed::new(problem);
    let mut search = Search::new(problem, &relaxed);
    let mut rounds = 0;
    while rounds < effort.rounds && search.gap() > effort.gap && search.step_share > STEP_MIN {
        rounds += 1;
        search.round(rounds);
    }
    if search.gap() > effort.gap {
        search.last_plan();
    }
    Ok(search.solution(rounds))
}

fn check(problem: &Problem) -> Result<(), ProblemError> {
    let rows = problem.limits.len();
    for (model, columns) in problem.models.iter().enumerate() {
        for (column, found) in columns.iter().enumerate() {
            if let Some(Use { row, amount }) =
                found.uses.iter().copied().find(|use_| use_.row >= rows || use_.amount < 0)
            {
                return Err(ProblemError::BadUse { model, column, row, amount, rows });
            }
        }
        if !columns.iter().any(|column| column.uses.iter().all(|use_| use_.amount == 0)) {
            return Err(ProblemError::NoWayOut { model });
        }
    }
    Ok(())
}

fn tried(problem: &Problem, (each, all): (usize, usize)) -> usize {
    each.max(all / problem.models.len().max(1))
}

/// The best prices and the best plan so far.
struct Search<'a> {
    problem: &'a Problem,
    relaxed: &'a Relaxed,
    prices: Vec<f64>,
    best_prices: Vec<f64>,
    bound: f64,
    plan: Room<'a>,
    step_share: f64,
    without_gain: u32,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, relaxed: &'a Relaxed) -> Self {
        let mut plan = Room::empty(problem);
        let prices = vec![0.0; problem.limits.len()];
        repair::fill(&mut plan, &relaxed.priced(&prices, tried(problem, TRIED)));
        let (best_prices, bound) = (prices.clone(), f64::INFINITY);
        Self { problem, relaxed, prices, best_prices, bound, plan, step_share: 1.0, without_gain: 0 }
    }

    fn gap(&self) -> f64 {
        gap(self.plan.value(), self.bound)
    }

    fn round(&mut self, round: u32) {
        let taken = self.relaxed.take(&self.prices);
        if taken.bound < self.bound {
            (self.bound, self.without_gain) = (taken.bound, 0);
            self.best_prices.clone_from(&self.prices);
        } else {
            self.without_gain += 1;
        }
        if round % REPAIR_EVERY == 1 {
            self.plan_here(&taken);
        }
        if self.without_gain >= PATIENCE {
            (self.step_share, self.without_gain) = (self.step_share / 2.0, 0);
            self.prices.clone_from(&self.best_prices);
            return;
        }
        self.step(&taken);
    }

    /// Prices rise where too much was taken and fall where some is left.
    fn step(&mut self, taken: &Taken) {
        let slopes: Vec<f64> = taken.shares.iter().map(|share| share - 1.0).collect();
        let moves = |price: f64, slope: f64| price > 0.0 || slope > 0.0;
        let size: f64 =
            self.prices.iter().zip(&slopes).filter(|(price, slope)| moves(**price, **slope)).map(|(_, s)| s * s).sum();
        if size <= 0.0 {
            // What was taken fits, and nothing that has a price is left over: it is the best there is.
            self.plan_here(taken);
            self.step_share = 0.0;
            return;
        }
        let step = self.step_share * (taken.bound - self.plan.value()).max(0.0) / size;
        for (price, slope) in self.prices.iter_mut().zip(slopes) {
            *price = (*price + step * slope).max(0.0);
        }
    }

    /// A plan at the prices of this round.
    fn plan_here(&mut self, taken: &Taken) {
        let priced = self.relaxed.priced(&self.prices, tried(self.problem, TRIED));
        self.try_plan(&taken.chosen, &priced);
    }

    fn try_plan(&mut self, chosen: &[usize], priced: &[Priced]) {
        let mut plan = Room::of(self.problem, chosen);
        repair::fit(&mut plan, priced);
        repair::fill(&mut plan, priced);
        if plan.value() > self.plan.value() {
            self.plan = plan;
        }
    }

    /// A plan at the best prices, bettered by exchange.
    fn last_plan(&mut self) {
        let priced = self.relaxed.priced(&self.best_prices, tried(self.problem, TRIED_LAST));
        let taken = self.relaxed.take(&self.best_prices);
        self.try_plan(&taken.chosen, &priced);
        exchange::better(&mut self.plan, priced, self.bound);
    }

    fn solution(self, rounds: u32) -> Solution {
        let limits = self.problem.limits.iter().map(|limit| float(*limit));
        let prices = self.best_prices.iter().zip(limits);
        Solution {
            value: self.plan.value(),
            bound: self.bound.max(self.plan.value()),
            prices: prices.map(|(price, limit)| if limit > 0.0 { price / limit } else { 0.0 }).collect(),
            chosen: self.plan.into_chosen(),
            rounds,
        }
    }
}

#[cfg(test)]
mod tests;
