//! Start, listen, shut down.

use crate::args::Args;
use crate::auth::Token;
use crate::clock::Clock;
use crate::http::{self, App};
use crate::limits::DRAIN;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::sqlite::SqliteStore;
use crate::writer::Writer;
use anyhow::Context as _;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A ledger that is open and listening, but not serving yet.
pub struct Ledger {
    app: App,
    token: Token,
    api: TcpListener,
    admin: TcpListener,
    writer: JoinHandle<SqliteStore>,
}

impl Ledger {
    /// Opens the database and the sockets.
    pub async fn open(args: &Args, clock: Clock) -> anyhow::Result<Self> {
        let token = Token::read(&args.internal_token_file)?;
        let metrics = Arc::new(Metrics::default());
        let at = || format!("can't open the ledger in `{}`", args.data_dir.display());
        let store = SqliteStore::open(&args.data_dir).with_context(at)?;
        let reader = Reader::open(|| SqliteStore::open_reader(&args.data_dir)).with_context(at)?;
        let api = bind(args.listen).await?;
        let admin = bind(args.admin_listen).await?;
        let (writer, thread) =
            Writer::start(store, clock.clone(), Arc::clone(&metrics)).context("can't start the writer")?;
        let draining = Arc::new(AtomicBool::new(false));
        Ok(Self { app: App { writer, reader, clock, metrics, draining }, token, api, admin, writer: thread })
    }

    /// Where the API and the probes listen.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.api.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until `stop`, then answers what is open, writes what is queued and folds the log.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { app, token, api, admin, writer } = self;
        let (api_address, admin_address) = (api.local_addr()?, admin.local_addr()?);
        tracing::info!(api = %api_address, admin = %admin_address, "listening");
        let (stopped, stopping) = watch::channel(false);
        let draining = Arc::clone(&app.draining);
        let served = tokio::spawn({
            let api = axum::serve(api, http::api(app.clone(), token)).with_graceful_shutdown(until(stopping.clone()));
            let admin = axum::serve(admin, http::admin(app)).with_graceful_shutdown(until(stopping));
            async move { tokio::try_join!(api.into_future(), admin.into_future()) }
        });
        let abort = served.abort_handle();
        tokio::pin!(served);
        tokio::select! {
            ended = &mut served => anyhow::bail!("a listener ended by itself: {ended:?}"),
            () = stop => {}
        }
        tracing::info!("shutting down");
        draining.store(true, Ordering::Relaxed);
        stopped.send_replace(true);
        if tokio::time::timeout(DRAIN, served).await.is_err() {
            tracing::warn!("requests were still open at the end of the drain");
            abort.abort();
        }
        close(writer).await
    }
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The writer ends when its last caller is gone. Connections that outlived the drain hold it open: the process ends
/// without it then, which is no worse than a crash.
async fn close(writer: JoinHandle<SqliteStore>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(move || {
        let mut store = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        store.checkpoint().context("can't fold the log")
    });
    match tokio::time::timeout(DRAIN, joined).await {
        Ok(closed) => closed?,
        Err(_) => anyhow::bail!("the writer did not end in time; what it acknowledged is on disk"),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}
