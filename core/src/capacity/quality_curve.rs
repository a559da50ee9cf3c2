//! What more tokens buy: `A(T) = a + b·ln T`, measured on a task set, with the range in which it holds.
//!
//! `T` is the most tokens that an answer may have, as `max_tokens` says it, `A` the share of right answers. The range begins
//! where it was measured; above it more tokens were not seen to buy anything.

use serde::{Deserialize, Serialize};

/// Grows when a field changes its meaning.
pub const VERSION: u32 = 3;
/// A line through fewer points says nothing about its fit.
const POINTS_MIN: usize = 3;

/// Measurements of one family of variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QualityCurves {
    /// [`VERSION`].
    pub version: u32,
    /// The task set that all were measured on.
    pub tasks: String,
    /// One for each variant and difficulty.
    pub curves: Vec<QualityCurve>,
}

/// One variant on tasks of one difficulty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QualityCurve {
    /// Name of the variant.
    pub variant: String,
    /// Name of the difficulty.
    pub difficulty: String,
    /// Measured points, by tokens.
    pub points: Vec<Point>,
    /// The line through them; none where there are too few before tokens cease to buy something.
    pub fit: Option<Fit>,
    /// `b` of that line, with its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<Share>,
    /// What it has less than the family's best variant at the most tokens, both asked the same items.
    pub loss: Option<Share>,
    /// How often a right answer has a greater mean log probability than a wrong one, at the most tokens: the area under the
    /// ROC curve. None where all are right or none is.
    pub confidence_auc: Option<Share>,
    /// Self-consistency: the most frequent of several answers; empty where that was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Votes>,
}

/// A share, or how much it differs, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The share itself.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Accuracy at one limit of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Most tokens of an answer.
    pub tokens: u32,
    /// Tokens that an answer took in the mean.
    pub spent: f64,
    /// Share of answers that were cut off there.
    pub cut: f64,
    /// Share of right answers.
    pub accuracy: Share,
}

/// Accuracy of the most frequent one of several answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Votes {
    /// Most tokens of each answer.
    pub tokens: u32,
    /// Answers drawn.
    pub samples: u32,
    /// Tokens that all of them took together, in the mean.
    pub spent: f64,
    /// Share of questions whose most frequent answer is right.
    pub accuracy: Share,
}

/// `a + b·ln T` by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// Accuracy at one token.
    pub a: f64,
    /// What the factor e in tokens adds.
    pub b: f64,
    /// Share of the points' variance that the line explains.
    pub r_squared: f64,
    /// Fewest tokens for which it holds.
    pub t_min: u32,
    /// Most tokens for which it holds: more were not seen to buy anything.
    pub t_max: u32,
}

impl Fit {
    /// The accuracy at so many tokens: that of the nearer end where they are out of the range, and always in [0, 1].
    #[must_use]
    pub fn accuracy(&self, tokens: f64) -> f64 {
        let tokens = tokens.clamp(f64::from(self.t_min), f64::from(self.t_max));
        (self.a + self.b * tokens.ln()).clamp(0.0, 1.0)
    }

    /// The fewest tokens at which this accuracy is reached; none where it never is.
    #[must_use]
    pub fn tokens(&self, accuracy: f64) -> Option<f64> {
        if accuracy <= self.accuracy(self.t_min.into()) {
            return Some(self.t_min.into());
        }
        let tokens = ((accuracy - self.a) / self.b).exp();
        (self.b > 0.0 && tokens <= f64::from(self.t_max)).then_some(tokens)
    }

    /// The line through the points up to `t_max` tokens; none where these are too few.
    #[must_use]
    pub fn through(points: &[Point], t_max: u32) -> Option<Self> {
        let mut points: Vec<Point> =
            points.iter().copied().filter(|point| (1..=t_max).contains(&point.tokens)).collect();
        points.sort_by_key(|point| point.tokens);
        let (first, last) = (points.first()?.tokens, points.last()?.tokens);
        let samples: Vec<(f64, f64)> =
            points.iter().map(|point| (f64::from(point.tokens).ln(), point.accuracy.value)).collect();
        let (a, b, r_squared) = line(&samples).filter(|_| samples.len() >= POINTS_MIN)?;
        Some(Self { a, b, r_squared, t_min: first, t_max: last })
    }
}

/// Intercept, slope and R² of the line by least squares; none where all x or all y are the same.
fn line(samples: &[(f64, f64)]) -> Option<(f64, f64, f64)> {
    let count = f64::from(u32::try_from(samples.len()).ok()?);
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(&|(x, _)| *x), mean(&|(_, y)| *y));
    let x_spread = mean(&|(x, _)| (x - x_mean).powi(2));
    let y_spread = mean(&|(_, y)| (y - y_mean).powi(2));
    if x_spread <= 0.0 || y_spread <= 0.0 {
        return None;
    }
    let b = mean(&|(x, y)| (x - x_mean) * (y - y_mean)) / x_spread;
    let a = y_mean - b * x_mean;
    let unexplained = mean(&|(x, y)| (y - a - b * x).powi(2));
    Some((a, b, 1.0 - unexplained / y_spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(tokens: u32, accuracy: f64) -> Point {
        let accuracy = Share { value: accuracy, low: accuracy - 0.02, high: accuracy + 0.02 };
        Point { tokens, spent: f64::from(tokens) / 2.0, cut: 0.25, accuracy }
    }

    fn on_a_line(tokens: &[u32]) -> Vec<Point> {
        tokens.iter().map(|tokens| point(*tokens, 0.1 + 0.15 * f64::from(*tokens).ln())).collect()
    }

    #[test]
    fn a_line_is_found_again_up_to_where_it_ends() {
        let mut points = on_a_line(&[2, 4, 8, 16, 32]);
        let top = points[4].accuracy.value;
        points.extend([point(64, top + 0.01), point(128, top + 0.005)]);
        let fit = Fit::through(&points, 32).unwrap();
        assert!((fit.a - 0.1).abs() < 1e-9 && (fit.b - 0.15).abs() < 1e-9 && fit.r_squared > 1.0 - 1e-9, "{fit:?}");
        assert_eq!((fit.t_min, fit.t_max), (2, 32));
        points.reverse();
        assert_eq!(Fit::through(&points, 40), Some(fit), "in whatever order, and no further than was measured");
        assert!(Fit::through(&points, 128).unwrap().r_squared < fit.r_squared);
    }

    #[test]
    fn accuracy_and_tokens_are_each_others_inverse_within_the_range() {
        let fit = Fit::through(&on_a_line(&[2, 8, 32]), 32).unwrap();
        for tokens in [2.0, 5.0, 31.9] {
            assert!((fit.tokens(fit.accuracy(tokens)).unwrap() - tokens).abs() < 1e-6);
        }
        assert_eq!(fit.accuracy(1.0), fit.accuracy(2.0));
        assert_eq!(fit.accuracy(1e6), fit.accuracy(32.0));
        assert_eq!(fit.tokens(0.0), Some(2.0));
        assert_eq!(fit.tokens(0.99), None);
    }

    #[test]
    fn a_scattered_curve_says_so_and_a_short_or_flat_one_has_no_line() {
        let fit = Fit::through(&[point(2, 0.1), point(4, 0.5), point(8, 0.2), point(16, 0.7)], 16).unwrap();
        assert!(fit.r_squared > 0.0 && fit.r_squared < 0.8, "{fit:?}");
        assert_eq!(Fit::through(&on_a_line(&[2, 4]), 4), None);
        assert_eq!(Fit::through(&[point(2, 0.5), point(4, 0.5), point(8, 0.5)], 8), None);
        assert_eq!(Fit::through(&[], 8), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        // In binary fractions: JSON's decimals may lose the last bit of others.
        let accuracy = Share { value: 0.5, low: 0.25, high: 0.75 };
        let curve = QualityCurve {
            variant: "q8-0".into(),
            difficulty: "medium".into(),
            points: vec![Point { tokens: 8, spent: 12.5, cut: 0.25, accuracy }],
            fit: Some(Fit { a: 0.125, b: 0.25, r_squared: 1.0, t_min: 2, t_max: 8 }),
            slope: Some(accuracy),
            loss: Some(accuracy),
            confidence_auc: Some(accuracy),
            votes: vec![Votes { tokens: 8, samples: 3, spent: 30.5, accuracy }],
        };
        let curves = QualityCurves { version: VERSION, tasks: "steps-1".into(), curves: vec![curve] };
        let text = serde_json::to_string(&curves).unwrap();
        assert!(text.contains("\"rSquared\""), "{text}");
        assert_eq!(serde_json::from_str::<QualityCurves>(&text).unwrap(), curves);
    }
}
