//! What the handlers share.

use super::cancel::Running;
use super::error::ApiError;
use super::form::Forms;
use crate::driver::Message;
use crate::engine::Vocabulary;
use crate::engine::embed::Embedder;
use crate::limits::{QUEUE_PER_SLOT, SWAP_WAIT_MAX, TOKENIZE_PARALLEL};
use crate::metrics::Metrics;
use crate::profile::Way;
use crate::tokenizer::TokenizerError;
use quartermaster_core::chat::{ChatTemplate, TemplateError};
use quartermaster_core::wire::serve::{ServeConfig, TokenizerBundle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use tokio::sync::{Semaphore, watch};

/// Where the pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The model is not there yet.
    Loading,
    /// Serving.
    Ready,
    /// Finishes what it has, takes nothing new to be routed here.
    Draining,
    /// The engine is gone.
    Failed,
}

/// A variant that is loaded. Its engine ends when the last of these is gone and its last request is done.
pub struct Loaded {
    /// Its name.
    pub variant: String,
    /// How its cache is held.
    pub way: Way,
    /// Text ↔ tokens.
    pub vocabulary: Arc<dyn Vocabulary>,
    /// For `GET /tokenizer`, as JSON text.
    pub bundle: Result<Arc<str>, TokenizerError>,
    /// Renders chats.
    pub template: Arc<Result<ChatTemplate, TemplateError>>,
    /// Special tokens, as the bundle has them.
    pub rules: Arc<TokenizerBundle>,
    /// Embeds texts, where memory allows. It is gone before the inbox is: the engine's end frees all memory.
    pub embedder: Option<Embedder>,
    /// To the driver.
    pub inbox: Sender<Message>,
    /// Makes constraints, once the first request asks for one.
    pub forms: Forms,
}

/// State of the server.
pub struct App {
    /// What is served.
    pub config: ServeConfig,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// A permit for each request that runs or waits.
    pub places: Arc<Semaphore>,
    /// A permit for each tokenization.
    pub tokenizing: Semaphore,
    /// Answers under way, by their ids.
    pub running: Arc<Running>,
    /// Start of the process, for `created` of the model.
    pub started: jiff::Timestamp,
    /// Served from; none while loading, and while one variant must go before the next has room.
    loaded: watch::Sender<Option<Arc<Loaded>>>,
    phase: AtomicU8,
}

impl App {
    /// The state before the model is loaded.
    #[must_use]
    pub fn new(config: ServeConfig, metrics: Arc<Metrics>) -> Self {
        let slots = usize::try_from(config.slots).unwrap_or(1);
        Self {
            places: Arc::new(Semaphore::new(slots.saturating_mul(QUEUE_PER_SLOT + 1))),
            tokenizing: Semaphore::new(TOKENIZE_PARALLEL),
            running: Arc::default(),
            started: jiff::Timestamp::now(),
            loaded: watch::Sender::new(None),
            phase: AtomicU8::new(0),
            config,
            metrics,
        }
    }

    /// Requests that may run or wait at once.
    #[must_use]
    pub fn places_max(&self) -> usize {
        usize::try_from(self.config.slots).unwrap_or(1).saturating_mul(QUEUE_PER_SLOT + 1)
    }

    /// A variant is loaded and warm: from now on new requests go to it.
    pub fn serve(&self, loaded: Arc<Loaded>) {
        self.loaded.send_replace(Some(loaded));
        if self.phase() == Phase::Loading {
            self.enter(Phase::Ready);
        }
    }

    /// New requests wait until [`App::serve`] is called again. Gives what was served.
    pub fn hold(&self) -> Option<Arc<Loaded>> {
        self.loaded.send_replace(None)
    }

    /// Changes the phase.
    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Loading => 0,
            Phase::Ready => 1,
            Phase::Draining => 2,
            Phase::Failed => 3,
        };
        self.phase.store(number, Ordering::Release);
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Ready,
            2 => Phase::Draining,
            _ => Phase::Failed,
        }
    }

    /// The model. While draining too: a request that was routed here before its router knew is served, not lost.
    ///
    /// # Errors
    /// 503 while loading or after a failure, or where a swap takes too long.
    pub async fn loaded(&self) -> Result<Arc<Loaded>, ApiError> {
        match self.phase() {
            Phase::Ready | Phase::Draining => {}
            Phase::Failed => return Err(ApiError::unavailable("the engine failed; the pod restarts")),
            Phase::Loading => return Err(ApiError::unavailable("the model is still loading")),
        }
        let mut changes = self.loaded.subscribe();
        let loaded = tokio::time::timeout(SWAP_WAIT_MAX, changes.wait_for(Option::is_some)).await;
        let loaded = loaded.ok().and_then(Result::ok).and_then(|loaded| loaded.clone());
        loaded.ok_or_else(|| ApiError::unavailable("the swap to another variant takes too long"))
    }

    /// What is served right now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Loaded>> {
        self.loaded.borrow().clone()
    }

    /// Requests that run or wait.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.places_max().saturating_sub(self.places.available_permits())
    }
}
