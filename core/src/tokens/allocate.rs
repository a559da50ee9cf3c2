//! Tokens of one request, and of a fleet's classes within a budget.

use crate::capacity::quality_curve::Fit;

/// Halvings of the interval in which the budget's price lies.
const BISECTIONS: u32 = 60;
/// Doublings until a price is found that is too high.
const DOUBLINGS_MAX: u32 = 200;

/// The tokens after which one more costs more than it wins: `T* = b·v/c`, within the range that was measured. `value` is
/// that of a right answer, `price` that of a token.
#[must_use]
pub fn worth(fit: &Fit, value: f64, price: f64) -> f64 {
    let (least, most) = (f64::from(fit.t_min), f64::from(fit.t_max));
    let gain = fit.b * value;
    match () {
        () if gain.is_nan() || gain <= 0.0 => least,
        () if price.is_nan() || price <= 0.0 => most,
        () => (gain / price).clamp(least, most),
    }
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// What more tokens buy them.
    pub fit: Fit,
    /// What a right answer is worth.
    pub value: f64,
    /// What a token costs.
    pub price: f64,
    /// How many there are in the budget's window.
    pub requests: f64,
}

/// Tokens for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// In the order of the classes.
    pub tokens: Vec<f64>,
    /// By what share the budget makes every token dearer: its shadow price.
    pub surcharge: f64,
    /// False where even the fewest tokens of all cost more than the budget.
    pub affordable: bool,
}

/// The tokens of each class that win the most within a budget: `T = b·v/(c·(1+μ))`, with the least surcharge `μ` at which all
/// of it fits.
#[must_use]
pub fn allocate(classes: &[Class], budget: f64) -> Allocation {
    let at = |surcharge: f64| -> Vec<f64> {
        classes.iter().map(|class| worth(&class.fit, class.value, class.price * (1.0 + surcharge))).collect()
    };
    let spends = |tokens: &[f64]| -> f64 {
        classes.iter().zip(tokens).map(|(class, tokens)| class.requests * class.price * tokens).sum()
    };
    let free = at(0.0);
    if spends(&free) <= budget {
        return Allocation { tokens: free, surcharge: 0.0, affordable: true };
    }
    let least: Vec<f64> = classes.iter().map(|class| f64::from(class.fit.t_min)).collect();
    if spends(&least).is_nan() || spends(&least) > budget {
        return Allocation { tokens: least, surcharge: f64::INFINITY, affordable: false };
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..DOUBLINGS_MAX {
        if spends(&at(high)) <= budget {
            break;
        }
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        *(if spends(&at(middle)) <= budget { &mut high } else { &mut low }) = middle;
    }
    Allocation { tokens: at(high), surcharge: high, affordable: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fit(b: f64) -> Fit {
        Fit { a: 0.1, b, r_squared: 1.0, t_min: 16, t_max: 4096 }
    }

    #[test]
    fn a_token_more_costs_what_it_wins() {
        let fit = fit(0.07);
        let tokens = worth(&fit, 10_000.0, 2.0);
        assert!((tokens - 350.0).abs() < 1e-9);
        let net = |tokens: f64| 10_000.0 * fit.accuracy(tokens) - 2.0 * tokens;
        assert!(net(tokens) > net(tokens * 1.05) && net(tokens) > net(tokens / 1.05));
        assert_eq!((worth(&fit, 1.0, 2.0), worth(&fit, 1e9, 2.0)), (16.0, 4096.0), "no further than was measured");
        assert_eq!((worth(&fit, 10.0, 0.0), worth(&self::fit(-0.1), 10.0, 0.0)), (4096.0, 16.0));
        assert_eq!((worth(&fit, f64::NAN, 1.0), worth(&fit, 1.0, f64::NAN)), (16.0, 4096.0));
    }

    #[test]
    fn a_budget_goes_where_it_wins_most() {
        let class = |b: f64, value: f64| Class { fit: fit(b), value, price: 1.0, requests: 100.0 };
        let classes = [class(0.08, 40_000.0), class(0.08, 10_000.0)];
        let Allocation { tokens, surcharge, affordable } = allocate(&classes, 100_000.0);
        // Without ends each class's share is that of its n·b·v: four fifths and one.
        assert!(affordable && (tokens[0] - 800.0).abs() < 1e-6 && (tokens[1] - 200.0).abs() < 1e-6, "{tokens:?}");
        assert!((surcharge - 3.0).abs() < 1e-6, "{surcharge}");
        let rich = allocate(&classes, 1e9);
        assert_eq!((rich.surcharge, rich.tokens), (0.0, vec![3200.0, 800.0]));
        let poor = allocate(&classes, 3_199.0);
        assert_eq!((poor.affordable, poor.tokens), (false, vec![16.0, 16.0]));
        assert!(allocate(&[], 0.0).affordable);
    }

    proptest! {
        #[test]
        fn no_budget_is_passed_and_none_is_left_that_would_win(
            each in proptest::collection::vec((0.001..0.3_f64, 1.0..1e6_f64, 0.1..50.0_f64, 0.0..1e4_f64), 1..12),
            share in 0.0..1.5_f64,
        ) {
            let class = |(b, value, price, requests)| Class { fit: fit(b), value, price, requests };
            let classes: Vec<Class> = each.into_iter().map(class).collect();
            let spends = |tokens: &[f64]| -> f64 {
                classes.iter().zip(tokens).map(|(class, tokens)| class.requests * class.price * tokens).sum()
            };
            let budget = share * spends(&allocate(&classes, f64::INFINITY).tokens);
            let found = allocate(&classes, budget);
            if found.affordable {
                prop_assert!(spends(&found.tokens) <= budget * (1.0 + 1e-9));
                prop_assert!(found.surcharge == 0.0 || spends(&found.tokens) >= budget * (1.0 - 1e-6));
            } else {
                prop_assert!(found.tokens.iter().all(|tokens| *tokens == 16.0));
            }
        }
    }
}
