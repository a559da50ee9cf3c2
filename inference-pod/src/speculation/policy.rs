//! When guessing pays, and how far ahead. Pure: costs were measured at the start, acceptance is measured as it goes.

use crate::profile::Profile;

/// Most tokens that are guessed ahead.
pub const GUESSES_MAX: u32 = 6;
/// It must be better than nothing by so much: costs are measured within some per cent.
const MARGIN: f64 = 1.05;
/// What is assumed of a draft before anything was seen.
const ACCEPTANCE_AT_FIRST: f64 = 0.7;
/// How much of the past a guess replaces.
const WEIGHT: f64 = 0.02;
/// Where it does not pay as far as is known, it is tried again after so many steps: the text may have changed.
const TRY_AGAIN: u32 = 256;
/// Guesses of such a try.
const TRIED: u32 = 2;

/// What is known of a draft and the variant that it guesses for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    served: Profile,
    draft: Profile,
    slots: u32,
    fixed: Option<u32>,
    /// Share of guesses that held, of those whose predecessors held.
    acceptance: f64,
    /// Steps without a guess although one could have paid.
    idle: u32,
}

impl Policy {
    /// Nothing has been guessed yet. `fixed` says how many tokens to guess, whatever they cost.
    #[must_use]
    pub fn new(served: Profile, draft: Profile, slots: u32, fixed: Option<u32>) -> Self {
        Self { served, draft, slots, fixed, acceptance: ACCEPTANCE_AT_FIRST, idle: 0 }
    }

    /// How many tokens to guess for each of `sequences` sequences of about `context` tokens; 0 is none. A full batch is used
    /// well already: its rows share one pass over the weights.
    pub fn guesses(&mut self, sequences: u32, context: u32) -> u32 {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        if sequences == 0 || (self.slots > 1 && sequences >= self.slots) {
            return 0;
        }
        let best = self.best(sequences, context, self.acceptance);
        if best > 0 {
            self.idle = 0;
            return best;
        }
        // Where not even a perfect draft would pay, there is nothing to find out.
        if self.best(sequences, context, 1.0) == 0 {
            return 0;
        }
        self.idle += 1;
        if self.idle < TRY_AGAIN {
            return 0;
        }
        self.idle = 0;
        TRIED
    }

    fn best(&self, sequences: u32, context: u32, acceptance: f64) -> u32 {
        let alone = self.tokens_per_second(0, sequences, context, acceptance) * MARGIN;
        let rates = (1..=GUESSES_MAX).map(|k| (k, self.tokens_per_second(k, sequences, context, acceptance)));
        let best = rates.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.filter(|(_, rate)| *rate > alone).map_or(0, |(k, _)| k)
    }

    /// Of one sequence: a step gives one token, and each guess as long as all before it held; it takes `k` steps of the draft
    /// and one step with `1 + k` rows for each sequence.
    fn tokens_per_second(&self, k: u32, sequences: u32, context: u32, acceptance: f64) -> f64 {
        let tokens: f64 = (0..=k).map(|place| acceptance.powi(i32::try_from(place).unwrap_or(i32::MAX))).sum();
        let rows = sequences.saturating_mul(k + 1);
        let seconds =
            self.served.decode_seconds(rows, context) + f64::from(k) * self.draft.decode_seconds(sequences, context);
        tokens / seconds.max(f64::MIN_POSITIVE)
    }

    /// Of `guessed` tokens in a row, the first `held` were what the served variant said.
    pub fn learn(&mut self, guessed: usize, held: usize) {
        for place in 0..guessed.min(held + 1) {
            let seen = if place < held { 1.0 } else { 0.0 };
            self.acceptance += (seen - self.acceptance) * WEIGHT;
        }
    }

    /// Share of guesses that hold, as far as is known.
    #[must_use]
    pub fn acceptance(&self) -> f64 {
        self.acceptance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(step: f64, sequence: f64) -> Profile {
        Profile {
            step_seconds: step,
            sequence_seconds: sequence,
            context_token_seconds: 0.0,
            prompt_token_seconds: 0.0,
            flash_attention: true,
            shared_cells: false,
        }
    }

    /// Ten times as quick a draft, for a variant whose rows cost little beside the pass itself.
    fn policy() -> Policy {
        Policy::new(profile(0.010, 0.0005), profile(0.001, 0.0001), 8, None)
    }

    #[test]
    fn a_quick_draft_that_guesses_well_pays_for_few_and_not_for_a_full_batch() {
        let mut policy = policy();
        assert!(policy.guesses(1, 100) >= 2);
        assert!(policy.guesses(1, 100) >= policy.guesses(7, 100), "each guess costs every sequence a row");
        assert_eq!((policy.guesses(8, 100), policy.guesses(0, 100)), (0, 0));
        assert!(Policy { slots: 1, ..policy }.guesses(1, 100) > 0, "one slot is never a batch");
    }

    #[test]
    fn a_draft_as_slow_as_the_variant_never_pays_and_is_never_tried() {
        let mut policy = Policy::new(profile(0.010, 0.001), profile(0.010, 0.001), 8, None);
        assert!((0..TRY_AGAIN * 3).all(|_| policy.guesses(1, 100) == 0));
        assert_eq!(Policy { fixed: Some(3), ..policy }.guesses(8, 100), 3, "unless somebody says so");
    }

    #[test]
    fn bad_guesses_end_it_and_it_is_tried_again_in_a_while() {
        let mut policy = policy();
        for _ in 0..300 {
            policy.learn(4, 0);
        }
        assert!(policy.acceptance() < 0.01, "{}", policy.acceptance());
        let tried = (0..TRY_AGAIN * 2).filter(|_| policy.guesses(1, 100) > 0).count();
        assert_eq!(tried, 2);
        for _ in 0..300 {
            policy.learn(2, 2);
        }
        assert!(policy.guesses(1, 100) > 0);
    }

    #[test]
    fn what_comes_after_the_first_miss_says_nothing() {
        let (mut one, mut other) = (policy(), policy());
        one.learn(6, 2);
        other.learn(3, 2);
        assert!((one.acceptance() - other.acceptance()).abs() < 1e-12);
        assert!(one.acceptance() < ACCEPTANCE_AT_FIRST + 2.0 * WEIGHT);
    }
}
