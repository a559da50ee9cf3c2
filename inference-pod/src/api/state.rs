//! What the handlers share.

use super::error::ApiError;
use crate::driver::Message;
use crate::engine::Vocabulary;
use crate::limits::{QUEUE_PER_SLOT, TOKENIZE_PARALLEL};
use crate::metrics::Metrics;
use crate::tokenizer::TokenizerError;
use quartermaster_core::chat::{ChatTemplate, TemplateError};
use quartermaster_core::wire::serve::{ServeConfig, TokenizerBundle};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

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

/// What exists once the model is loaded.
#[derive(Clone)]
pub struct Loaded {
    /// Text ↔ tokens.
    pub vocabulary: Arc<dyn Vocabulary>,
    /// For `GET /tokenizer`, as JSON text.
    pub bundle: Result<Arc<str>, TokenizerError>,
    /// Renders chats.
    pub template: Arc<Result<ChatTemplate, TemplateError>>,
    /// Special tokens, as the bundle has them.
    pub rules: Arc<TokenizerBundle>,
    /// To the driver.
    pub inbox: Sender<Message>,
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
    /// Start of the process, for `created` of the model.
    pub started: jiff::Timestamp,
    loaded: OnceLock<Loaded>,
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
            started: jiff::Timestamp::now(),
            loaded: OnceLock::new(),
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

    /// The model is loaded and warm: from now on requests are served.
    pub fn serve(&self, loaded: Loaded) {
        if self.loaded.set(loaded).is_ok() && self.phase() == Phase::Loading {
            self.enter(Phase::Ready);
        }
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
    /// 503 while loading or after a failure.
    pub fn loaded(&self) -> Result<&Loaded, ApiError> {
        match (self.phase(), self.loaded.get()) {
            (Phase::Ready | Phase::Draining, Some(loaded)) => Ok(loaded),
            (Phase::Failed, _) => Err(ApiError::unavailable("the engine failed; the pod restarts")),
            _ => Err(ApiError::unavailable("the model is still loading")),
        }
    }

    /// The driver's inbox, where there is a driver.
    #[must_use]
    pub fn inbox(&self) -> Option<&Sender<Message>> {
        self.loaded.get().map(|loaded| &loaded.inbox)
    }
}
