//! Wiring: watches, leader, planner, press, servers, and the order in which they stop.

use crate::args::Args;
use crate::build::Settings;
use crate::gateway::Press;
use crate::leader::{self, Claim, Elector};
use crate::ledger::{self, Ledger};
use crate::limits;
use crate::metrics::Metrics;
use crate::planner::{Planner, Tools};
use crate::server::admin::{Debug, Pages};
use crate::server::internal::Desk;
use crate::server::{self, admin, internal};
use crate::state::informers::{self, Shared};
use crate::telemetry::{Source, prometheus};
use kube::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No token, no internal API.
    #[error("reading --internal-token-file {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An empty token would let everybody in.
    #[error("reading --internal-token-file {}: it is empty", .0.display())]
    EmptyToken(PathBuf),
    /// Neither in a cluster nor with a kubeconfig.
    #[error("connecting to Kubernetes: run in a pod or set KUBECONFIG")]
    Kubernetes(#[source] Box<kube::Error>),
    /// The HTTP client.
    #[error("making the HTTP client")]
    Http(#[source] reqwest::Error),
    /// The ledger's address.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// Prometheus' address.
    #[error(transparent)]
    Prometheus(#[from] prometheus::Error),
    /// A server.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// Signals of the operating system.
    #[error("listening for SIGTERM")]
    Signal(#[source] std::io::Error),
    /// A part ended that never should.
    #[error("a part of the operator ended unexpectedly")]
    Ended,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: Args) -> Result<(), Error> {
    let token = token(&args.internal_token_file)?;
    let client = Client::try_default().await.map_err(|source| Error::Kubernetes(Box::new(source)))?;
    let http =
        reqwest::Client::builder().no_proxy().connect_timeout(limits::SCRAPE_TIMEOUT).build().map_err(Error::Http)?;
    let ledger =
        args.ledger_url.as_deref().map(|url| Ledger::new(http.clone(), url, Arc::clone(&token))).transpose()?;
    let signals = match &args.prometheus_url {
        Some(url) => Source::Prometheus(Box::new(prometheus::client(http.clone(), url)?)),
        None => Source::Direct(args.gateway_metrics_url.iter().filter(|url| !url.is_empty()).cloned().collect()),
    };
    let (shared, claim, metrics, debug) =
        (Shared::default(), Claim::default(), Arc::new(Metrics::default()), Debug::default());
    let press = Press::new(shared.clone(), claim.clone());
    let (wake, wakes) = mpsc::channel(limits::WAKES_MAX);
    let tick = Duration::from_secs(u64::from(args.tick_seconds));
    let identity = args.identity.clone().unwrap_or_default();
    let identity =
        format!("{}{}", if identity.is_empty() { String::new() } else { format!("{identity}_") }, uuid::Uuid::new_v4());
    let pages = Pages {
        claim: claim.clone(),
        shared: shared.clone(),
        metrics: Arc::clone(&metrics),
        debug: debug.clone(),
        tick,
    };
    let desk =
        Desk { token: Arc::clone(&token), published: press.subscribe(), wakes: wake, patience: limits::LONG_POLL };
    let elector = Elector::new(client.clone(), &args.namespace, identity.clone(), claim.clone());
    let tools = Tools {
        client: client.clone(),
        http,
        ledger,
        signals,
        settings: settings(&args, &token),
        namespace: args.namespace,
        identity,
        tick,
        shared: shared.clone(),
        claim,
        press: press.clone(),
        metrics,
        debug,
    };
    let admin = server::bind(args.listen).await?;
    let internal = server::bind(args.internal_listen).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    informers::spawn(&client, &shared, &stop, &mut tasks);
    tasks.spawn(serving(server::serve(admin, admin::router(pages), stop.clone())));
    tasks.spawn(serving(server::serve(internal, internal::router(desk), stop.clone())));
    tasks.spawn(press.run(stop.clone()));
    tasks.spawn(Planner::new(tools).run(wakes, stop.clone()));
    tasks.spawn(leader::run(elector, stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "operator runs");
    wait(tasks, stop).await
}

fn settings(args: &Args, token: &str) -> Settings {
    Settings {
        inference_image: args.inference_image.clone(),
        pull_policy: args.image_pull_policy.clone(),
        pull_secrets: args.image_pull_secrets.iter().filter(|name| !name.is_empty()).cloned().collect(),
        sources_secret: args.sources_secret.clone(),
        scrapers: args.network_policies.then(|| args.scrapers.0.clone()),
        admin_secret: token.as_bytes().to_vec(),
    }
}

async fn serving(server: impl Future<Output = Result<(), server::Error>>) {
    if let Err(error) = server.await {
        tracing::error!(error = %crate::error::chain(&error), "server");
    }
}

/// Waits for a signal, or for a part that ends by itself; then stops the rest and gives the lease back.
async fn wait(mut tasks: JoinSet<()>, stop: CancellationToken) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = tasks.join_next() => Err(Error::Ended),
    };
    tracing::info!("stopping");
    stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits::SHUTDOWN + limits::LEASE_TIMEOUT, ended).await.is_err() {
        tracing::warn!("some parts did not stop in time");
    }
    result
}

fn token(path: &PathBuf) -> Result<Arc<str>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Token { path: path.clone(), source })?;
    match text.trim() {
        "" => Err(Error::EmptyToken(path.clone())),
        token => Ok(token.into()),
    }
}
