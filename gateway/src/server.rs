//! Listeners and the end of them.
//!
//! | port | who | runtime |
//! |---|---|---|
//! | public | clients | many threads |
//! | admin | probes and scrapes | one thread of its own: a full gateway still says that it lives |

use crate::app::App;
use crate::limits;
use crate::patient::{Patient, Requests};
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
                let app = Arc::clone(&app);
                let (closing, cutting) = (closing.clone(), cutting.clone());
                tasks.spawn(async move {
                    let answer = |request| request::serve(Arc::clone(&app), request);
                    connection(stream, PATIENCE, answer, closing, cutting).await;
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

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Until the headers of its first request are here, whatever protocol it speaks, or hesitates to.
    first_request: Duration,
    /// From the end of an answer until the headers of the next request are here, if no other is in progress.
    next_request: Duration,
    /// Until it takes a piece of an answer.
    write: Duration,
}

const PATIENCE: Patience = Patience {
    first_request: limits::HEADER_TIMEOUT,
    next_request: limits::CONNECTION_IDLE,
    write: limits::CLIENT_STALL,
};

/// Serves one connection to its end, which is an error when the client was too slow.
async fn connection<A>(
    stream: TcpStream,
    patience: Patience,
    answer: impl Fn(Request<Incoming>) -> A,
    closing: CancellationToken,
    cutting: CancellationToken,
) where
    A: Future<Output = Response<Body>> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed");
    }
    let requests = Requests::default();
    let quiet = requests.quiet(patience.first_request, patience.next_request);
    let service = service_fn(|request: Request<Incoming>| {
        let (open, answering) = (requests.open(), answer(request));
        async move { Ok::<_, Infallible>(answering.await.map(|body| open.until_end_of(body))) }
    });
    let builder = protocols();
    let connection = builder.serve_connection(TokioIo::new(Patient::new(stream, patience.write)), service);
    let (mut connection, mut quiet) = (std::pin::pin!(connection), std::pin::pin!(quiet));
    let (mut told, mut counting) = (false, true);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection broke");
                }
                return;
            }
            asked = quiet.as_mut(), if counting => {
                if !asked {
                    tracing::debug!("a client connected and asked nothing");
                    return;
                }
                counting = false;
                // HTTP/2 still answers what comes in this moment.
                connection.as_mut().graceful_shutdown();
            }
            () = closing.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cutting.cancelled() => return,
        }
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Hyper would count the pause between two requests, too, and end it without grace. `Requests` counts both.
    builder.http1().header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::PING_EVERY)
        .keep_alive_timeout(limits::PING_TIMEOUT)
        .max_concurrent_streams(256);
    builder
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);
    /// Until a test gives up.
    const FOREVER: Duration = Duration::from_secs(20);

    /// The path is the milliseconds that the answer takes.
    async fn page(request: Request<Incoming>) -> Response<Body> {
        let wait = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        text(StatusCode::OK, "here")
    }

    /// A client of a server with so much patience.
    async fn client(first_request: Duration, next_request: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let patience = Patience { first_request, next_request, write: LONG };
        tokio::spawn(connection(stream, patience, page, CancellationToken::new(), CancellationToken::new()));
        client
    }

    async fn ask(client: &mut TcpStream, path: &str) {
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"here") {
            assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0, "closed");
        }
    }

    async fn ends(client: &mut TcpStream) -> bool {
        tokio::time::timeout(FOREVER, client.read_to_end(&mut Vec::new())).await.is_ok()
    }

    #[tokio::test]
    async fn who_connects_and_asks_nothing_is_let_go() {
        // Nothing; what may become a POST or HTTP/2; half a header; HTTP/2 without a request.
        for said in ["", "P", "POST / HTTP/1.1\r\nhos", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
            let mut client = client(SHORT, LONG).await;
            client.write_all(said.as_bytes()).await.unwrap();
            assert!(ends(&mut client).await, "still connected after {said:?}");
        }
    }

    #[tokio::test]
    async fn who_has_asked_may_pause_between_requests() {
        let mut client = client(SHORT * 4, LONG).await;
        for pause in [SHORT * 8, Duration::ZERO] {
            ask(&mut client, "/").await;
            tokio::time::sleep(pause).await;
        }
    }

    #[tokio::test]
    async fn who_asks_no_more_is_let_go() {
        // Nothing more, and half a header.
        for said in ["", "GET / HTTP/1.1\r\nhos"] {
            let mut client = client(LONG, SHORT).await;
            ask(&mut client, "/").await;
            let _may_be_late = client.write_all(said.as_bytes()).await;
            assert!(ends(&mut client).await, "still connected after {said:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_is_no_idler() {
        let mut client = client(LONG, SHORT).await;
        ask(&mut client, "/500").await;
        assert!(ends(&mut client).await);
    }

    #[tokio::test]
    async fn an_idle_http2_connection_ends_with_grace() {
        let io = TokioIo::new(client(LONG, SHORT).await);
        let (mut sender, connection) = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://a/500").body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "here");
        // The sender lives on: it is the server that ends it, and not with an error.
        tokio::time::timeout(FOREVER, connection).await.expect("still connected").unwrap().unwrap();
        assert!(sender.is_closed());
    }
}
