//! Counts what one request uses and settles it on every way out: success, upstream error, client abort, deadline,
//! shutdown.
//!
//! The value is the guard: dropping it settles. Nobody can forget to.

use crate::book::Book;
use crate::catalogue::Model;
use crate::deadline::{DEADLINE_EXCEEDED, Deadline};
use crate::journal::Closing;
use crate::limits;
use crate::metrics::{Held, Metrics, Used};
use crate::tokenizer::Counter;
use crate::upstream::sse::{Chunk, Usage};
use quartermaster_core::units::{NanoUsd, Tokens};
use quartermaster_core::wire::gateway::Endpoint;
use quartermaster_core::wire::ledger::{self, Amount, Settle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The ledger may hold something already.
    Reserving,
    /// The ledger holds; no replica has seen the request.
    Held,
    /// A replica works on it.
    Sent,
    /// Settled.
    Closed,
}

/// One attempt at the ledger, from the moment before it reserves.
#[derive(Debug)]
pub struct Meter {
    book: Arc<Book>,
    metrics: Arc<Metrics>,
    model: Arc<Model>,
    stopping: Arc<AtomicBool>,
    deadline: Deadline,
    counter: Arc<Counter>,
    attempt: String,
    subject: String,
    phase: Phase,
    started: Instant,
    prompt: Tokens,
    held: Tokens,
    in_flight: Option<Held>,
    opened: Option<oneshot::Receiver<bool>>,
    served_by: Option<(String, String)>,
    pieces: u64,
    text: String,
    usage: Option<Usage>,
    finish: Option<String>,
}

/// What a meter needs of its surroundings.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Where it settles.
    pub book: Arc<Book>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Set while the gateway stops.
    pub stopping: Arc<AtomicBool>,
    /// The request's.
    pub deadline: Deadline,
}

impl Meter {
    /// Before the reservation: from here on, dropping it gives back whatever the ledger holds.
    pub fn new(
        setting: Setting,
        model: Arc<Model>,
        counter: Arc<Counter>,
        subject: &str,
        attempt: String,
        prompt: Tokens,
    ) -> Self {
        let Setting { book, metrics, stopping, deadline } = setting;
        Self {
            book,
            metrics,
            model,
            stopping,
            deadline,
            counter,
            attempt,
            subject: subject.to_owned(),
            phase: Phase::Reserving,
            started: Instant::now(),
            prompt,
            held: Tokens::ZERO,
            in_flight: None,
            opened: None,
            served_by: None,
            pieces: 0,
            text: String::new(),
            usage: None,
            finish: None,
        }
    }

    /// The ledger said no: there is nothing to give back.
    pub fn refused(mut self) {
        self.phase = Phase::Closed;
    }

    /// The ledger holds so much. If this process is killed, all of it counts as used.
    pub fn held(&mut self, held: Tokens) {
        self.held = held;
        self.phase = Phase::Held;
        let gauge = &self.model.metrics.tokens_in_flight;
        self.in_flight = Some(Held::new(gauge, i64::try_from(held.0).unwrap_or(i64::MAX)));
        let unknown = self.prompt;
        let in_full = self.settle(unknown, Tokens::ZERO, held.saturating_sub(unknown), "gateway_crash");
        self.opened = Some(self.book.open(Closing::Settle(in_full)));
    }

    /// Returns when a kill of this process can't make the hold forgotten: before the client gets its first byte.
    pub async fn opened(&mut self) {
        if let Some(opened) = self.opened.take() {
            // Not written: the ledger's lease has to do. The journal has logged and counted it.
            let _written = opened.await;
        }
    }

    /// A replica gets the request now.
    pub fn sent(&mut self, endpoint: &Endpoint) {
        self.phase = Phase::Sent;
        self.served_by = Some((endpoint.variant.clone(), endpoint.hardware_class.clone()));
    }

    /// The replica failed before it gave anything: another try starts from nothing.
    pub fn unsent(&mut self) {
        self.phase = Phase::Held;
        (self.pieces, self.usage, self.finish) = (0, None, None);
        self.text.clear();
    }

    /// Something came from the engine.
    pub fn observe(&mut self, chunk: &Chunk) {
        self.pieces = self.pieces.saturating_add(chunk.pieces);
        if self.text.len().saturating_add(chunk.text.len()) <= limits::RECOUNT_BYTES_MAX {
            self.text.push_str(&chunk.text);
        }
        self.usage = chunk.usage.or(self.usage);
        if chunk.finish.is_some() {
            self.finish.clone_from(&chunk.finish);
        }
    }

    /// Whether the engine has said why it stopped.
    pub fn finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the client has been given anything to pay for.
    pub fn has_output(&self) -> bool {
        self.pieces > 0
    }

    /// The answer is whole. Returns when the settlement is on disk.
    pub async fn succeed(&mut self) {
        if let Some(usage) = self.usage
            && usage.prompt_tokens != self.prompt.0
        {
            self.model.metrics.mismatch.inc();
            tracing::warn!(
                model = self.model.id, ours = %self.prompt, engine = usage.prompt_tokens,
                "the engine counts the prompt otherwise than the gateway"
            );
        }
        let outcome = self.finish.clone().unwrap_or_else(|| "stop".to_owned());
        self.close(&outcome).await;
    }

    /// The replica failed. What it gave is charged; nothing given, nothing charged.
    pub async fn fail(&mut self, outcome: &str) {
        self.close(outcome).await;
    }

    fn close(&mut self, outcome: &str) -> impl Future<Output = ()> + Send + use<> {
        let closing = self.closing(outcome);
        let written = closing.map(|closing| self.book.close(closing));
        async move {
            if let Some(written) = written {
                written.await;
            }
        }
    }

    /// The settlement, once.
    fn closing(&mut self, outcome: &str) -> Option<Closing> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        self.in_flight = None;
        match phase {
            Phase::Closed => None,
            Phase::Reserving => Some(Closing::Release(self.attempt.clone())),
            Phase::Held => Some(self.settled(Tokens::ZERO, Tokens::ZERO, Tokens::ZERO, outcome)),
            Phase::Sent => {
                let (prompt, cached, completion) = self.used(outcome);
                Some(self.settled(prompt, cached, completion, outcome))
            }
        }
    }

    /// What was used, from the engine where it says so, else from what came through here.
    fn used(&self, outcome: &str) -> (Tokens, Tokens, Tokens) {
        if let Some(usage) = self.usage {
            return (Tokens(usage.prompt_tokens), Tokens(usage.cached()), Tokens(usage.completion_tokens));
        }
        if outcome == UPSTREAM_ERROR && self.pieces == 0 {
            return Default::default();
        }
        // A piece is a token at least; the text tells where the engine sends several at once.
        let recount = self.counter.text(&self.text).unwrap_or_default();
        let room = self.held.saturating_sub(self.prompt);
        (self.prompt, Tokens::ZERO, Tokens(self.pieces).max(recount).min(room))
    }

    fn settled(&self, prompt: Tokens, cached: Tokens, completion: Tokens, outcome: &str) -> Closing {
        let settle = self.settle(prompt, cached, completion, outcome);
        let route = &self.model.route;
        self.metrics.tokens(&route.namespace, &route.name, &self.subject, Used { prompt, completion });
        if settle.actual.tokens > self.held {
            self.model.metrics.overrun.inc();
        }
        tracing::info!(
            request = self.attempt,
            subject = self.subject,
            model = self.model.id,
            variant = settle.usage.variant,
            prompt = prompt.0,
            completion = completion.0,
            held = self.held.0,
            outcome,
            ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "settled"
        );
        Closing::Settle(settle)
    }

    fn settle(&self, prompt: Tokens, cached: Tokens, completion: Tokens, outcome: &str) -> Settle {
        let (variant, hardware_class) = self.served_by.clone().unwrap_or_default();
        let usage = ledger::Usage {
            subject: self.subject.clone(),
            namespace: self.model.route.namespace.clone(),
            model: self.model.route.name.clone(),
            variant,
            hardware_class,
            prompt,
            cached,
            completion,
            outcome: outcome.to_owned(),
        };
        let actual = Amount { tokens: prompt.saturating_add(completion), nano_usd: NanoUsd::ZERO };
        Settle { attempt: self.attempt.clone(), actual, usage }
    }
}

/// Outcome of an attempt whose replica failed.
pub const UPSTREAM_ERROR: &str = "upstream_error";

impl Drop for Meter {
    fn drop(&mut self) {
        let stopping = self.stopping.load(Ordering::Relaxed);
        let outcome = match (self.deadline.passed(), stopping) {
            (true, _) => DEADLINE_EXCEEDED,
            (false, true) => "gateway_shutdown",
            (false, false) => "client_gone",
        };
        if let Some(closing) = self.closing(outcome) {
            self.book.close_detached(closing);
        }
    }
}
