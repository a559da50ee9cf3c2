//! From logits to a token: greedy, or temperature and nucleus with a seeded generator.

/// How a request wants its tokens drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Smallest probability mass to draw from.
    pub top_p: f64,
    /// Start of the generator.
    pub seed: u64,
}

/// A token's number in the vocabulary.
pub type Token = i32;

/// Odds below e^-30 of the best are never drawn.
const NEGLIGIBLE: f64 = -30.0;

/// Draws one request's tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    weights: Vec<(f64, Token)>,
}

impl Sampler {
    /// A sampler at the start of its seed.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, state: sampling.seed, weights: Vec::new() }
    }

    /// The next token; `None` where no logit is a number.
    pub fn draw(&mut self, logits: &[f32]) -> Option<Token> {
        let (best, most) = greedy(logits)?;
        if self.sampling.temperature <= 0.0 {
            return Some(best);
        }
        self.weights.clear();
        let mut total = 0.0;
        for (token, logit) in (0..).zip(logits) {
            let power = (f64::from(*logit) - f64::from(most)) / self.sampling.temperature;
            if power >= NEGLIGIBLE {
                total += power.exp();
                self.weights.push((power.exp(), token));
            }
        }
        if self.sampling.top_p < 1.0 {
            total = self.keep_nucleus(total);
        }
        let mut left = self.uniform() * total;
        for (weight, token) in &self.weights {
            left -= weight;
            if left < 0.0 {
                return Some(*token);
            }
        }
        Some(best)
    }

    /// Keeps the likeliest tokens that together reach `top_p`, and returns their weight.
    fn keep_nucleus(&mut self, total: f64) -> f64 {
        // Ties go to the lower token, so that the order is the same on every machine.
        self.weights.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let wanted = self.sampling.top_p * total;
        let mut mass = 0.0;
        let mut kept = 0;
        for (weight, _) in &self.weights {
            mass += weight;
            kept += 1;
            if mass >= wanted {
                break;
            }
        }
        self.weights.truncate(kept);
        mass
    }

    /// A number in [0, 1): SplitMix64, its upper 32 bits.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let upper = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The likeliest token and its logit; the first of equals.
fn greedy(logits: &[f32]) -> Option<(Token, f32)> {
    let numbers = (0..).zip(logits.iter().copied()).filter(|(_, logit)| logit.is_finite());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(temperature: f64, top_p: f64, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_best() {
        assert_eq!(sampler(0.0, 1.0, 1).draw(&[0.5, 2.0, f32::NAN, 2.0]), Some(1));
        assert_eq!(sampler(0.0, 1.0, 1).draw(&[f32::NAN]), None);
    }

    #[test]
    fn odds_follow_the_softmax() {
        let mut sampler = sampler(1.0, 1.0, 7);
        let logits = [0.0, (3.0_f32).ln(), f32::NEG_INFINITY];
        let counts = (0..40_000).fold([0_u32; 3], |mut counts, _| {
            counts[usize::try_from(sampler.draw(&logits).unwrap()).unwrap()] += 1;
            counts
        });
        assert!((9_500..10_500).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn the_nucleus_leaves_the_tail_out() {
        let mut sampler = sampler(1.0, 0.6, 3);
        let logits = [(0.5_f32).ln(), (0.3_f32).ln(), (0.2_f32).ln()];
        assert!((0..1000).all(|_| sampler.draw(&logits).unwrap() < 2));
    }

    proptest! {
        #[test]
        fn a_seed_repeats_itself(seed: u64, logits in prop::collection::vec(-20_f32..20.0, 1..50)) {
            let draw = || { let mut s = sampler(1.3, 0.9, seed); (0..20).map(|_| s.draw(&logits)).collect::<Vec<_>>() };
            prop_assert_eq!(draw(), draw());
        }

        #[test]
        fn a_tiny_nucleus_is_greedy(seed: u64, logits in prop::collection::vec(-20_f32..20.0, 1..50)) {
            prop_assert_eq!(sampler(0.8, 1e-12, seed).draw(&logits), sampler(0.0, 1.0, 0).draw(&logits));
        }
    }
}
