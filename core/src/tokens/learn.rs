//! What more tokens buy, learnt from traffic.
//!
//! Harder questions take more tokens and fail more, so answers' natural lengths say the opposite of the truth. Caps are
//! therefore drawn at random for a small share of the requests, and outcomes are set against the cap that was drawn, kept to
//! or not: the intention to treat.

/// A cap that is tried is the usual one times something between these, evenly in its logarithm.
const TRIED: (f64, f64) = (0.35, 2.8);
/// A gain that is not so many standard errors above nothing is none.
const SURE: f64 = 1.645;
/// Least outcomes in a bin that says something.
const BIN_MIN: f64 = 30.0;

/// The cap to try in a request, `random` of which is even in [0, 1); none where it is not of the share that tries.
#[must_use]
pub fn tried_cap(usual: f64, share: f64, random: f64) -> Option<f64> {
    let within = random / share;
    (0.0..1.0).contains(&within).then(|| usual * TRIED.0 * (TRIED.1 / TRIED.0).powf(within))
}

/// A line `y = a + b·ln T` and how sure its slope is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// At one token.
    pub a: f64,
    /// Won by the factor e in tokens.
    pub b: f64,
    /// Standard deviation of `b`.
    pub b_deviation: f64,
}

/// Outcomes so far, as sums: recursive least squares of two figures, with a prior that counts as outcomes do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learner {
    prior: (f64, f64),
    strength: f64,
    forget: f64,
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Learner {
    /// Begins with what is believed already, `a` and `b`, as if `strength` outcomes had said so. `forget` is what each new outcome
    /// leaves of the older ones' weight.
    #[must_use]
    pub fn new(a: f64, b: f64, strength: f64, forget: f64) -> Self {
        let (weight, x, y, xx, xy, yy) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        Self { prior: (a, b), strength: strength.max(1e-9), forget, weight, x, y, xx, xy, yy }
    }

    /// Takes an outcome between 0 and 1 under a cap that was drawn.
    pub fn observe(&mut self, cap: f64, outcome: f64) {
        if !cap.is_finite() || cap < 1.0 || !outcome.is_finite() {
            return;
        }
        // Against the prior's line: what is learnt is by how much it is off.
        let (log, off) = (cap.ln(), outcome - self.prior.0 - self.prior.1 * cap.ln());
        let keep = self.forget;
        self.weight = keep * self.weight + 1.0;
        self.x = keep * self.x + log;
        self.y = keep * self.y + off;
        self.xx = keep * self.xx + log * log;
        self.xy = keep * self.xy + log * off;
        self.yy = keep * self.yy + off * off;
    }

    /// What is believed now.
    #[must_use]
    pub fn slope(&self) -> Slope {
        // Ridge: the prior's strength keeps the line where outcomes say nothing.
        let (n, xx) = (self.weight + self.strength, self.xx + self.strength);
        let determinant = n * xx - self.x * self.x;
        let a = (xx * self.y - self.x * self.xy) / determinant;
        let b = (n * self.xy - self.x * self.y) / determinant;
        let unexplained = (self.yy - a * self.y - b * self.xy).max(0.0) + 0.25 * self.strength;
        let variance = unexplained / n;
        Slope { a: self.prior.0 + a, b: self.prior.1 + b, b_deviation: (variance * n / determinant).sqrt() }
    }
}

/// Outcomes under caps of about the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Tokens.
    pub tokens: f64,
    /// Outcomes.
    pub count: f64,
    /// Share that was right.
    pub right: f64,
}

/// The tokens above which nothing was seen to be won: from the top down, bins that are no better than the one below them are cut
/// off. `bins` rise in their tokens; none where there are no two that say something.
#[must_use]
pub fn saturation(bins: &[Bin]) -> Option<f64> {
    let mut telling: Vec<&Bin> = bins.iter().filter(|bin| bin.count >= BIN_MIN).collect();
    let mut cut = None;
    while let [.., below, top] = telling.as_slice() {
        let error = |bin: &Bin| bin.right * (1.0 - bin.right) / bin.count;
        let sure = SURE * (error(below) + error(top)).sqrt();
        if top.right - below.right > sure {
            return Some(top.tokens);
        }
        cut = Some(below.tokens);
        telling.pop();
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even noise in [0, 1).
    fn noise(at: u32) -> f64 {
        let once = (at ^ (at >> 16)).wrapping_add(0x9E37_79B9).wrapping_mul(0x85EB_CA6B);
        let twice = (once ^ (once >> 13)).wrapping_mul(0xC2B2_AE35);
        f64::from(twice ^ (twice >> 16)) / (f64::from(u32::MAX) + 1.0)
    }

    #[test]
    fn a_small_share_tries_caps_around_the_usual_one() {
        let tried: Vec<f64> = (0..100_000).filter_map(|at| tried_cap(100.0, 0.02, noise(at))).collect();
        assert!((1_800..2_200).contains(&tried.len()), "{}", tried.len());
        assert!(tried.iter().all(|cap| (35.0..=280.0).contains(cap)));
        let below = tried.iter().filter(|cap| **cap < 99.0).count();
        assert!((below * 2).abs_diff(tried.len()) < tried.len() / 10, "as many below the middle as above");
        assert_eq!((tried_cap(100.0, 0.0, 0.0), tried_cap(100.0, 0.02, 0.5)), (None, None));
    }

    #[test]
    fn drawn_caps_say_the_truth_where_natural_lengths_lie() {
        // A question's hardness makes answers longer and wrong; the true slope is 0.08.
        let right = |cap: f64, hard: f64, luck: f64| f64::from(u8::from(0.2 + 0.08 * cap.ln() - 0.5 * hard > luck));
        let (mut drawn, mut natural) = (Learner::new(0.3, 0.02, 10.0, 1.0), Learner::new(0.3, 0.02, 10.0, 1.0));
        for at in 0..40_000 {
            let (hard, luck) = (noise(3 * at + 1), noise(3 * at + 2));
            let cap = tried_cap(200.0, 1.0, noise(3 * at)).unwrap();
            drawn.observe(cap, right(cap, hard, luck));
            let length = 100.0 * (2.0 * hard).exp();
            natural.observe(length, right(length, hard, luck));
        }
        let slope = drawn.slope();
        assert!((slope.b - 0.08).abs() < 3.0 * slope.b_deviation && slope.b_deviation < 0.01, "{slope:?}");
        assert!(natural.slope().b < 0.0, "{:?}", natural.slope());
    }

    #[test]
    fn few_outcomes_leave_what_was_believed() {
        let mut learner = Learner::new(0.3, 0.05, 100.0, 1.0);
        let before = learner.slope();
        assert!((before.a - 0.3).abs() < 1e-12 && (before.b - 0.05).abs() < 1e-12);
        learner.observe(100.0, 1.0);
        for bad in [(f64::NAN, 1.0), (0.0, 1.0), (100.0, f64::INFINITY)] {
            learner.observe(bad.0, bad.1);
        }
        let after = learner.slope();
        assert!((after.b - 0.05).abs() < 0.05 && after.b_deviation.is_finite(), "{after:?}");
    }

    #[test]
    fn above_where_nothing_is_won_no_tokens_are_given() {
        let bin = |tokens: f64, right: f64| Bin { tokens, count: 1000.0, right };
        assert_eq!(saturation(&[bin(64.0, 0.4), bin(128.0, 0.5), bin(256.0, 0.6)]), Some(256.0));
        assert_eq!(saturation(&[bin(64.0, 0.4), bin(128.0, 0.6), bin(256.0, 0.6), bin(512.0, 0.61)]), Some(128.0));
        assert_eq!(saturation(&[bin(64.0, 0.5), bin(128.0, 0.5)]), Some(64.0));
        assert_eq!(saturation(&[bin(64.0, 0.5), Bin { count: 3.0, ..bin(128.0, 0.9) }]), None, "three say nothing");
        assert_eq!(saturation(&[]), None);
    }
}
