//! The data plane: every token that a client gets passes here, inside a hold at the ledger.
//!
//! ```text
//! client ─▶ identify ─▶ parse ─▶ wake ─▶ count ─▶ admit ─▶ send ─▶ relay ─▶ client
//!              ▲                   │        ▲       │ ▲      │        │
//!          snapshot (operator) ◀───┘   tokenizer  ledger   replica  meter ─▶ journal ─▶ ledger
//! ```
//!
//! It may not talk to Kubernetes, and it may not serve what no budget pays for. It serves on from its last snapshot when
//! the operator is away, and refuses when the ledger is.
//!
//! Read [`request`] first: it is the order above. Then [`meter`], which settles on every way out, and [`journal`], which
//! does so across a crash.
#![forbid(unsafe_code)]

pub mod admit;
pub mod app;
pub mod args;
pub mod book;
pub mod catalogue;
pub mod client;
pub mod deadline;
pub mod disk;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod meter;
pub mod metrics;
pub mod operator;
pub mod patient;
pub mod request;
pub mod respond;
pub mod server;
pub mod tokenizer;
pub mod upstream;
pub mod waiting;
pub mod wake;

use anyhow::Context;
use app::App;
use args::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where probes connect.
    pub admin: SocketAddr,
    app: Arc<App>,
    listener: server::Public,
    tasks: JoinSet<()>,
}

impl Gateway {
    /// Starts everything; returns once both ports listen.
    pub async fn start(args: &Args) -> anyhow::Result<Self> {
        let app = App::new(args)?;
        operator::restore(&app);
        let admin = server::start_admin(Arc::clone(&app), args.admin_listen);
        let admin = admin.with_context(|| format!("listening on --admin-listen {}", args.admin_listen))?;
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("listening on --listen {}", args.listen))?;
        let public = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(operator::follow(Arc::clone(&app)));
        tasks.spawn(Arc::clone(&app.book).settle_for_ever());
        tasks.spawn(Arc::clone(&app.book).extend_for_ever());
        let listener = server::Public::start(Arc::clone(&app), listener);
        tracing::info!(%public, %admin, "the gateway listens");
        Ok(Self { public, admin, app, listener, tasks })
    }

    /// Fails readiness, waits `lag` until nobody sends here any more, then finishes what is in flight within `patience`.
    pub async fn stop(mut self, lag: Duration, patience: Duration) {
        self.app.stop();
        tokio::time::sleep(lag).await;
        self.listener.drain(patience).await;
        self.app.book.flush(limits::FLUSH_TIMEOUT).await;
        self.tasks.shutdown().await;
        let app = self.app;
        // The journal ends with a write, which blocks.
        let finished = tokio::task::spawn_blocking(move || app.book.finish()).await;
        if let Err(error) = finished {
            tracing::error!(%error, "ending the journal failed");
        }
    }
}
