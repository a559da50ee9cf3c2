//! The engine's thread: takes requests in, asks the scheduler for a step, computes it, hands tokens out.
//!
//! ```text
//! API ─ Message ─▶ inbox ─▶ scheduler ─ Step ─▶ engine ─ logits ─▶ sampler ─▶ text ─ Event ─▶ API
//! ```
//! A client that leaves drops its receiver; the next turn frees its slot.

mod types;

pub use types::{Event, Job, Message, Said};

use crate::engine::{Engine, EngineError, Row, Vocabulary};
use crate::limits::{ENGINE_FAILURES_MAX, PREFILL_TOKENS_MAX, PREFILL_TOKENS_MIN, STEP_TARGET};
use crate::metrics::{Metrics, Outcome};
use crate::sampler::{DrawError, Drawn, Sampler, Token};
use crate::scheduler::{Capacity, Decoding, Request, RequestId, Scheduler, Step};
use crate::speculation::{Drafter, Wanted};
use crate::text::TextStream;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A request's draw in a step.
type Draw = (RequestId, Result<Drawn, DrawError>);

struct Active {
    job: Box<Job>,
    sampler: Sampler,
    text: TextStream,
    /// Whether it has computed before: it begins only once, however often it is put back.
    begun: bool,
    made: u32,
    last_at: Instant,
}

/// Steps with prompts whose pace is remembered.
const PACE_STEPS: usize = 5;

/// How fast prompts are computed, to keep steps near [`STEP_TARGET`]: microseconds a token of the last few steps.
#[derive(Clone, Debug, Default)]
struct Pace(VecDeque<u128>);

impl Pace {
    fn learn(&mut self, took: Duration, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if tokens >= PREFILL_TOKENS_MIN {
            self.0.truncate(PACE_STEPS - 1);
            self.0.push_front(took.as_micros() / u128::from(tokens));
        }
    }

    /// By the median: steps that something else held up say nothing of the next ones.
    fn budget(&self) -> u32 {
        let mut sorted: Vec<u128> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let fits = sorted.get(sorted.len() / 2).and_then(|micros| STEP_TARGET.as_micros().checked_div(*micros));
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
    /// Zero of the scheduler's clock.
    start: Instant,
    pace: Pace,
    drafter: Option<Drafter<E>>,
    failures: u32,
}

impl<E: Engine> Driver<E> {
    /// The same, with somebody who guesses ahead.
    #[must_use]
    pub fn with_drafter(self, drafter: Option<Drafter<E>>) -> Self {
        Self { drafter, ..self }
    }

    /// An idle driver.
    pub fn new(engine: E, vocabulary: Arc<dyn Vocabulary>, metrics: Arc<Metrics>, capacity: Capacity) -> Self {
        let scheduler = Scheduler::new(capacity);
        let (active, pace, start) = (BTreeMap::new(), Pace::default(), Instant::now());
        let (drafter, next_id, failures) = (None, 0, 0);
        Self { engine, vocabulary, metrics, scheduler, active, next_id, start, pace, drafter, failures }
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
            self.drop_the_gone();
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

    fn take(&mut self, mut job: Box<Job>) {
        self.next_id += 1;
        let id = self.next_id;
        let request = Request {
            id,
            tokens: job.prompt.clone(),
            generate: usize::try_from(job.max_tokens).unwrap_or(usize::MAX),
            flow: job.flow.clone(),
            deadline: job.deadline.map(|deadline| deadline.saturating_duration_since(self.start)),
        };
        match self.scheduler.enqueue(request) {
            Ok(()) => {
                let sampler = Sampler::new(job.sampling.clone(), job.constraint.take(), &job.prompt);
                let text = TextStream::new(job.stops.clone());
                let last_at = job.arrived;
                self.active.insert(id, Active { job, sampler, text, begun: false, made: 0, last_at });
            }
            Err(refusal) => {
                self.metrics.ended(Outcome::Error, job.arrived.elapsed());
                drop(job.events.send(Event::Failed(format!("the request was not taken: {refusal}"))));
            }
        }
    }

    fn drop_the_gone(&mut self) {
        let gone = self.active.iter().filter(|(_, active)| active.job.events.is_closed());
        let gone: Vec<RequestId> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.end(id, Outcome::Abort));
    }

    fn end(&mut self, id: RequestId, outcome: Outcome) {
        if let Some(active) = self.active.remove(&id) {
            self.metrics.ended(outcome, active.job.arrived.elapsed());
        }
        self.scheduler.end(id);
    }

    fn turn(&mut self) -> Result<(), EngineError> {
        self.guess();
        let budget = if self.scheduler.is_decoding() { self.pace.budget() } else { PREFILL_TOKENS_MAX };
        let step = self.scheduler.plan(usize::try_from(budget).unwrap_or(usize::MAX), self.start.elapsed());
        self.announce(&step);
        if step.work.is_empty() && step.ops.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        match self.compute(&step) {
            Ok(drawn) => {
                self.failures = 0;
                let took = begin.elapsed();
                self.pace.learn(took, step.tokens());
                let generated = u64::try_from(drawn.len()).unwrap_or_default();
                self.metrics.stepped(took, step.tokens(), self.prompt_tokens(&step), generated);
                self.verify(&step, &drawn);
                drawn.into_iter().for_each(|(id, drawn)| self.hand_out(id, drawn));
                Ok(())
            }
            Err(error) => self.survive(error),
        }
    }

    /// Where it pays, lets the drafter guess what follows for those who wait for their next token.
    fn guess(&mut self) {
        let Some(drafter) = &mut self.drafter else { return };
        let decoding = self.scheduler.decoding();
        let sequences = u32::try_from(decoding.len()).unwrap_or(u32::MAX);
        let held: usize = decoding.iter().map(|each| self.scheduler.tokens(each.id).len()).sum();
        let context = u32::try_from(held.checked_div(decoding.len()).unwrap_or(0)).unwrap_or(u32::MAX);
        let most = drafter.policy.guesses(sequences, context);
        if most == 0 {
            return;
        }
        let wanted = |each: &Decoding| Wanted { id: each.id, tokens: self.scheduler.tokens(each.id), most: each.most };
        let wanted: Vec<Wanted<'_>> = decoding.iter().map(wanted).collect();
        match drafter.guess(&wanted, usize::try_from(most).unwrap_or(0)) {
            Ok(guessed) => guessed.into_iter().for_each(|each| self.scheduler.guess(each.id, each.tokens)),
            Err(error) => {
                // Answers do not depend on it.
                tracing::error!(%error, "the draft failed; no more guesses");
                self.drafter = None;
            }
        }
    }

    /// Tells the scheduler and the drafter which guesses held: each draw after a request's first is of one that did.
    fn verify(&mut self, step: &Step, drawn: &[Draw]) {
        for work in step.work.iter().filter(|work| !work.guesses.is_empty()) {
            let draws = drawn.iter().filter(|(id, _)| *id == work.id).count();
            let (guessed, held) = (work.guesses.len(), draws.saturating_sub(1));
            self.scheduler.verified(work.id, held);
            self.metrics.guessed(guessed, held);
            if let Some(drafter) = &mut self.drafter {
                drafter.policy.learn(guessed, held);
            }
        }
    }

    /// Says who begins, who must wait again and who waited too long.
    fn announce(&mut self, step: &Step) {
        for begun in &step.begun {
            if let Some(active) = self.active.get_mut(&begun.id).filter(|active| !active.begun) {
                active.begun = true;
                let cached = u32::try_from(begun.cached).unwrap_or(u32::MAX);
                self.metrics.begun(active.job.arrived.elapsed(), active.job.prompt.len(), begun.cached);
                drop(active.job.events.send(Event::Begun { cached }));
            }
        }
        self.metrics.preempted(step.preempted.len());
        for id in &step.expired {
            if let Some(active) = self.active.get(id) {
                drop(active.job.events.send(Event::Expired));
            }
            self.end(*id, Outcome::Error);
        }
    }

    fn prompt_tokens(&self, step: &Step) -> u32 {
        let of_prompt = |id: &RequestId| self.active.get(id).is_some_and(|active| active.made == 0);
        let tokens: usize = step.work.iter().filter(|work| of_prompt(&work.id)).map(|work| work.count).sum();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Computes a step and draws a token for each request that gets one.
    fn compute(&mut self, step: &Step) -> Result<Vec<Draw>, EngineError> {
        step.ops.iter().try_for_each(|op| self.engine.apply(*op))?;
        let mut rows = Vec::with_capacity(step.tokens());
        // Whose each row is, and what was guessed to follow on it.
        let mut owners: Vec<(RequestId, Option<Token>)> = Vec::with_capacity(step.tokens());
        for work in &step.work {
            let text = self.scheduler.tokens(work.id).iter().skip(work.from).take(work.count);
            let last = work.from + work.count - 1;
            for (at, token) in (work.from..).zip(text.chain(&work.guesses)) {
                let position = u32::try_from(at).unwrap_or(u32::MAX);
                rows.push(Row { sequence: work.sequence, token: *token, position, logits: work.yields && at >= last });
                owners.push((work.id, at.checked_sub(last).and_then(|place| work.guesses.get(place)).copied()));
            }
        }
        let mut drawn = Vec::with_capacity(step.work.len());
        if rows.is_empty() {
            return Ok(drawn);
        }
        let (active, vocabulary) = (&mut self.active, &self.vocabulary);
        // Requests whose last draw was not what was guessed: what was computed after it is of another text.
        let mut missed = BTreeSet::new();
        self.engine.step(&rows, &mut |index, logits| {
            let Some((id, guess)) = owners.get(index).filter(|(id, _)| !missed.contains(id)) else { return };
            let Some(active) = active.get_mut(id) else { return };
            let draw = active.sampler.draw(logits);
            let goes_on = draw.as_ref().is_ok_and(|drawn| Some(drawn.token) == *guess && !vocabulary.ends(drawn.token));
            if !goes_on || active.sampler.is_complete() {
                missed.insert(*id);
            }
            drawn.push((*id, draw));
        })?;
        Ok(drawn)
    }

    fn hand_out(&mut self, id: RequestId, drawn: Result<Drawn, DrawError>) {
        let Some(active) = self.active.get_mut(&id) else { return };
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(error) => {
                drop(active.job.events.send(Event::Failed(error.to_string())));
                return self.end(id, Outcome::Error);
            }
        };
        match active.made {
            0 => self.metrics.first_token(active.job.arrived.elapsed()),
            _ => self.metrics.next_token(active.last_at.elapsed()),
        }
        active.made += 1;
        active.last_at = Instant::now();
        let token = drawn.token;
        let ends = self.vocabulary.ends(token) && !active.job.ignore_end;
        let mut text = if ends { String::new() } else { active.text.push(&self.vocabulary.piece(token)) };
        let said = said(drawn, ends, self.vocabulary.as_ref());
        let stops = ends || active.text.stopped() || active.sampler.is_complete();
        let outcome = match (stops, active.made >= active.job.max_tokens) {
            (true, _) => Outcome::Stop,
            (false, true) => Outcome::Length,
            (false, false) => {
                // A closed channel is noticed at the next turn.
                drop(active.job.events.send(Event::Token { text, said }));
                return self.scheduler.push(id, token);
            }
        };
        text.push_str(&active.text.finish());
        drop(active.job.events.send(Event::Done { text, said, outcome }));
        self.end(id, outcome);
    }

    /// After a failed step: those in it are lost, those waiting go on.
    fn survive(&mut self, error: EngineError) -> Result<(), EngineError> {
        self.failures += 1;
        tracing::error!(%error, failures = self.failures, "a step failed");
        let (lost, ops) = self.scheduler.lose_all();
        for id in lost {
            if let Some(active) = self.active.get(&id) {
                drop(active.job.events.send(Event::Failed(error.to_string())));
            }
            self.end(id, Outcome::Error);
        }
        let emptied = ops.into_iter().try_for_each(|op| self.engine.apply(op));
        if self.failures < ENGINE_FAILURES_MAX && emptied.is_ok() {
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

fn said(drawn: Drawn, ends: bool, vocabulary: &dyn Vocabulary) -> Option<Box<Said>> {
    let odds = drawn.odds?;
    let bytes = if ends { Vec::new() } else { vocabulary.piece(drawn.token) };
    let top = odds.top.into_iter().map(|(token, logprob)| (vocabulary.piece(token), logprob)).collect();
    Some(Box::new(Said { bytes, logprob: odds.logprob, top, entropy: odds.entropy, ends }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_as_much_of_a_prompt_as_the_last_few_had_time_for() {
        let step = |pace: &mut Pace, millis: u64, tokens: usize| pace.learn(Duration::from_millis(millis), tokens);
        let mut pace = Pace::default();
        assert_eq!(pace.budget(), PREFILL_TOKENS_MAX, "nothing known");
        (0..PACE_STEPS).for_each(|_| step(&mut pace, 1000, 100));
        assert_eq!(pace.budget(), 50, "half a second at 10 ms a token");
        (0..PACE_STEPS / 2).for_each(|_| step(&mut pace, 60_000, 100));
        assert_eq!(pace.budget(), 50, "stopped now and then");
        (0..PACE_STEPS).for_each(|_| step(&mut pace, 60_000, 100));
        assert_eq!(pace.budget(), PREFILL_TOKENS_MIN, "slow indeed");
        step(&mut pace, 1, 1);
        (0..PACE_STEPS).for_each(|_| step(&mut pace, 0, 100));
        assert_eq!(pace.budget(), PREFILL_TOKENS_MAX);
    }
}
