//! A measured figure and its goal.

use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// `bench.figure_unit`.
    pub figure: &'static str,
    unit: &'static str,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One printed line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub figure: &'static str,
    /// What was measured.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// The goal, such as `<= 360`.
    pub goal: String,
    /// Whether the value is within it.
    pub met: bool,
}

impl Goal {
    /// Less is better.
    pub const fn at_most(figure: &'static str, most: f64, unit: &'static str) -> Self {
        Self { figure, unit, bound: Bound::AtMost(most) }
    }

    /// More is better.
    pub const fn at_least(figure: &'static str, least: f64, unit: &'static str) -> Self {
        Self { figure, unit, bound: Bound::AtLeast(least) }
    }

    /// The figure that a measured value makes.
    #[must_use]
    pub fn figure(&self, value: f64) -> Figure {
        let (goal, met) = match self.bound {
            Bound::AtMost(most) => (format!("<= {most}"), value <= most),
            Bound::AtLeast(least) => (format!(">= {least}"), value >= least),
        };
        Figure { figure: self.figure, value, unit: self.unit, goal, met }
    }
}
