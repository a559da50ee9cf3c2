//! Calls to our own components, and the connections to replicas.

use crate::limits;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

/// A pool of connections. Inside the cluster all is plain HTTP; what is said there carries the internal token.
pub type Http = Client<HttpConnector, Full<Bytes>>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address is none.
    #[error("calling {0}: this is no HTTP address")]
    Address(String),
    /// No answer at all.
    #[error("calling {uri}: {problem}")]
    Failed {
        /// Whom.
        uri: String,
        /// What happened.
        problem: String,
    },
    /// Too late.
    #[error("calling {uri}: no answer within {} s", timeout.as_secs_f32())]
    Late {
        /// Whom.
        uri: String,
        /// The patience.
        timeout: Duration,
    },
}

/// A short answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
}

/// A new pool.
pub fn pool() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limits::IDLE_CONNECTION_LIFE)
        .pool_max_idle_per_host(limits::IDLE_CONNECTIONS_PER_HOST)
        .build(connector)
}

/// A GET.
pub fn get(url: &str, token: Option<&Token>) -> Result<Request<Full<Bytes>>, CallError> {
    request(Method::GET, url, token, Bytes::new())
}

/// A POST of JSON.
pub fn post<T: Serialize>(url: &str, token: Option<&Token>, body: &T) -> Result<Request<Full<Bytes>>, CallError> {
    request(Method::POST, url, token, crate::respond::json(body))
}

fn request(method: Method, url: &str, token: Option<&Token>, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
    let mut builder = Request::builder().method(method).uri(url);
    if let Some(token) = token {
        builder = builder.header(header::AUTHORIZATION, token.value.load().as_ref());
    }
    if !body.is_empty() {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    builder.body(Full::new(body)).map_err(|_| CallError::Address(url.to_owned()))
}

/// Sends a request and reads the whole answer, both within `timeout`.
pub async fn call(
    http: &Http,
    request: Request<Full<Bytes>>,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Answer, CallError> {
    let uri = request.uri().to_string();
    let failed = |problem: String| CallError::Failed { uri: uri.clone(), problem };
    let work = async {
        let response = http.request(request).await.map_err(|error| failed(chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok(Answer { status, body })
    };
    let late = |_| Err(CallError::Late { uri: uri.clone(), timeout });
    tokio::time::timeout(timeout, work).await.unwrap_or_else(late)
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The token that our components show each other, from a file that may be replaced while we run.
#[derive(Clone, Debug)]
pub struct Token {
    path: PathBuf,
    value: Arc<ArcSwap<HeaderValue>>,
}

impl Token {
    /// Reads the file.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), value: Arc::new(ArcSwap::from_pointee(header_of(path)?)) })
    }

    /// Reads the file again: the old token was refused.
    pub fn refresh(&self) {
        match header_of(&self.path) {
            Ok(value) => self.value.store(Arc::new(value)),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "reading the internal token again failed")
            }
        }
    }
}

fn header_of(path: &Path) -> io::Result<HeaderValue> {
    let text = fs::read_to_string(path)?;
    if text.trim().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file with the internal token is empty"));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    value.set_sensitive(true);
    Ok(value)
}
