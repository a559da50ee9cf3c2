//! `cargo xtask bench NAME`: measures, and prints one JSON line a figure. A figure that is not measured is an error,
//! never a made-up number.

mod figure;
mod skeleton;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

pub use figure::{Figure, Goal};

/// A named set of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// The walking skeleton: the demo's time, the gateway's and the operator's appetite, the engine's speed.
    Skeleton,
}

/// What `cargo xtask bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Which one.
    #[arg(value_enum)]
    pub name: Bench,
}

/// Measures and prints. Missing a goal is a result, not an error; failing to measure is one.
pub fn run(options: &Options) -> Result<()> {
    let (goals, measured) = match options.name {
        Bench::Skeleton => (skeleton::GOALS.as_slice(), skeleton::measure()?),
    };
    for figure in judge(goals, &measured)? {
        println!("{}", serde_json::to_string(&figure)?);
    }
    Ok(())
}

/// Every figure that has a goal, with its measured value, in the order of the goals.
fn judge(goals: &[Goal], measured: &[(String, f64)]) -> Result<Vec<Figure>> {
    if let Some((name, _)) = measured.iter().find(|(name, _)| !goals.iter().any(|goal| goal.figure == name)) {
        bail!("{name} was measured, but has no goal");
    }
    let value = |goal: &Goal| measured.iter().find(|(name, _)| name == goal.figure).map(|(_, value)| *value);
    goals
        .iter()
        .map(|goal| match value(goal) {
            Some(value) if value.is_finite() => Ok(goal.figure(value)),
            Some(value) => bail!("{} was measured as {value}", goal.figure),
            None => bail!("{} was not measured", goal.figure),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: [Goal; 2] = [Goal::at_most("a.time_s", 10.0, "s"), Goal::at_least("a.speed", 5.0, "tok/s")];

    #[test]
    fn figures_are_judged_in_the_direction_of_their_goal() {
        let measured = [("a.speed".to_owned(), 4.0), ("a.time_s".to_owned(), 10.0)];
        let figures = judge(&GOALS, &measured).unwrap();
        assert_eq!(figures.iter().map(|figure| figure.met).collect::<Vec<_>>(), [true, false]);
        assert_eq!(
            serde_json::to_string(&figures[1]).unwrap(),
            r#"{"figure":"a.speed","value":4.0,"unit":"tok/s","goal":">= 5","met":false}"#
        );
    }

    #[test]
    fn what_is_missing_unknown_or_no_number_is_an_error() {
        let error = |measured: &[(&str, f64)]| {
            let owned: Vec<_> = measured.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            judge(&GOALS, &owned).unwrap_err().to_string()
        };
        assert!(error(&[("a.time_s", 1.0)]).contains("a.speed was not measured"));
        assert!(error(&[("a.other", 1.0)]).contains("a.other"));
        assert!(error(&[("a.time_s", f64::NAN), ("a.speed", 1.0)]).contains("NaN"));
    }
}
