//! The engine's thread: takes requests in, asks the scheduler for a step, computes it, hands tokens out.
//!
//! ```text
//! API ─ Message ─▶ inbox ─▶ scheduler ─ Step ─▶ engine ─ logits ─▶ sampler ─▶ text ─ Event ─▶ API
//! ```
//! A client that leaves drops its receiver; the next turn frees its slot.

use crate::engine::{Engine, EngineError, Row, Vocabulary};
use crate::limits::{ENGINE_FAILURES_MAX, PREFILL_TOKENS_MAX, PREFILL_TOKENS_MIN, STEP_TARGET};
use crate::metrics::{Metrics, Outcome};
use crate::sampler::{Sampler, Sampling, Token};
use crate::scheduler::{Capacity, Ended, Refusal, RequestId, Scheduler, Step};
use crate::text::TextStream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// A request as the driver takes it.
#[derive(Debug)]
pub struct Job {
    /// Tokens of the prompt.
    pub prompt: Vec<Token>,
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// How to draw them.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Goes on after the model's own end, for measurements.
    pub ignore_end: bool,
    /// Where tokens go. Unbounded, yet it never holds more than `max_tokens` events.
    pub events: UnboundedSender<Event>,
    /// Its place among the requests that this pod takes at once.
    pub permit: Option<OwnedSemaphorePermit>,
    /// When it came.
    pub arrived: Instant,
}

/// What the inbox takes.
#[derive(Debug)]
pub enum Message {
    /// A request.
    Run(Box<Job>),
    /// Give everything up and return.
    Stop,
}

/// What a request hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A token was generated; `text` is what became certain by it, maybe nothing.
    Token {
        /// New text.
        text: String,
    },
    /// The last token was generated.
    Done {
        /// The rest of the text.
        text: String,
        /// Stop or length.
        outcome: Outcome,
    },
    /// It can't go on.
    Failed(String),
}

struct Active {
    job: Box<Job>,
    sampler: Sampler,
    text: TextStream,
    last: Option<Token>,
    made: u32,
    last_at: Instant,
}

/// How fast prompts are computed, to keep steps near [`STEP_TARGET`].
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    token_micros: Option<u128>,
}

impl Pace {
    fn learn(&mut self, took: Duration, tokens: u32) {
        if tokens >= PREFILL_TOKENS_MIN {
            let now = took.as_micros() / u128::from(tokens);
            self.token_micros = Some(self.token_micros.map_or(now, |old| (old * 3 + now) / 4));
        }
    }

    fn budget(&self) -> u32 {
        let fits = self.token_micros.and_then(|micros| STEP_TARGET.as_micros().checked_div(micros));
        let fits = fits.and_then(|tokens| u32::try_from(tokens).ok()).unwrap_or(PREFILL_TOKENS_MAX);
        fits.clamp(PREFILL_TOKENS_MIN, PREFILL_TOKENS_MAX)
    }
}

/// Owns the engine; one thread calls [`Driver::run`].
pub struct Driver<E> {
    engine: E,
    vocabulary: Arc<dyn Vocabulary>,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
    active: BTreeMap<RequestId, Active>,
    next_id: RequestId,
    pace: Pace,
    failures: u32,
}

impl<E: Engine> Driver<E> {
    /// An idle driver.
    pub fn new(engine: E, vocabulary: Arc<dyn Vocabulary>, metrics: Arc<Metrics>, capacity: Capacity) -> Self {
        let scheduler = Scheduler::new(capacity);
        let (active, pace) = (BTreeMap::new(), Pace::default());
        Self { engine, vocabulary, metrics, scheduler, active, next_id: 0, pace, failures: 0 }
    }

    /// Serves until told to stop or until nobody can send any more.
    ///
    /// # Errors
    /// Where the engine failed [`ENGINE_FAILURES_MAX`] times in a row.
    pub fn run(&mut self, inbox: &Receiver<Message>) -> Result<(), EngineError> {
        loop {
            if !self.take_in(inbox) {
                self.fail_all("the server is shutting down");
                return Ok(());
            }
            self.drop_the_gone()?;
            if !self.scheduler.is_idle() {
                self.turn()?;
            }
            self.metrics.state(&self.scheduler);
        }
    }

    /// Takes all that wait in the inbox; while idle, sleeps until something comes. `false` ends the driver.
    fn take_in(&mut self, inbox: &Receiver<Message>) -> bool {
        let first = if self.scheduler.is_idle() { inbox.recv().ok() } else { inbox.try_recv().ok() };
        let closed = first.is_none() && self.scheduler.is_idle();
        for message in first.into_iter().chain(inbox.try_iter()) {
            match message {
                Message::Run(job) => self.take(job),
                Message::Stop => return false,
            }
        }
        !closed
    }

    fn take(&mut self, job: Box<Job>) {
        self.next_id += 1;
        let id = self.next_id;
        let prompt = u32::try_from(job.prompt.len()).unwrap_or(u32::MAX);
        match self.scheduler.enqueue(id, prompt, job.max_tokens) {
            Ok(()) => {
                let sampler = Sampler::new(job.sampling);
                let text = TextStream::new(job.stops.clone());
                let last_at = job.arrived;
                self.active.insert(id, Active { job, sampler, text, last: None, made: 0, last_at });
            }
            Err(refusal @ (Refusal::QueueFull | Refusal::TooLarge | Refusal::Empty | Refusal::Duplicate)) => {
                self.metrics.ended(Outcome::Error, job.arrived.elapsed());
                drop(job.events.send(Event::Failed(format!("the request was not taken: {refusal}"))));
            }
        }
    }

    fn drop_the_gone(&mut self) -> Result<(), EngineError> {
        let gone = self.active.iter().filter(|(_, active)| active.job.events.is_closed());
        let gone: Vec<RequestId> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().try_for_each(|id| self.end(id, Outcome::Abort))
    }

    fn end(&mut self, id: RequestId, outcome: Outcome) -> Result<(), EngineError> {
        if let Some(active) = self.active.remove(&id) {
            self.metrics.ended(outcome, active.job.arrived.elapsed());
        }
        match self.scheduler.end(id) {
            Some(Ended::Running(slot)) => self.engine.clear(slot),
            Some(Ended::Waiting) | None => Ok(()),
        }
    }

    fn turn(&mut self) -> Result<(), EngineError> {
        let budget = if self.scheduler.is_decoding() { self.pace.budget() } else { PREFILL_TOKENS_MAX };
        let step = self.scheduler.plan(budget);
        for (id, _) in &step.admitted {
            if let Some(active) = self.active.get(id) {
                self.metrics.admitted(active.job.arrived.elapsed());
            }
        }
        let begin = Instant::now();
        match self.compute(&step) {
            Ok(drawn) => {
                self.failures = 0;
                let took = begin.elapsed();
                self.pace.learn(took, step.tokens());
                let generated = u64::try_from(drawn.len()).unwrap_or_default();
                self.metrics.stepped(took, self.prompt_tokens(&step), generated);
                drawn.into_iter().try_for_each(|(id, token)| self.hand_out(id, token))
            }
            Err(error) => self.survive(error),
        }
    }

    fn prompt_tokens(&self, step: &Step) -> u32 {
        let of_prompt = |id: &RequestId| self.active.get(id).is_some_and(|active| active.last.is_none());
        step.work.iter().filter(|work| of_prompt(&work.id)).map(|work| work.count).sum()
    }

    /// Computes a step and draws a token for each request that gets one.
    fn compute(&mut self, step: &Step) -> Result<Vec<(RequestId, Option<Token>)>, EngineError> {
        let mut rows = Vec::new();
        let mut owners = Vec::new();
        for work in &step.work {
            let Some(active) = self.active.get(&work.id) else { continue };
            for offset in 0..work.count {
                let position = work.from.saturating_add(offset);
                let in_prompt = usize::try_from(position).ok().and_then(|at| active.job.prompt.get(at)).copied();
                let Some(token) = in_prompt.or(active.last) else { continue };
                rows.push(Row { slot: work.slot, token, position, logits: work.yields && offset + 1 == work.count });
                owners.push(work.id);
            }
        }
        let mut drawn = Vec::with_capacity(step.work.len());
        let active = &mut self.active;
        self.engine.step(&rows, &mut |index, logits| {
            if let Some(id) = owners.get(index)
                && let Some(active) = active.get_mut(id)
            {
                drawn.push((*id, active.sampler.draw(logits)));
            }
        })?;
        Ok(drawn)
    }

    fn hand_out(&mut self, id: RequestId, token: Option<Token>) -> Result<(), EngineError> {
        let Some(active) = self.active.get_mut(&id) else { return Ok(()) };
        let Some(token) = token else {
            drop(active.job.events.send(Event::Failed("the model's output is no number".into())));
            return self.end(id, Outcome::Error);
        };
        active.made += 1;
        match active.last.replace(token) {
            None => self.metrics.first_token(active.job.arrived.elapsed()),
            Some(_) => self.metrics.next_token(active.last_at.elapsed()),
        }
        active.last_at = Instant::now();
        let ends = self.vocabulary.ends(token) && !active.job.ignore_end;
        let mut text = if ends { String::new() } else { active.text.push(&self.vocabulary.piece(token)) };
        let outcome = match (ends || active.text.stopped(), active.made >= active.job.max_tokens) {
            (true, _) => Outcome::Stop,
            (false, true) => Outcome::Length,
            (false, false) => {
                // A closed channel is noticed at the next turn.
                drop(active.job.events.send(Event::Token { text }));
                return Ok(());
            }
        };
        text.push_str(&active.text.finish());
        drop(active.job.events.send(Event::Done { text, outcome }));
        self.end(id, outcome)
    }

    /// After a failed step: those in it are lost, those waiting go on.
    fn survive(&mut self, error: EngineError) -> Result<(), EngineError> {
        self.failures += 1;
        tracing::error!(%error, failures = self.failures, "a step failed");
        let running: Vec<RequestId> = self.active.keys().copied().filter(|id| self.scheduler.is_running(*id)).collect();
        for id in running {
            if let Some(active) = self.active.get(&id) {
                drop(active.job.events.send(Event::Failed(error.to_string())));
            }
            self.end(id, Outcome::Error)?;
        }
        if self.failures < ENGINE_FAILURES_MAX {
            return Ok(());
        }
        self.fail_all(&error.to_string());
        Err(error)
    }

    fn fail_all(&mut self, why: &str) {
        for (_, active) in std::mem::take(&mut self.active) {
            self.metrics.ended(Outcome::Error, active.job.arrived.elapsed());
            drop(active.job.events.send(Event::Failed(why.to_owned())));
        }
    }
}
