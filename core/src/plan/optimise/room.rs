//! A plan and what it leaves of each row, in whole numbers.

use super::{Column, Problem, Use};
use crate::units::float;

/// A column for each model, and what they take together.
#[derive(Clone)]
pub(super) struct Room<'a> {
    problem: &'a Problem,
    chosen: Vec<usize>,
    /// What is left of each row; less than nothing where too much was taken.
    left: Vec<i128>,
    value: i128,
}

impl<'a> Room<'a> {
    pub(super) fn of(problem: &'a Problem, chosen: &[usize]) -> Self {
        let left = problem.limits.iter().map(|limit| i128::from(*limit).max(0)).collect();
        let mut room = Self { problem, chosen: chosen.to_vec(), left, value: 0 };
        for (model, column) in chosen.iter().enumerate() {
            room.add(&problem.models[model][*column], 1);
        }
        room
    }

    /// The plan in which nobody takes anything.
    pub(super) fn empty(problem: &'a Problem) -> Self {
        let chosen: Vec<usize> = (0..problem.models.len()).map(|model| way_out(problem, model)).collect();
        Self::of(problem, &chosen)
    }

    fn add(&mut self, column: &Column, sign: i128) {
        self.value += sign * i128::from(column.value);
        for use_ in &column.uses {
            self.left[use_.row] -= sign * i128::from(use_.amount);
        }
    }

    pub(super) fn value(&self) -> f64 {
        float(self.value)
    }

    pub(super) fn column(&self, model: usize) -> usize {
        self.chosen[model]
    }

    /// What a model would win by another column.
    pub(super) fn gain(&self, model: usize, column: usize) -> i128 {
        let columns = &self.problem.models[model];
        i128::from(columns[column].value) - i128::from(columns[self.chosen[model]].value)
    }

    pub(super) fn fits(&self) -> bool {
        self.left.iter().all(|left| *left >= 0)
    }

    /// What a model would take more of each row that another column uses, or less.
    fn changes(&self, model: usize, column: usize) -> impl Iterator<Item = (usize, i128)> + '_ {
        let columns = &self.problem.models[model];
        let (old, new) = (&columns[self.chosen[model]].uses, &columns[column].uses);
        let more = new.iter().map(|use_| (use_.row, i128::from(use_.amount) - amount(old, use_.row)));
        let freed = old.iter().filter(|use_| !new.iter().any(|other| other.row == use_.row));
        more.chain(freed.map(|use_| (use_.row, -i128::from(use_.amount))))
    }

    /// Whether another column of a model takes no more than is left of any row.
    pub(super) fn takes(&self, model: usize, column: usize) -> bool {
        self.changes(model, column).all(|(row, more)| more <= 0 || more <= self.left[row])
    }

    /// What of the rows that are over another column gives back, as a share of what is over and no more than that.
    pub(super) fn relief(&self, model: usize, column: usize) -> f64 {
        let over = self.changes(model, column).filter(|(row, more)| self.left[*row] < 0 && *more < 0);
        over.map(|(row, more)| float((-more).min(-self.left[row])) / float(-self.left[row])).sum()
    }

    pub(super) fn swap(&mut self, model: usize, column: usize) {
        let columns = &self.problem.models[model];
        self.add(&columns[self.chosen[model]], -1);
        self.add(&columns[column], 1);
        self.chosen[model] = column;
    }

    /// The best column of a model that takes nothing.
    pub(super) fn way_out(&self, model: usize) -> usize {
        way_out(self.problem, model)
    }

    pub(super) fn into_chosen(self) -> Vec<usize> {
        self.chosen
    }
}

fn way_out(problem: &Problem, model: usize) -> usize {
    let takes_nothing = |column: &&Column| column.uses.iter().all(|use_| use_.amount == 0);
    let columns = problem.models[model].iter();
    let ways = columns.enumerate().filter(|(_, column)| takes_nothing(column));
    ways.min_by_key(|(index, column)| (-i128::from(column.value), *index)).map_or(0, |(index, _)| index)
}

fn amount(uses: &[Use], row: usize) -> i128 {
    uses.iter().filter(|use_| use_.row == row).map(|use_| i128::from(use_.amount)).sum()
}
