//! Several answers to one question, the most frequent of which is given: when is one more not worth its price?

/// Samples beyond which nobody asks.
const SAMPLES_MAX: u32 = 512;

/// How sure it is that the most frequent answer is so among all that could be drawn: `P(p > ½)` where `first` and `second` of
/// the two most frequent ones were drawn, `p ~ Beta(first + 1, second + 1)`; the chance of at most `first` heads in
/// `first + second + 1` throws of a fair coin.
#[must_use]
pub fn majority(first: u32, second: u32) -> f64 {
    let (first, second) = (first.min(SAMPLES_MAX), second.min(SAMPLES_MAX));
    let throws = f64::from(first + second + 1);
    // In logarithms: half to the power of many throws is no float.
    let mut log_term = -throws * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for heads in 1..=first {
        let heads = f64::from(heads);
        log_term += (throws - heads + 1.0).ln() - heads.ln();
        sum += log_term.exp();
    }
    sum.min(1.0)
}

/// Whether to stop: what the answer may still win by being another one is less than the samples cost that it takes at least
/// to make it so, `v·(1 − P) < c·(first − second + 1)`.
#[must_use]
pub fn enough(first: u32, second: u32, value: f64, sample_cost: f64) -> bool {
    let missing = f64::from(first.saturating_sub(second)) + 1.0;
    value * (1.0 - majority(first, second)) < sample_cost * missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_majority_is_as_sure_as_the_coin_says() {
        assert!((majority(0, 0) - 0.5).abs() < 1e-12);
        assert!((majority(1, 0) - 0.75).abs() < 1e-12);
        assert!((majority(3, 1) - 26.0 / 32.0).abs() < 1e-12);
        // Adaptive consistency stops at 0.95: four alike are enough, three are not.
        assert!(majority(3, 0) < 0.95 && majority(4, 0) > 0.95);
        assert!(majority(400, 100) > 0.999_999 && majority(512, 512).is_finite());
    }

    #[test]
    fn what_is_dear_is_asked_less_often() {
        let needed = |value: f64| (1..100).find(|count| enough(*count, 0, value, 1.0)).unwrap();
        assert!(needed(2.0) < needed(100.0) && needed(100.0) < needed(1e6), "{} {}", needed(100.0), needed(1e6));
        assert!(!enough(2, 2, 100.0, 1.0) && enough(20, 2, 100.0, 1.0));
        assert!(enough(1, 0, 0.0, 1.0), "what is worth nothing");
    }

    proptest! {
        #[test]
        fn more_of_the_first_is_surer_and_more_of_the_second_less(first in 0..200_u32, second in 0..200_u32) {
            let sure = majority(first, second);
            prop_assert!((0.0..=1.0).contains(&sure));
            prop_assert!(majority(first + 1, second) >= sure - 1e-12 && majority(first, second + 1) <= sure + 1e-12);
            prop_assert!((sure + majority(second, first) - 1.0).abs() < 1e-9, "one of the two is the majority");
        }
    }
}
