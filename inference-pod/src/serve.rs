//! `serve`: wiring, start and drain.
//!
//! The listener is up before the model is loaded, so probes have an answer. The engine has a thread of its own; the
//! HTTP side never computes.

use crate::api::state::{App, Loaded, Phase};
use crate::args::ServeArgs;
use crate::cgroup::Limits;
use crate::driver::{Driver, Message};
use crate::engine::llama::LlamaWeights;
use crate::engine::{Vocabulary, warm_up};
use crate::exit::{Failure, Reason, TerminationLog};
use crate::limits::QUEUE_PER_SLOT;
use crate::metrics::Metrics;
use crate::prepare::{self, Prepared};
use crate::scheduler::Capacity;
use crate::tokenizer;
use crate::{api, config};
use quartermaster_core::chat::{ChatTemplate, TemplateError};
use quartermaster_core::wire::serve::TokenizerBundle;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How often drain looks whether the last request is done.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How long connections may take to close once all requests are answered, and the engine to stop.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Threads for HTTP: it only moves bytes.
const HTTP_THREADS: usize = 2;

/// Serves until a signal or a failure; the failure is in the termination log when this returns.
///
/// # Errors
/// Why it can't serve.
pub fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let log = TerminationLog::new(args.termination_log.clone());
    let result = try_serve(args, &log);
    if let Err(failure) = &result {
        log.write(failure);
    }
    result
}

fn try_serve(args: &ServeArgs, log: &TerminationLog) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let limits = Limits::of_this_process();
    let prepared = prepare::prepare(&config, limits, args.flash_attention)?;
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
    let app = Arc::new(App::new(config, metrics));
    let (ended, engine_end) = oneshot::channel();
    let (engine_app, engine_log) = (Arc::clone(&app), log.clone());
    let engine = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let result = run_engine(&engine_app, prepared, threads, &engine_log);
        drop(ended.send(result));
    });
    engine.map_err(system)?;
    let result = runtime.block_on(run_http(args, app, engine_end));
    runtime.shutdown_timeout(CLOSE_MAX);
    result
}

/// The engine's thread: load, warm up, serve.
fn run_engine(app: &App, prepared: Prepared, threads: usize, log: &TerminationLog) -> Result<(), Failure> {
    let begin = Instant::now();
    let path = prepared.gguf.path.clone();
    let corrupt =
        |problem: String| Failure::new(Reason::CorruptModel, format!("model file {}: {problem}", path.display()));
    // Written ahead: where llama.cpp aborts the process on a broken file, this is all that anybody will read.
    log.write(&corrupt("the engine aborted while it loaded this file; its log says where".into()));
    let weights = LlamaWeights::load(&path).map_err(|error| corrupt(error.to_string()))?;
    let load = prepared.load;
    let failed = |error: crate::engine::EngineError| Failure::new(Reason::EngineFailed, error.to_string());
    let mut engine = weights.engine(load, threads).map_err(failed)?;
    let token = weights.specials().eos.unwrap_or_default();
    let warm = warm_up::run(&mut engine, load.slots, load.context, token).map_err(failed)?;
    log.clear();
    app.metrics.loaded(begin.elapsed(), warm.decode_tokens_per_second);
    let capacity = Capacity {
        slots: load.slots,
        context: load.context,
        kv_tokens: u64::from(load.slots).saturating_mul(load.context.into()),
        queue: usize::try_from(load.slots).unwrap_or(1).saturating_mul(QUEUE_PER_SLOT),
    };
    let vocabulary: Arc<dyn Vocabulary> = Arc::new(weights.clone());
    let (inbox, messages) = channel();
    app.serve(loaded(&prepared, Arc::clone(&vocabulary), inbox));
    // The vocabulary as text is some megabytes, and of no more use.
    drop(prepared);
    tracing::info!(
        variant = app.config.variant,
        threads,
        slots = load.slots,
        seconds = begin.elapsed().as_secs_f64(),
        decode_tokens_per_second = warm.decode_tokens_per_second,
        "ready"
    );
    Driver::new(engine, vocabulary, Arc::clone(&app.metrics), capacity).run(&messages).map_err(failed)
}

fn loaded(prepared: &Prepared, vocabulary: Arc<dyn Vocabulary>, inbox: std::sync::mpsc::Sender<Message>) -> Loaded {
    let specials = vocabulary.specials();
    let bundle = tokenizer::bundle(&prepared.gguf, &specials, prepared.load.context);
    if let Err(error) = &bundle {
        tracing::warn!(%error, "GET /tokenizer will answer 501");
    }
    let rules = bundle.as_ref().map_or_else(|_| rules(prepared, &specials), |bundle| slim(bundle.clone()));
    let template = match &rules.chat_template {
        Some(source) => ChatTemplate::new(source, rules.bos_token.as_deref(), rules.eos_token.as_deref()),
        None => Err(TemplateError::Syntax("the model file has no chat template; use /v1/completions".into())),
    };
    Loaded {
        vocabulary,
        bundle: bundle.map(|bundle| serde_json::json!(bundle).to_string().into()),
        template: Arc::new(template),
        rules: Arc::new(rules),
        inbox,
    }
}

/// The rules without the vocabulary: llama.cpp holds that already.
fn slim(bundle: TokenizerBundle) -> TokenizerBundle {
    TokenizerBundle { tokenizer_json: String::new(), ..bundle }
}

/// The rules of a model whose tokenizer can't be given away.
fn rules(prepared: &Prepared, specials: &tokenizer::Specials) -> TokenizerBundle {
    let tokens = prepared.gguf.list("tokenizer.ggml.tokens").unwrap_or_default();
    let text = |id: Option<i32>| match tokens.get(usize::try_from(id?).ok()?)? {
        crate::gguf::Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    TokenizerBundle {
        hash: String::new(),
        tokenizer_json: String::new(),
        chat_template: prepared.gguf.text("tokenizer.chat_template").map(str::to_owned),
        bos_token: text(specials.bos),
        eos_token: text(specials.eos),
        add_bos: specials.add_bos,
        add_eos: specials.add_eos,
        context_tokens: prepared.load.context,
    }
}

type EngineEnd = oneshot::Receiver<Result<(), Failure>>;

async fn run_http(args: &ServeArgs, app: Arc<App>, mut engine_end: EngineEnd) -> Result<(), Failure> {
    let system = |what: &str, error: std::io::Error| Failure::new(Reason::SystemFailed, format!("{what}: {error}"));
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| system(&format!("listening on {}", args.listen), error))?;
    let address = listener.local_addr().map_err(|error| system("the listener's address", error))?;
    tracing::info!(%address, model = app.config.model, variant = app.config.variant, "listening");
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| system("waiting for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| system("waiting for SIGINT", error))?;
    let (close, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, api::router(Arc::clone(&app))).with_graceful_shutdown(async {
        // An error means that the sender is gone, which is as good a signal.
        drop(closed.await);
    });
    let server = tokio::spawn(std::future::IntoFuture::into_future(server));
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        end = &mut engine_end => Some(engine_failure(end)),
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
    stop_engine(&app, engine_end).await;
    tracing::info!("stopped");
    Ok(())
}

fn engine_failure(end: Result<Result<(), Failure>, oneshot::error::RecvError>) -> Failure {
    match end {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new(Reason::EngineFailed, "the engine stopped by itself"),
        Err(_) => Failure::new(Reason::EngineFailed, "the engine's thread died"),
    }
}

/// Not ready from now on, yet still serving: routers need a moment to see it.
async fn drain(args: &ServeArgs, app: &App) {
    app.enter(Phase::Draining);
    let begin = Instant::now();
    tracing::info!(in_flight = in_flight(app), "draining");
    loop {
        let lingered = begin.elapsed() >= Duration::from_secs(args.linger_seconds);
        if lingered && in_flight(app) == 0 {
            return;
        }
        if begin.elapsed() >= Duration::from_secs(args.drain_seconds) {
            tracing::warn!(in_flight = in_flight(app), "the drain took too long; requests are cut off");
            return;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

fn in_flight(app: &App) -> usize {
    app.places_max().saturating_sub(app.places.available_permits())
}

/// The process must not end while llama.cpp computes: its statics would go away under it.
async fn stop_engine(app: &App, engine_end: EngineEnd) {
    if let Some(inbox) = app.inbox() {
        drop(inbox.send(Message::Stop));
        if tokio::time::timeout(CLOSE_MAX, engine_end).await.is_err() {
            tracing::warn!("the engine did not stop in time");
        }
    }
}
