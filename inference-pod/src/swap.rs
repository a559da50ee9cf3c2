//! From one variant to another without a restart.
//!
//! Where both fit the memory limit, the new one is loaded beside the old: new requests go to it once it is warm, those in
//! flight finish on the old one, whose memory is then given back. Where both don't fit, new requests wait, the old one
//! finishes what it has and goes, and the new one is loaded. Whatever fails, the old one serves again.

use crate::api::state::{App, Loaded, Phase};
use crate::cgroup::Limits;
use crate::engine::thread::{self, Shared, Starting};
use crate::exit::{Failure, Reason};
use crate::limits::SWAP_DRAIN_MAX;
use crate::memory::{Estimate, KvPrecision};
use crate::prepare::{self, Prepared};
use quartermaster_core::wire::serve::ServeConfig;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Longest look at a file by another process.
const CHECK_MAX: Duration = Duration::from_secs(60);
/// How often a drain looks whether the last request is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Why a swap did not take place. The old variant serves on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Another one is under way.
    #[error("another swap is under way, or the variant before still finishes its requests; try again later")]
    Busy,
    /// Nothing is served yet, or no more.
    #[error("the pod is not serving")]
    NotServing,
    /// Not in `serve.json`.
    #[error("there is no variant {0:?}; there are {1}")]
    Unknown(String, String),
    /// It can't be loaded.
    #[error("{0}")]
    Failed(#[from] Failure),
}

/// A swap that took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// From the call until new requests went to the new variant.
    pub took: Duration,
    /// Whether the old one had to go first.
    pub drained: bool,
}

/// The engine that serves, and all it takes to start another.
pub struct Swapper {
    app: Arc<App>,
    shared: Shared,
    limits: Limits,
    kv: KvPrecision,
    state: Mutex<State>,
    /// Ends of engines that were not asked to.
    failures: mpsc::Sender<Failure>,
}

#[derive(Default)]
struct State {
    serving: Option<Serving>,
    /// The variant before, while it finishes its requests.
    retiring: Option<oneshot::Receiver<()>>,
}

impl State {
    fn is_retiring(&mut self) -> bool {
        self.retiring.as_mut().is_some_and(|gone| gone.try_recv() == Err(oneshot::error::TryRecvError::Empty))
    }
}

struct Serving {
    variant: String,
    estimate: Estimate,
    /// Once its memory is free.
    gone: oneshot::Receiver<()>,
}

impl Swapper {
    /// Nothing is loaded yet. What ends an engine before its time goes to `failures`.
    #[must_use]
    pub fn new(
        app: Arc<App>,
        shared: Shared,
        limits: Limits,
        kv: KvPrecision,
        failures: mpsc::Sender<Failure>,
    ) -> Self {
        Self { app, shared, limits, kv, state: Mutex::default(), failures }
    }

    /// Loads the first variant.
    ///
    /// # Errors
    /// Why it can't be served.
    pub async fn begin(&self, prepared: Prepared) -> Result<(), Failure> {
        let mut state = self.state.lock().await;
        let (next, loaded) = self.load(prepared).await?;
        self.serve(&mut state, next, loaded);
        Ok(())
    }

    /// Serves this variant from now on.
    ///
    /// # Errors
    /// Why not; what was served is served still.
    pub async fn to(&self, variant: &str) -> Result<Swapped, SwapError> {
        let config = ServeConfig { variant: variant.to_owned(), ..self.app.config.clone() };
        if config.served().is_none() {
            let names: Vec<&str> = config.variants.iter().map(|file| file.name.as_str()).collect();
            return Err(SwapError::Unknown(variant.to_owned(), names.join(", ")));
        }
        let Ok(mut state) = self.state.try_lock() else { return Err(SwapError::Busy) };
        let begin = Instant::now();
        if state.is_retiring() {
            return Err(SwapError::Busy);
        }
        let Some(old) = state.serving.as_ref().filter(|_| self.app.phase() == Phase::Ready) else {
            return Err(SwapError::NotServing);
        };
        if old.variant == variant {
            return Ok(Swapped { took: Duration::ZERO, drained: false });
        }
        let prepared = self.prepare(config).await?;
        let drained = !self.both_fit(&old.estimate, &prepared.estimate);
        let result = if drained {
            self.one_after_the_other(&mut state, prepared).await
        } else {
            self.side_by_side(&mut state, prepared).await
        };
        self.shared.metrics.swapped(begin.elapsed(), result.is_ok());
        result.map_err(SwapError::Failed)?;
        let took = begin.elapsed();
        tracing::info!(variant, seconds = took.as_secs_f64(), drained, "swapped");
        Ok(Swapped { took, drained })
    }

    /// Whether a swap is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state.try_lock().is_err()
    }

    async fn prepare(&self, config: ServeConfig) -> Result<Prepared, Failure> {
        let (limits, kv) = (self.limits, self.kv);
        let work = tokio::task::spawn_blocking(move || prepare::prepare(&config, limits, kv)).await;
        let work = work.map_err(|error| Failure::new(Reason::SystemFailed, format!("reading the file: {error}")))?;
        let prepared = work?;
        survives(&prepared).await?;
        Ok(prepared)
    }

    /// Whether two models fit the memory limit beside each other. The process itself counts once.
    fn both_fit(&self, old: &Estimate, new: &Estimate) -> bool {
        let together = old.with(new).total_bytes;
        self.app
            .config
            .memory_limit_bytes
            .into_iter()
            .chain(self.limits.memory_bytes)
            .min()
            .is_none_or(|limit| together <= limit)
    }

    async fn side_by_side(&self, state: &mut State, prepared: Prepared) -> Result<(), Failure> {
        let (next, loaded) = self.load(prepared).await?;
        self.serve(state, next, loaded);
        Ok(())
    }

    async fn one_after_the_other(&self, state: &mut State, prepared: Prepared) -> Result<(), Failure> {
        let held = self.app.hold();
        if !self.drained().await {
            let minutes = SWAP_DRAIN_MAX.as_secs() / 60;
            held.into_iter().for_each(|old| self.app.serve(old));
            let message =
                format!("the requests in flight did not end within {minutes} minutes, and both variants don't fit");
            return Err(Failure::new(Reason::SystemFailed, message));
        }
        drop(held);
        let old = state.serving.take();
        let old_variant = old.as_ref().map(|old| old.variant.clone());
        if let Some(old) = old {
            // The thread says so when its memory is free; a sender that is gone says the same.
            drop(old.gone.await);
        }
        let failure = match self.load(prepared).await {
            Ok((next, loaded)) => {
                self.serve(state, next, loaded);
                return Ok(());
            }
            Err(failure) => failure,
        };
        match self.back_to(state, old_variant.as_deref()).await {
            Ok(()) => Err(failure),
            Err(worse) => {
                self.app.enter(Phase::Failed);
                drop(self.failures.try_send(worse.clone()));
                Err(worse)
            }
        }
    }

    async fn back_to(&self, state: &mut State, variant: Option<&str>) -> Result<(), Failure> {
        let missing = || Failure::new(Reason::EngineFailed, "there is no variant to go back to");
        let variant = variant.ok_or_else(missing)?.to_owned();
        let prepared = self.prepare(ServeConfig { variant, ..self.app.config.clone() }).await?;
        let (next, loaded) = self.load(prepared).await?;
        self.serve(state, next, loaded);
        Ok(())
    }

    async fn drained(&self) -> bool {
        let begin = Instant::now();
        while self.app.in_flight() > 0 {
            if begin.elapsed() > SWAP_DRAIN_MAX {
                return false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        true
    }

    async fn load(&self, prepared: Prepared) -> Result<(Serving, Arc<Loaded>), Failure> {
        let (variant, estimate) = (prepared.variant.clone(), prepared.estimate);
        let mut shared = self.shared.clone();
        // Requests are waiting or running: no time to try every way again.
        if let Some(current) = self.app.current() {
            shared.ways = Arc::from([current.way]);
        }
        let Starting { ready, ended } = thread::start(prepared, shared)?;
        let died = || Failure::new(Reason::EngineFailed, "the engine's thread died");
        let loaded = ready.await.map_err(|_| died())??;
        let (say_gone, gone) = oneshot::channel();
        let (failures, app, own) = (self.failures.clone(), Arc::clone(&self.app), Arc::downgrade(&loaded));
        tokio::spawn(async move {
            let end = ended.await.unwrap_or_else(|_| Err(died()));
            let serves =
                app.current().is_some_and(|current| own.upgrade().is_some_and(|own| Arc::ptr_eq(&own, &current)));
            match end {
                Err(failure) if !serves => tracing::error!(%failure, "a variant that was swapped out failed"),
                // Nobody listens any more where the process is ending.
                Err(failure) => drop(failures.send(failure).await),
                Ok(()) => {}
            }
            // A receiver that is gone does not care.
            let _ = say_gone.send(());
        });
        Ok((Serving { variant, estimate, gone }, loaded))
    }

    fn serve(&self, state: &mut State, next: Serving, loaded: Arc<Loaded>) {
        let config = &self.app.config;
        self.shared.metrics.serving(&next.variant, &config.hardware_class, config.slots);
        self.app.serve(loaded);
        state.retiring = state.serving.replace(next).map(|old| old.gone);
    }
}

/// Sees in another process whether llama.cpp aborts on the file: here an abort would take the old variant along.
async fn survives(prepared: &Prepared) -> Result<(), Failure> {
    let path = &prepared.gguf.path;
    let system = |error: std::io::Error| Failure::new(Reason::SystemFailed, format!("checking the file: {error}"));
    let program = std::env::current_exe().map_err(system)?;
    let mut command = tokio::process::Command::new(program);
    command.arg("check").arg("--model").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = tokio::time::timeout(CHECK_MAX, command.kill_on_drop(true).status()).await;
    match status {
        Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
        Ok(Err(error)) => Err(system(error)),
        Ok(Ok(status)) => {
            let message = format!("model file {}: the engine does not survive reading it ({status})", path.display());
            Err(Failure::new(Reason::CorruptModel, message))
        }
        Err(_) => Err(system(std::io::ErrorKind::TimedOut.into())),
    }
}
