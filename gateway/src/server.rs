//! Listeners and the end of them.
//!
//! | port | who | runtime |
//! |---|---|---|
//! | public | clients | many threads |
//! | admin | probes and scrapes | one thread of its own: a full gateway still says that it lives |

use crate::app::App;
use crate::limits;
use crate::request;
use crate::respond::{self, Body};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The public listener.
#[derive(Debug)]
pub struct Public {
    tasks: TaskTracker,
    /// No new connections, no new requests on old ones.
    closing: CancellationToken,
    /// Patience is over.
    cutting: CancellationToken,
}

impl Public {
    /// Serves until told to stop.
    pub fn start(app: Arc<App>, listener: TcpListener) -> Self {
        let public =
            Self { tasks: TaskTracker::new(), closing: CancellationToken::new(), cutting: CancellationToken::new() };
        let (tasks, closing, cutting) = (public.tasks.clone(), public.closing.clone(), public.cutting.clone());
        tokio::spawn(accept(app, listener, tasks, closing, cutting));
        public
    }

    /// Finishes what is in flight, at most so long; what is left then is cut off, and its meters settle it.
    pub async fn drain(self, patience: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "cutting off what did not finish in time");
            self.cutting.cancel();
            self.tasks.wait().await;
        }
    }
}

async fn accept(
    app: Arc<App>,
    listener: TcpListener,
    tasks: TaskTracker,
    closing: CancellationToken,
    cutting: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(Arc::clone(&app), stream, closing.clone(), cutting.clone());
                tasks.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: others have to end first.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(app: Arc<App>, stream: TcpStream, closing: CancellationToken, cutting: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(request::serve(app, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection broke");
                }
                return;
            }
            () = closing.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cutting.cancelled() => return,
        }
    }
}

/// Serves probes and metrics on a thread of its own, until the process ends.
pub fn start_admin(app: Arc<App>, address: SocketAddr) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("admin".into()).spawn(move || runtime.block_on(admin(app, listener)))?;
    Ok(address)
}

async fn admin(app: Arc<App>, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener failed");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = admin_page(&app, &request);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "an admin connection broke");
            }
        });
    }
}

fn admin_page(app: &App, request: &Request<Incoming>) -> Response<Body> {
    let get = request.method() == Method::GET;
    match request.uri().path() {
        "/livez" if get => text(StatusCode::OK, "ok"),
        "/readyz" if get => match readiness(app) {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(problem) => text(StatusCode::SERVICE_UNAVAILABLE, problem),
        },
        "/metrics" if get => match app.metrics.page(app.catalogue.age(), app.book.unsettled()) {
            Ok(page) => {
                let mut response = Response::new(respond::full(Bytes::from(page)));
                let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written"),
        },
        _ => text(StatusCode::NOT_FOUND, "GET /livez, /readyz or /metrics"),
    }
}

fn readiness(app: &App) -> Result<(), &'static str> {
    if app.stopping() {
        return Err("stopping");
    }
    app.catalogue.view().map(|_| ()).ok_or("no snapshot yet, neither from the operator nor on disk")
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(respond::full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
