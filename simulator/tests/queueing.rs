//! The queueing model of core beside the replica that is simulated step by step: the plan sizes by the first, the second is what
//! it stands for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

use quartermaster_core::capacity::queueing::{self, Station, Work};
use quartermaster_core::capacity::step::StepCost;
use quartermaster_simulator::replica::{Done, Engine, Replica, Request};

const REQUESTS: u32 = 20_000;
/// Of a server that has just begun nothing is said.
const WARM_UP: usize = 2_000;
const STEP_TOKENS: u32 = 2048;

/// Even numbers in [0, 1), after Marsaglia.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.next()).ln()
    }

    /// Lengths as those of conversations are: many short, some long.
    fn length(&mut self, median: f64, spread: f64, most: u32) -> u32 {
        let normal = (-2.0 * (1.0 - self.next()).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos();
        ((median * (spread * normal).exp()) as u32).clamp(1, most)
    }
}

struct Machine {
    cost: StepCost,
    slots: u32,
    kv_tokens: u32,
}

/// An 8B model in half precision on the two ends of what is rented: coefficients of the order of those measured.
const MACHINES: [Machine; 2] = [
    Machine {
        cost: StepCost {
            overhead_ms: 2.0,
            base_ms: 4.4,
            sequence_ms: 0.0104,
            context_ms: 4.4e-5,
            prompt_base_ms: 4.4,
            prompt_ms: 0.02,
            attention_ms: 8e-7,
        },
        slots: 256,
        kv_tokens: 450_000,
    },
    Machine {
        cost: StepCost {
            overhead_ms: 2.0,
            base_ms: 22.0,
            sequence_ms: 0.02,
            context_ms: 1.2e-4,
            prompt_base_ms: 22.0,
            prompt_ms: 0.1,
            attention_ms: 4e-6,
        },
        slots: 128,
        kv_tokens: 150_000,
    },
];

fn lengths() -> Vec<(u32, u32)> {
    let mut random = Random(7);
    (0..REQUESTS).map(|_| (random.length(900.0, 0.7, 4096), random.length(150.0, 0.8, 1000))).collect()
}

fn work(lengths: &[(u32, u32)]) -> Work {
    let mean = |of: &dyn Fn(&(u32, u32)) -> f64| lengths.iter().map(of).sum::<f64>() / f64::from(REQUESTS);
    Work {
        prompt_tokens: mean(&|(prompt, _)| f64::from(*prompt)),
        prompt_squares: mean(&|(prompt, _)| f64::from(*prompt).powi(2)),
        output_tokens: mean(&|(_, output)| f64::from(*output)),
        output_squares: mean(&|(_, output)| f64::from(*output).powi(2)),
    }
}

/// What requests meet that come at random at so many a second.
fn simulated(machine: &Machine, lengths: &[(u32, u32)], rate: f64) -> Vec<Done> {
    let Machine { cost, slots, kv_tokens } = machine;
    let (slots, kv_tokens, step_tokens) = (*slots as usize, u64::from(*kv_tokens), u64::from(STEP_TOKENS));
    let mut replica = Replica::new(Engine { cost: *cost, slots, kv_tokens, step_tokens });
    let (mut random, mut done, mut now, mut id) = (Random(11), Vec::new(), 0.0, 0_usize);
    loop {
        let ends = replica.ends_ms();
        if let Some((prompt_tokens, output_tokens)) = lengths.get(id).filter(|_| ends.is_none_or(|ends| now <= ends)) {
            let (prompt_tokens, output_tokens) = (*prompt_tokens, *output_tokens);
            replica.push(Request { id: id as u64, arrived_ms: now, prompt_tokens, cached_tokens: 0, output_tokens });
            replica.begin(now);
            id += 1;
            now += random.exponential() * 1e3 / rate;
        } else if let Some(ends) = ends {
            replica.end(&mut done).unwrap();
            replica.begin(ends);
        } else {
            return done.split_off(WARM_UP);
        }
    }
}

fn itl(done: &[Done]) -> f64 {
    let time: f64 = done.iter().map(|each| each.finished_ms - each.first_token_ms).sum();
    time / done.iter().map(|each| f64::from(each.request.output_tokens - 1)).sum::<f64>()
}

fn ttft_p99(done: &[Done]) -> f64 {
    let mut all: Vec<f64> = done.iter().map(Done::ttft_ms).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() * 99 / 100]
}

#[test]
fn the_model_says_what_the_simulation_shows() {
    let lengths = lengths();
    for machine in &MACHINES {
        let (slots, kv_tokens, chunk_tokens) = (machine.slots, f64::from(machine.kv_tokens), f64::from(STEP_TOKENS));
        let replica = queueing::Replica { slots, kv_tokens, chunk_tokens };
        let station = Station::new(machine.cost, work(&lengths), replica).unwrap();
        // How far the 99th percentile is above the mean is learnt at half load, and then believed.
        let rate_of = |share: f64| share * station.rate_max();
        let half = simulated(machine, &lengths, rate_of(0.5));
        let tail = ttft_p99(&half) / station.latency(rate_of(0.5)).unwrap().ttft_ms;
        assert!((2.0..8.0).contains(&tail), "{tail}");
        for share in [0.2, 0.5, 0.7, 0.8, 0.85] {
            let (said, shown) =
                (station.latency(rate_of(share)).unwrap(), simulated(machine, &lengths, rate_of(share)));
            let itl_error = said.itl_ms / itl(&shown) - 1.0;
            let ttft_error = tail * said.ttft_ms / ttft_p99(&shown) - 1.0;
            assert!(itl_error.abs() <= 0.12, "ITL off by {itl_error:.3} at a load of {share}");
            assert!(ttft_error.abs() <= 0.35, "p99 of TTFT off by {ttft_error:.3} at a load of {share}");
        }
    }
}
