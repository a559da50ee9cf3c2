//! What the pod tells a scraper: vLLM's names, so that everything made for vLLM reads it, and a few of our own.

use crate::kv::Sharing;
use crate::memory::Load;
use crate::profile::Profile;
use crate::scheduler::Scheduler;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// vLLM's buckets for times to a token and between tokens.
const TOKEN_SECONDS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// vLLM's buckets for whole requests.
const REQUEST_SECONDS: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
/// Steps are short: one pass over one batch.
const STEP_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

type Ratio = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    finished_reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    variant: String,
    hardware_class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BatchLabel {
    rows: &'static str,
}

/// The batch's size, in classes of a factor of four.
fn rows_label(rows: usize) -> &'static str {
    match rows {
        0..=1 => "1",
        2..=4 => "2-4",
        5..=16 => "5-16",
        17..=64 => "17-64",
        _ => "65+",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostLabel {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SwapLabel {
    outcome: &'static str,
}

/// A phase of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadPhase {
    /// Fetching the file.
    Pull,
    /// Reading it into memory.
    Load,
    /// Measuring and the first tokens.
    WarmUp,
    /// Reading the variant that guesses ahead.
    Draft,
}

impl LoadPhase {
    const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Load => "load",
            Self::WarmUp => "warm_up",
            Self::Draft => "draft",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model ended it, or a stop text.
    Stop,
    /// It reached `max_tokens`.
    Length,
    /// The client left.
    Abort,
    /// The engine failed.
    Error,
}

impl Outcome {
    /// The label's value, and OpenAI's `finish_reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    kv_usage: Ratio,
    tokens_in_flight: Gauge,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    success: Family<Finished, Counter>,
    first_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
    queued: Histogram,
    preemptions: Counter,
    prefix_queries: Counter,
    prefix_hits: Counter,
    drafts: Counter,
    draft_tokens: Counter,
    accepted_tokens: Counter,
    step: Family<BatchLabel, Histogram, fn() -> Histogram>,
    slots: Gauge,
    decode_speed: Ratio,
    costs: Family<CostLabel, Ratio>,
    load_seconds: Family<PhaseLabel, Ratio>,
    swaps: Family<SwapLabel, Histogram, fn() -> Histogram>,
    info: Family<Info, Gauge>,
}

impl Metrics {
    /// Zeroes, for this model.
    #[must_use]
    pub fn new(model: &str) -> Self {
        let labels = [("model_name".into(), model.to_owned().into())];
        let mut metrics = Self {
            registry: Registry::with_labels(labels.into_iter()),
            running: Gauge::default(),
            waiting: Gauge::default(),
            kv_usage: Ratio::default(),
            tokens_in_flight: Gauge::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            success: Family::default(),
            first_token: Histogram::new(TOKEN_SECONDS),
            between_tokens: Histogram::new(TOKEN_SECONDS),
            whole: Histogram::new(REQUEST_SECONDS),
            queued: Histogram::new(REQUEST_SECONDS),
            preemptions: Counter::default(),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            drafts: Counter::default(),
            draft_tokens: Counter::default(),
            accepted_tokens: Counter::default(),
            step: Family::new_with_constructor(|| Histogram::new(STEP_SECONDS)),
            slots: Gauge::default(),
            decode_speed: Ratio::default(),
            costs: Family::default(),
            load_seconds: Family::default(),
            swaps: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            info: Family::default(),
        };
        metrics.register_vllm();
        metrics.register_ours();
        // So that rates exist from the first scrape on.
        for outcome in [Outcome::Stop, Outcome::Length, Outcome::Abort, Outcome::Error] {
            drop(metrics.success.get_or_create(&Finished { finished_reason: outcome.name() }));
        }
        metrics
    }

    /// One with a series in every family, for `docs/metrics.md`.
    #[must_use]
    pub fn sample() -> Self {
        let metrics = Self::new("");
        metrics.serving("", "", 0);
        metrics.phase(LoadPhase::Load, Duration::ZERO);
        metrics.swapped(Duration::ZERO, true);
        metrics.stepped(Duration::ZERO, 1, 0, 0);
        let profile = Profile {
            step_seconds: 0.0,
            sequence_seconds: 0.0,
            context_token_seconds: 0.0,
            prompt_token_seconds: 0.0,
            flash_attention: true,
            shared_cells: true,
        };
        metrics.profile(&profile, Load::new(1, 1, true, Sharing::Cells));
        metrics
    }

    fn register_vllm(&mut self) {
        let r = &mut self.registry;
        r.register("vllm:num_requests_running", "Requests that hold a slot", self.running.clone());
        r.register("vllm:num_requests_waiting", "Requests that wait for a slot", self.waiting.clone());
        r.register(
            "vllm:kv_cache_usage_perc",
            "Share of the KV cache that requests hold, 0 to 1",
            self.kv_usage.clone(),
        );
        r.register("vllm:prompt_tokens", "Prompt tokens computed", self.prompt_tokens.clone());
        r.register("vllm:generation_tokens", "Tokens generated", self.generation_tokens.clone());
        r.register(
            "vllm:request_success",
            "Requests that ended, by how: stop, length, abort, error",
            self.success.clone(),
        );
        r.register("vllm:time_to_first_token_seconds", "From arrival to the first token", self.first_token.clone());
        r.register("vllm:inter_token_latency_seconds", "Between two tokens of a request", self.between_tokens.clone());
        r.register("vllm:e2e_request_latency_seconds", "From arrival to the last token", self.whole.clone());
        let preempted = "Requests put back into the queue since the KV cache ran out";
        r.register("vllm:num_preemptions", preempted, self.preemptions.clone());
        r.register("vllm:prefix_cache_queries", "Prompt tokens looked up in the cache", self.prefix_queries.clone());
        r.register("vllm:prefix_cache_hits", "Prompt tokens that the cache held", self.prefix_hits.clone());
        r.register("vllm:spec_decode_num_drafts", "Times that tokens were guessed ahead", self.drafts.clone());
        r.register("vllm:spec_decode_num_draft_tokens", "Tokens guessed ahead", self.draft_tokens.clone());
        r.register("vllm:spec_decode_num_accepted_tokens", "Guesses that held", self.accepted_tokens.clone());
        r.register("vllm:request_queue_time_seconds", "From arrival to a slot", self.queued.clone());
    }

    fn register_ours(&mut self) {
        let r = &mut self.registry;
        r.register("quartermaster_engine_info", "What is served here; always 1", self.info.clone());
        r.register("quartermaster_engine_slots", "Requests decoded side by side", self.slots.clone());
        r.register(
            "quartermaster_engine_decode_tokens_per_second",
            "Decode speed of all slots together at half their context, by the measured costs",
            self.decode_speed.clone(),
        );
        let costs = "Measured cost: a decode step, each sequence in it, each token of context, a token of a prompt";
        r.register("quartermaster_engine_cost_seconds", costs, self.costs.clone());
        let phases = "How long each phase of the last start or swap took: pull, load, warm_up, draft";
        r.register("quartermaster_engine_start_phase_seconds", phases, self.load_seconds.clone());
        r.register("quartermaster_engine_swap_seconds", "From the order of a swap to its end", self.swaps.clone());
        r.register("quartermaster_engine_step_seconds", "One pass over one batch, by its rows", self.step.clone());
        r.register("quartermaster_engine_tokens_in_flight", "Tokens in the KV cache", self.tokens_in_flight.clone());
    }

    /// What is served, known before the model is loaded.
    pub fn serving(&self, variant: &str, hardware_class: &str, slots: u32) {
        self.info.clear();
        let info = Info { variant: variant.to_owned(), hardware_class: hardware_class.to_owned() };
        self.info.get_or_create(&info).set(1);
        self.slots.set(slots.into());
    }

    /// A phase of the start took so long.
    pub fn phase(&self, phase: LoadPhase, took: Duration) {
        tracing::info!(phase = phase.name(), seconds = took.as_secs_f64(), "start");
        self.load_seconds.get_or_create(&PhaseLabel { phase: phase.name() }).set(took.as_secs_f64());
    }

    /// The costs were measured, now or at an earlier start.
    pub fn profile(&self, profile: &Profile, load: Load) {
        let step = profile.decode_seconds(load.slots, load.context / 2);
        self.decode_speed.set(if step > 0.0 { f64::from(load.slots) / step } else { 0.0 });
        for (part, seconds) in [
            ("step", profile.step_seconds),
            ("sequence", profile.sequence_seconds),
            ("context_token", profile.context_token_seconds),
            ("prompt_token", profile.prompt_token_seconds),
        ] {
            self.costs.get_or_create(&CostLabel { part }).set(seconds);
        }
    }

    /// A swap to another variant ended, well or not.
    pub fn swapped(&self, took: Duration, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.swaps.get_or_create(&SwapLabel { outcome }).observe(took.as_secs_f64());
    }

    /// The state between two steps.
    pub fn state(&self, scheduler: &Scheduler) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.running.set(count(scheduler.running()));
        self.waiting.set(count(scheduler.waiting()));
        let kv = scheduler.kv();
        self.tokens_in_flight.set(count(kv.busy()));
        self.kv_usage.set(share(kv.busy(), kv.capacity().cells));
    }

    /// A step was computed.
    pub fn stepped(&self, took: Duration, rows: usize, prompt_tokens: u32, generated: u64) {
        self.step.get_or_create(&BatchLabel { rows: rows_label(rows) }).observe(took.as_secs_f64());
        self.prompt_tokens.inc_by(prompt_tokens.into());
        self.generation_tokens.inc_by(generated);
    }

    /// A request got its slot; so many tokens of its prompt need not be computed.
    pub fn begun(&self, waited: Duration, prompt_tokens: usize, cached: usize) {
        self.queued.observe(waited.as_secs_f64());
        self.prefix_queries.inc_by(u64::try_from(prompt_tokens).unwrap_or(u64::MAX));
        self.prefix_hits.inc_by(u64::try_from(cached).unwrap_or(u64::MAX));
    }

    /// Requests were put back into the queue.
    pub fn preempted(&self, requests: usize) {
        self.preemptions.inc_by(u64::try_from(requests).unwrap_or(u64::MAX));
    }

    /// So many tokens were guessed for a request, and so many of them held.
    pub fn guessed(&self, guessed: usize, held: usize) {
        self.drafts.inc();
        self.draft_tokens.inc_by(u64::try_from(guessed).unwrap_or(u64::MAX));
        self.accepted_tokens.inc_by(u64::try_from(held).unwrap_or(u64::MAX));
    }

    /// A request got its first token.
    pub fn first_token(&self, since_arrival: Duration) {
        self.first_token.observe(since_arrival.as_secs_f64());
    }

    /// A request got its next token.
    pub fn next_token(&self, since_last: Duration) {
        self.between_tokens.observe(since_last.as_secs_f64());
    }

    /// A request ended.
    pub fn ended(&self, outcome: Outcome, since_arrival: Duration) {
        self.success.get_or_create(&Finished { finished_reason: outcome.name() }).inc();
        if matches!(outcome, Outcome::Stop | Outcome::Length) {
            self.whole.observe(since_arrival.as_secs_f64());
        }
    }

    /// The text for a scraper, in OpenMetrics' format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# encoding the metrics: {error}\n"),
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{Capacity, Flow, KvCapacity, Request, Sharing};

    #[test]
    fn names_are_exactly_vllms() {
        let metrics = Metrics::new("smol");
        metrics.serving("q8", "cpu-small", 4);
        metrics.phase(LoadPhase::Load, Duration::from_millis(1500));
        let profile = Profile {
            step_seconds: 0.01,
            sequence_seconds: 0.002,
            context_token_seconds: 0.0,
            prompt_token_seconds: 0.004,
            flash_attention: false,
            shared_cells: true,
        };
        metrics.profile(&profile, profile.choose(Load::new(512, 5, false, Sharing::Cells)));
        metrics.swapped(Duration::from_secs(1), true);
        metrics.stepped(Duration::from_millis(20), 14, 12, 3);
        metrics.first_token(Duration::from_millis(30));
        metrics.next_token(Duration::from_millis(10));
        metrics.begun(Duration::ZERO, 30, 16);
        metrics.preempted(2);
        metrics.ended(Outcome::Stop, Duration::from_secs(1));
        let kv = KvCapacity { sequences: 2, cells: 200, sharing: Sharing::Cells };
        let mut scheduler = Scheduler::new(Capacity { places: 2, context: 100, queue: 4, kv });
        for id in 1..=3 {
            let (tokens, flow) = (vec![1; 30], Flow { tenant: String::new(), priority: 0 });
            scheduler.enqueue(Request { id, tokens, generate: 20, flow, deadline: None }).unwrap();
        }
        scheduler.plan(50, Duration::ZERO);
        metrics.state(&scheduler);
        let text = metrics.render();
        for line in [
            "vllm:num_requests_running{model_name=\"smol\"} 2",
            "vllm:num_requests_waiting{model_name=\"smol\"} 1",
            "vllm:kv_cache_usage_perc{model_name=\"smol\"} 0.15",
            "vllm:num_preemptions_total{model_name=\"smol\"} 2",
            "vllm:prefix_cache_queries_total{model_name=\"smol\"} 30",
            "vllm:prefix_cache_hits_total{model_name=\"smol\"} 16",
            "vllm:prompt_tokens_total{model_name=\"smol\"} 12",
            "vllm:generation_tokens_total{model_name=\"smol\"} 3",
            "vllm:request_success_total{model_name=\"smol\",finished_reason=\"stop\"} 1",
            "vllm:request_success_total{model_name=\"smol\",finished_reason=\"abort\"} 0",
            "vllm:time_to_first_token_seconds_count{model_name=\"smol\"} 1",
            "vllm:inter_token_latency_seconds_bucket{model_name=\"smol\",le=\"0.01\"} 1",
            "vllm:e2e_request_latency_seconds_sum{model_name=\"smol\"} 1.0",
            "vllm:request_queue_time_seconds_count{model_name=\"smol\"} 1",
            "quartermaster_engine_info{model_name=\"smol\",variant=\"q8\",hardware_class=\"cpu-small\"} 1",
            "quartermaster_engine_slots{model_name=\"smol\"} 4",
            "quartermaster_engine_decode_tokens_per_second{model_name=\"smol\"} 250.0",
            "quartermaster_engine_cost_seconds{model_name=\"smol\",part=\"sequence\"} 0.002",
            "quartermaster_engine_start_phase_seconds{model_name=\"smol\",phase=\"load\"} 1.5",
            "quartermaster_engine_swap_seconds_count{model_name=\"smol\",outcome=\"done\"} 1",
            "quartermaster_engine_step_seconds_count{model_name=\"smol\",rows=\"5-16\"} 1",
            "quartermaster_engine_tokens_in_flight{model_name=\"smol\"} 30",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
