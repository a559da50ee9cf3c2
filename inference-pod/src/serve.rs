//! `serve`: wiring, start and drain.
//!
//! The listener is up before the model is loaded, so probes have an answer. The engine has a thread of its own; the
//! HTTP side never computes.

use crate::api::admin::Admin;
use crate::api::state::{App, Phase};
use crate::args::ServeArgs;
use crate::cgroup::Limits;
use crate::driver::Message;
use crate::engine::thread::Shared;
use crate::exit::{Failure, Reason, TerminationLog};
use crate::kv::Sharing;
use crate::memory::KvPrecision;
use crate::metrics::Metrics;
use crate::prepare::{self, Prepared};
use crate::profile::{Store, WAYS, Way};
use crate::swap::Swapper;
use crate::{api, config};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// How often drain looks whether the last request is done.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How long connections may take to close once all requests are answered, and the engine to stop.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Failures that wait to be read: the first one ends the process.
const FAILURES_KEPT: usize = 4;
/// Threads for HTTP: it only moves bytes.
const HTTP_THREADS: usize = 2;

/// Serves until a signal or a failure; the failure is in the termination log when this returns.
///
/// # Errors
/// Why it can't serve.
pub fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let log = TerminationLog::new(args.termination_log.clone());
    let result = try_serve(args, &log);
    // Told to end while it loaded: what was written ahead of an abort is not true.
    log.end(result.as_ref().err());
    result
}

fn try_serve(args: &ServeArgs, log: &TerminationLog) -> Result<(), Failure> {
    open_files();
    let config = config::load(&args.config)?;
    let limits = Limits::of_this_process();
    let prepared = prepare::prepare(&config, limits, args.kv_precision)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let asked = config.threads.and_then(|threads| usize::try_from(threads).ok());
    let threads = asked.unwrap_or_else(|| limits.threads(cores));
    let system = |error: std::io::Error| Failure::new(Reason::SystemFailed, format!("starting the runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS.min(cores))
        .enable_all()
        .build()
        .map_err(system)?;
    let metrics = Arc::new(Metrics::new(&config.model));
    metrics.serving(&config.variant, &config.hardware_class, config.slots);
    let app = Arc::new(App::new(config, Arc::clone(&metrics)));
    let (say_failed, failures) = mpsc::channel(FAILURES_KEPT);
    let ways = WAYS.into_iter().filter(|(flash, sharing)| {
        let quantised = args.kv_precision != KvPrecision::F16;
        args.flash_attention.allows(*flash)
            && (*flash || !quantised)
            && args.unified_kv.allows(*sharing == Sharing::Cells)
    });
    let ways: Arc<[Way]> = ways.collect();
    if ways.is_empty() {
        return Err(Failure::new(
            Reason::BadConfig,
            "--unified-kv on and --kv-precision q8_0 need flash attention: --flash-attention auto or on",
        ));
    }
    let profiles = Store::new(args.profile_folder.clone());
    let draft_tokens = args.draft_tokens;
    let shared = Shared { metrics, log: log.clone(), threads, ways, profiles, draft_tokens };
    let swapper = Swapper::new(Arc::clone(&app), shared, limits, args.kv_precision, say_failed.clone());
    let result = runtime.block_on(run_http(args, app, Arc::new(swapper), prepared, (say_failed, failures)));
    runtime.shutdown_timeout(CLOSE_MAX);
    result
}

/// A connection is a file: as many as the system allows.
fn open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, most)| if soft < most { setrlimit(Resource::RLIMIT_NOFILE, most, most) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

type Failures = (mpsc::Sender<Failure>, mpsc::Receiver<Failure>);

/// Loads the first variant beside the listener, so that probes have an answer meanwhile.
fn load_first(swapper: Arc<Swapper>, prepared: Prepared, failures: mpsc::Sender<Failure>) {
    tokio::spawn(async move {
        match swapper.begin(prepared).await {
            Ok(()) => tracing::info!("ready"),
            // Nobody listens any more where the process is ending.
            Err(failure) => drop(failures.send(failure).await),
        }
    });
}

async fn run_http(
    args: &ServeArgs,
    app: Arc<App>,
    swapper: Arc<Swapper>,
    prepared: Prepared,
    (say_failed, mut failures): Failures,
) -> Result<(), Failure> {
    let system = |what: &str, error: std::io::Error| Failure::new(Reason::SystemFailed, format!("{what}: {error}"));
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| system(&format!("listening on {}", args.listen), error))?;
    let address = listener.local_addr().map_err(|error| system("the listener's address", error))?;
    tracing::info!(%address, model = app.config.model, variant = app.config.variant, "listening");
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| system("waiting for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| system("waiting for SIGINT", error))?;
    let (close, closed) = oneshot::channel::<()>();
    load_first(Arc::clone(&swapper), prepared, say_failed);
    let admin = args.admin_token_sha256.map(|token_sha256| Admin { token_sha256, swapper });
    let server = axum::serve(listener, api::router(Arc::clone(&app), admin)).with_graceful_shutdown(async {
        // An error means that the sender is gone, which is as good a signal.
        drop(closed.await);
    });
    let server = tokio::spawn(std::future::IntoFuture::into_future(server));
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = failures.recv() => failure,
    };
    match &failure {
        Some(_) => app.enter(Phase::Failed),
        None => drain(args, &app).await,
    }
    drop(close);
    drop(tokio::time::timeout(CLOSE_MAX, server).await);
    if let Some(failure) = failure {
        return Err(failure);
    }
    stop_engine(&app).await;
    tracing::info!("stopped");
    Ok(())
}

/// Not ready from now on, yet still serving: routers need a moment to see it.
async fn drain(args: &ServeArgs, app: &App) {
    app.enter(Phase::Draining);
    let begin = Instant::now();
    tracing::info!(in_flight = app.in_flight(), "draining");
    loop {
        let lingered = begin.elapsed() >= Duration::from_secs(args.linger_seconds);
        if lingered && app.in_flight() == 0 {
            return;
        }
        if begin.elapsed() >= Duration::from_secs(args.drain_seconds) {
            tracing::warn!(in_flight = app.in_flight(), "the drain took too long; requests are cut off");
            return;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

/// The process must not end while llama.cpp computes: its statics would go away under it.
async fn stop_engine(app: &App) {
    let Some(current) = app.hold() else { return };
    drop(current.inbox.send(Message::Stop));
    let stopped = async {
        while Arc::strong_count(&current.vocabulary) > 1 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    if tokio::time::timeout(CLOSE_MAX, stopped).await.is_err() {
        tracing::warn!("the engine did not stop in time");
    }
}
