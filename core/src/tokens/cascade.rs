//! The smaller model first: when is the stronger one worth asking?

/// Below it a confidence tells right from wrong too badly to save anything.
pub const AUC_MIN: f64 = 0.75;
/// Least outcomes by which that is judged.
pub const JUDGED_MIN: u32 = 500;

/// How well the confidence in the smaller model's answers was seen to tell right from wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// Area under the ROC curve of late.
    pub auc: f64,
    /// Outcomes that it is of.
    pub judged: u32,
}

impl Confidence {
    /// Whether a cascade may rely on it.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.judged >= JUDGED_MIN && self.auc >= AUC_MIN
    }
}

/// Whether the stronger model is asked after an answer that is right with probability `right`: `v·(Q − P) > c`, for what a right
/// answer is worth, how often the stronger model is right, and what asking it costs.
#[must_use]
pub fn escalate(right: f64, strong_right: f64, value: f64, strong_cost: f64) -> bool {
    value * (strong_right - right) > strong_cost
}

/// What a request costs in the mean where this share is escalated: the smaller model is always paid.
#[must_use]
pub fn expected_cost(weak_cost: f64, strong_cost: f64, escalated: f64) -> f64 {
    weak_cost + escalated.clamp(0.0, 1.0) * strong_cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_one_is_asked_where_it_wins_more_than_it_costs() {
        assert!(escalate(0.3, 0.9, 100.0, 50.0));
        assert!(!escalate(0.5, 0.9, 100.0, 50.0));
        assert!(!escalate(0.95, 0.9, 100.0, 0.0), "no worse answer for nothing");
        assert!(!escalate(f64::NAN, 0.9, 100.0, 0.0));
    }

    #[test]
    fn what_tells_nothing_apart_is_not_relied_on() {
        let fit = |auc, judged| Confidence { auc, judged }.is_fit();
        assert!(fit(0.8, 2000) && !fit(0.7, 2000) && !fit(0.99, 20) && !fit(f64::NAN, 2000));
    }

    #[test]
    fn a_cascade_costs_the_small_one_and_a_share_of_the_large_one() {
        assert_eq!(expected_cost(1.0, 25.0, 0.2), 6.0);
        assert_eq!(expected_cost(1.0, 25.0, 7.0), 26.0);
    }
}
