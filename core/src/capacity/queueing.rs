//! How long requests wait and how fast they are answered at a rate of arrivals, and the highest rate at which both are fast
//! enough: how many requests one replica takes.
//!
//! A replica is a queue whose server is quicker the more it serves at once: a birth–death chain over the requests in it
//! (Ramani and Tantawi's model of an engine with continuous batching). Whoever is served takes part in every step until the
//! last token; a step with `B` requests takes `T(B)`, so `B / (steps of a request · T(B))` requests leave in a unit of time.

use super::step::{StepCost, StepLoad};
use serde::{Deserialize, Serialize};

/// Requests that are served or wait at once, at most, as a multiple of those that are served: beyond it the chain is cut.
const QUEUE_PER_SLOT: u32 = 8;
/// Requests in the chain, at most.
const STATES_MAX: u32 = 4096;
/// Weights of the chain's states are kept below it.
const WEIGHT_MAX: f64 = 1e200;
/// Share of the time that prompts alone may take.
const LOAD_MAX: f64 = 0.99;
/// Standard deviations by which what requests hold stays below the KV cache.
const SURE: f64 = 1.645;
/// Halvings of the interval in which the highest rate lies.
const BISECTIONS: u32 = 40;

/// What requests are in the mean. The means of squares say how much they differ, which is what others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Tokens of a prompt that must be computed.
    pub prompt_tokens: f64,
    /// The square of that.
    pub prompt_squares: f64,
    /// Tokens of an answer.
    pub output_tokens: f64,
    /// The square of that.
    pub output_squares: f64,
}

impl Work {
    /// Requests that are all alike.
    #[must_use]
    pub fn alike(prompt_tokens: f64, output_tokens: f64) -> Self {
        let (prompt_squares, output_squares) = (prompt_tokens.powi(2), output_tokens.powi(2));
        Self { prompt_tokens, prompt_squares, output_tokens, output_squares }
    }
}

/// What a replica can hold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Most requests at once.
    pub slots: u32,
    /// Tokens for which there is KV cache.
    pub kv_tokens: f64,
    /// Tokens of prompts in one step, at most.
    pub chunk_tokens: f64,
}

/// What is promised, as limits of a percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Time to the first token.
    pub ttft_ms: f64,
    /// Time between two tokens.
    pub itl_ms: f64,
}

/// How far a percentile is above its mean, learnt for each workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tail {
    /// Of the time to the first token.
    pub ttft: f64,
    /// Of the time between two tokens.
    pub itl: f64,
}

/// What requests meet in the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Wait for a slot.
    pub queue_ms: f64,
    /// Time to the first token.
    pub ttft_ms: f64,
    /// Time between two tokens.
    pub itl_ms: f64,
    /// Requests that are served at once.
    pub concurrency: f64,
    /// Arrivals over what the replica can do at most.
    pub utilisation: f64,
}

/// How a replica is in the mean over time.
struct Occupancy {
    served: f64,
    waiting: f64,
    /// Share of the time without any request.
    idle: f64,
}

/// One replica under one kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// Of a step, whatever is in it.
    base_ms: f64,
    /// Most requests that are served at once.
    served_max: u32,
    /// Steps that a request takes part in.
    steps: f64,
    /// What a request adds to a step, in the mean over its own.
    share_ms: f64,
    /// What it adds to a step in which it gets its next token.
    decode_ms: f64,
    /// What its prompt takes in the mean, and the mean of the square of that.
    prompt_ms: f64,
    prompt_ms_squares: f64,
    /// Prompts that a step has room for.
    prompts_a_step: f64,
}

impl Station {
    /// None where not even one request fits into the KV cache, or a figure is none.
    #[must_use]
    pub fn new(cost: StepCost, work: Work, replica: Replica) -> Option<Self> {
        let Work { prompt_tokens, prompt_squares, output_tokens, output_squares } = work;
        let figures = [prompt_tokens, prompt_squares, output_tokens, output_squares, replica.kv_tokens];
        let sound = figures.iter().all(|figure| figure.is_finite()) && output_tokens >= 1.0 && prompt_tokens > 0.0;
        // A request holds its prompt and what it has written: in the mean over time half of that, and long answers are there
        // for longer. Together they fill the cache only as far as their sum does not vary.
        let written = output_squares / output_tokens / 2.0;
        let held = prompt_tokens + written;
        let varies = SURE * ((prompt_squares - prompt_tokens.powi(2)).max(0.0) + written.powi(2)).sqrt();
        let root = ((varies.powi(2) + 4.0 * held * replica.kv_tokens).sqrt() - varies) / (2.0 * held);
        let served_max = count(root.powi(2).max(1.0), replica.slots);
        let sound = sound && held <= replica.kv_tokens;
        if !sound || served_max == 0 || replica.chunk_tokens < 1.0 || replica.chunk_tokens.is_nan() {
            return None;
        }
        let prompts_a_step = replica.chunk_tokens / prompt_tokens;
        // The step that ends the prompt yields the first token.
        let (chunks, decodes) = ((1.0 / prompts_a_step).max(1.0), output_tokens - 1.0);
        let prompt = StepLoad { prompt_tokens, prompt_squares, ..StepLoad::default() };
        let context_tokens = prompt_tokens * decodes + output_squares / 2.0;
        let decode = cost.marginal(StepLoad { sequences: decodes, context_tokens, ..StepLoad::default() });
        let prompt_ms = cost.marginal(prompt) + chunks * (cost.prompt_base_ms - cost.base_ms).max(0.0);
        let steps = chunks + decodes;
        Some(Self {
            base_ms: cost.overhead_ms + cost.base_ms,
            served_max,
            steps,
            share_ms: (prompt_ms + decode) / steps,
            decode_ms: decode / decodes.max(1.0),
            prompt_ms,
            prompt_ms_squares: prompt_ms.powi(2) * prompt_squares / prompt_tokens.powi(2),
            prompts_a_step,
        })
    }

    /// Milliseconds of a step with so many requests in it.
    fn step_ms(&self, requests: f64) -> f64 {
        self.base_ms + requests * self.share_ms
    }

    /// Requests a millisecond that leave while so many are served.
    fn leave(&self, requests: f64) -> f64 {
        requests / (self.steps * self.step_ms(requests))
    }

    /// Requests a second that the replica does at most.
    #[must_use]
    pub fn rate_max(&self) -> f64 {
        1e3 * self.leave(f64::from(self.served_max))
    }

    /// What requests meet at so many arrivals a second; none where they are more than the replica can do.
    #[must_use]
    pub fn latency(&self, rate: f64) -> Option<Latency> {
        let arrive = rate / 1e3;
        let utilisation = rate / self.rate_max();
        if !rate.is_finite() || rate < 0.0 || utilisation >= 1.0 {
            return None;
        }
        let Occupancy { served, waiting, idle } = self.occupancy(arrive);
        let (itl_ms, queue_ms) = match rate > 0.0 {
            true => (served / (arrive * self.steps), waiting / arrive),
            false => (self.step_ms(1.0), 0.0),
        };
        let ttft_ms = queue_ms + self.first_token_ms(arrive, served, idle);
        Some(Latency { queue_ms, ttft_ms, itl_ms, concurrency: served, utilisation })
    }

    /// From a slot to the first token. A step takes what everybody's next tokens take, and the prompts of those who came
    /// during the step before: `T' = decode + Σ prompts`, whose first two moments follow from those of the prompts.
    fn first_token_ms(&self, arrive: f64, served: f64, idle: f64) -> f64 {
        let decode = self.base_ms + self.decode_ms * served;
        let load = (arrive * self.prompt_ms).min(LOAD_MAX);
        let mean = decode / (1.0 - load);
        let square = decode * (decode + 2.0 * load * mean) + arrive * self.prompt_ms_squares * mean;
        let square = square / (1.0 - load * load);
        // Whoever comes finds a step under way, a long one rather than a short one, and has half of it before itself; then
        // its own, with all who came while that one ran.
        let found = square / mean * (1.0 - idle);
        let own = decode + self.prompt_ms + load * found;
        // Prompts that are more than a step has room for wait for the next one; their number's tail is taken as geometric.
        let beside = 1.0 + arrive * found;
        let spill = (-self.prompts_a_step / beside).exp();
        found / 2.0 + own + decode * spill / (1.0 - spill)
    }

    /// Requests that are served and that wait, in the mean over time.
    fn occupancy(&self, arrive: f64) -> Occupancy {
        let states = self.served_max.saturating_mul(QUEUE_PER_SLOT).clamp(1, STATES_MAX.max(self.served_max));
        let (mut idle, mut weight, mut sum, mut served, mut waiting) = (1.0_f64, 1.0_f64, 1.0_f64, 0.0_f64, 0.0_f64);
        for state in 1..=states {
            let here = f64::from(state.min(self.served_max));
            weight *= arrive / self.leave(here);
            sum += weight;
            served += weight * here;
            waiting += weight * f64::from(state.saturating_sub(self.served_max));
            // Weights can outgrow a float where the replica is nearly full.
            if weight > WEIGHT_MAX {
                for each in [&mut idle, &mut weight, &mut sum, &mut served, &mut waiting] {
                    *each /= WEIGHT_MAX;
                }
            }
        }
        Occupancy { served: served / sum, waiting: waiting / sum, idle: idle / sum }
    }

    /// The highest rate, in requests a second, at which the percentile of both times is within what is promised, and no
    /// more than `utilisation_max` of what the replica can do.
    #[must_use]
    pub fn rate_within(&self, slo: Slo, tail: Tail, utilisation_max: f64) -> f64 {
        let holds = |rate: f64| {
            let latency = self.latency(rate);
            latency.is_some_and(|met| met.ttft_ms * tail.ttft <= slo.ttft_ms && met.itl_ms * tail.itl <= slo.itl_ms)
        };
        let (mut low, mut high) = (0.0, self.rate_max() * utilisation_max.clamp(0.0, 1.0 - f64::EPSILON));
        if holds(high) {
            return high;
        }
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            *(if holds(middle) { &mut low } else { &mut high }) = middle;
        }
        low
    }
}

/// A whole number of requests, at most `most`.
fn count(requests: f64, most: u32) -> u32 {
    (0..32).rev().fold(0_u32, |count, bit| {
        let more = count | (1 << bit);
        if f64::from(more) <= requests && more <= most { more } else { count }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: StepCost = StepCost {
        overhead_ms: 2.0,
        base_ms: 6.36,
        sequence_ms: 0.0104,
        context_ms: 4.4e-5,
        prompt_base_ms: 6.4,
        prompt_ms: 0.03,
        attention_ms: 8e-7,
    };
    const REPLICA: Replica = Replica { slots: 256, kv_tokens: 400_000.0, chunk_tokens: 2048.0 };

    fn station(prompt_tokens: f64, output_tokens: f64) -> Station {
        Station::new(COST, Work::alike(prompt_tokens, output_tokens), REPLICA).unwrap()
    }

    #[test]
    fn one_request_alone_meets_only_its_own_steps() {
        let met = station(1000.0, 100.0).latency(1e-6).unwrap();
        let prompt = 2.0 + 6.4 + 30.0 + 0.8;
        // Where a step has room for two prompts, some are taken to spill over, although these never do.
        assert!(met.ttft_ms >= prompt - 0.01 && met.ttft_ms < 1.05 * prompt, "{met:?}");
        assert!(met.queue_ms < 1e-6 && met.concurrency < 1e-3, "{met:?}");
    }

    #[test]
    fn a_chain_with_one_place_is_the_textbooks_queue() {
        // M/M/1 at half load: as many wait as rho² / (1 - rho).
        let replica = Replica { slots: 1, ..REPLICA };
        let station = Station::new(COST, Work::alike(100.0, 50.0), replica).unwrap();
        let rate = station.rate_max() / 2.0;
        let met = station.latency(rate).unwrap();
        let waiting = met.queue_ms * rate / 1e3;
        assert!((met.concurrency - 0.5).abs() < 0.01 && (waiting - 0.5).abs() < 0.05, "{met:?}, {waiting} wait");
    }

    #[test]
    fn what_fits_in_no_cache_is_no_station() {
        let work = Work::alike(500_000.0, 10.0);
        assert!(Station::new(COST, work, REPLICA).is_none());
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Station::new(COST, Work::alike(bad, 10.0), REPLICA).is_none());
            assert!(station(100.0, 10.0).latency(bad).is_none(), "{bad}");
        }
        assert_eq!(count(3.9, 8), 3);
        assert_eq!((count(1e12, 256), count(f64::NAN, 8), count(-1.0, 8)), (256, 0, 0));
    }

    proptest! {
        #[test]
        fn more_arrivals_are_never_answered_sooner(
            prompt in 1.0..8000.0_f64, output in 1.0..1000.0_f64, share in 0.01..0.9_f64
        ) {
            let station = station(prompt, output);
            let at = |share: f64| station.latency(share * station.rate_max()).unwrap();
            let (less, more) = (at(share * 0.8), at(share));
            prop_assert!(less.ttft_ms <= more.ttft_ms * (1.0 + 1e-9) && less.itl_ms <= more.itl_ms * (1.0 + 1e-9));
            prop_assert!(more.concurrency <= 256.0 && more.itl_ms.is_finite() && more.queue_ms >= 0.0);
        }

        #[test]
        fn the_highest_rate_keeps_the_promise_and_a_higher_one_breaks_it(
            prompt in 1.0..4000.0_f64, output in 2.0..500.0_f64, ttft in 50.0..5000.0_f64, itl in 9.0..80.0_f64
        ) {
            let (slo, tail) = (Slo { ttft_ms: ttft, itl_ms: itl }, Tail { ttft: 4.5, itl: 1.2 });
            let station = station(prompt, output);
            let rate = station.rate_within(slo, tail, 0.85);
            let keeps = |rate: f64| {
                station.latency(rate).is_some_and(|met| met.ttft_ms * 4.5 <= ttft && met.itl_ms * 1.2 <= itl)
            };
            prop_assert!(rate <= 0.85 * station.rate_max() + 1e-9);
            prop_assert!(rate < 1e-9 || keeps(rate));
            prop_assert!(rate > 0.849 * station.rate_max() || !keeps(rate * 1.01 + 1e-6));
        }
    }
}
