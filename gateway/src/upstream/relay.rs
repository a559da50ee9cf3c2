//! Passes a stream through, event by event and byte for byte, and meters it on the way.
//!
//! The settlement is on disk before the last event leaves. A client that goes away drops the relay: that settles what was
//! streamed and closes the connection to the replica, which stops generating.

use super::pool::Place;
use super::send::next_piece;
use super::sse::{self, Splitter};
use crate::deadline::{DEADLINE_EXCEEDED, Deadline};
use crate::limits;
use crate::meter::{Meter, UPSTREAM_ERROR};
use crate::metrics::{Held, ModelMetrics};
use crate::patient;
use crate::respond::{Body, Refusal};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// After `[DONE]`, a replica has so long to end its answer; after that the connection is not worth keeping.
const EPILOGUE: Duration = Duration::from_millis(200);

/// What a request occupies until its answer is over.
#[derive(Debug)]
pub struct Occupied {
    /// Its part of the gauge.
    pub in_flight: Held,
    /// Its part of the bound.
    pub permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reading,
    /// All that the client needs is sent; the connection to the replica may be used again once it has ended.
    Epilogue,
    Ended,
}

/// A stream on its way.
#[derive(Debug)]
pub struct Relay {
    first: Option<Bytes>,
    upstream: Incoming,
    splitter: Splitter,
    meter: Meter,
    metrics: Arc<ModelMetrics>,
    strip_usage: bool,
    step: Step,
    deadline: Deadline,
    sent: Option<Instant>,
    _place: Place,
    _occupied: Occupied,
}

/// What the relay needs beside the stream.
#[derive(Debug)]
pub struct Order {
    /// Settles.
    pub meter: Meter,
    /// Observes.
    pub metrics: Arc<ModelMetrics>,
    /// The client did not ask for the chunk with usage.
    pub strip_usage: bool,
    /// The request's.
    pub deadline: Deadline,
    /// The replica's place.
    pub place: Place,
    /// Ours.
    pub occupied: Occupied,
}

/// The stream as a body for the client.
pub fn body(first: Bytes, upstream: Incoming, order: Order) -> Body {
    let Order { meter, metrics, strip_usage, deadline, place, occupied } = order;
    let relay = Relay {
        first: Some(first),
        upstream,
        splitter: Splitter::default(),
        meter,
        metrics,
        strip_usage,
        step: Step::Reading,
        deadline,
        sent: None,
        _place: place,
        _occupied: occupied,
    };
    patient::watched(StreamBody::new(stream::unfold(relay, Relay::next)).boxed_unsync(), limits::CLIENT_STALL)
}

impl Relay {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, io::Error>, Self)> {
        while self.step == Step::Reading {
            let piece = match self.first.take() {
                Some(first) => Ok(Some(first)),
                None => next_piece(&mut self.upstream, limits::IDLE_TIMEOUT.min(self.deadline.left())).await,
            };
            let out = match piece {
                _ if self.deadline.passed() => self.late().await,
                Ok(Some(bytes)) => self.digest(&bytes).await,
                Ok(None) => self.end().await,
                Err(problem) => self.broken(&problem).await,
            };
            if !out.is_empty() {
                self.observe();
                return Some((Ok(Frame::data(out)), self));
            }
        }
        if self.step == Step::Epilogue {
            let rest = async { while let Ok(Some(_)) = next_piece(&mut self.upstream, EPILOGUE).await {} };
            // Ended or not: the client waits for the end of its answer.
            let _ended = tokio::time::timeout(EPILOGUE, rest).await;
        }
        None
    }

    /// Whole events of what has arrived, as they came.
    async fn digest(&mut self, bytes: &[u8]) -> Bytes {
        if let Err(error) = self.splitter.push(bytes) {
            return self.broken(&error.to_string()).await;
        }
        let mut out = Vec::new();
        while let Some(event) = self.splitter.next_event() {
            let chunk = sse::read(&event);
            self.meter.observe(&chunk);
            if chunk.error {
                out.push(self.broken("the engine reports an error").await);
                break;
            }
            if chunk.done {
                self.meter.succeed().await;
                self.step = Step::Epilogue;
                out.push(event);
                break;
            }
            if !(chunk.only_usage && self.strip_usage) {
                out.push(event);
            }
        }
        joined(out)
    }

    /// The replica ended its answer without `[DONE]`.
    async fn end(&mut self) -> Bytes {
        if !self.meter.finished() {
            return self.broken("the stream ended before the answer did").await;
        }
        self.meter.succeed().await;
        self.step = Step::Ended;
        self.splitter.rest().unwrap_or_default()
    }

    /// The client has some of the answer already, so there is no other try: say it in the stream.
    async fn broken(&mut self, problem: &str) -> Bytes {
        tracing::warn!(problem, "a stream broke off");
        let mut refusal = Refusal::upstream();
        refusal.message = "The model's server failed in the midst of the answer. What was sent is charged.".to_owned();
        self.cut(UPSTREAM_ERROR, &refusal).await
    }

    async fn late(&mut self) -> Bytes {
        tracing::info!("a stream is cut off at its deadline");
        self.cut(DEADLINE_EXCEEDED, &self.deadline.refusal()).await
    }

    async fn cut(&mut self, outcome: &str, refusal: &Refusal) -> Bytes {
        self.meter.fail(outcome).await;
        self.step = Step::Ended;
        sse::event(&refusal.json())
    }

    fn observe(&mut self) {
        let now = Instant::now();
        match self.sent.replace(now) {
            None => self.metrics.first_token.observe(self.deadline.elapsed().as_secs_f64()),
            Some(before) => self.metrics.inter_token.observe(now.duration_since(before).as_secs_f64()),
        }
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 | 1 => parts.pop().unwrap_or_default(),
        _ => parts
            .iter()
            .fold(BytesMut::new(), |mut all, part| {
                all.extend_from_slice(part);
                all
            })
            .freeze(),
    }
}
