//! The web: clients, ranges, and what a refusal means.

use super::error::{chain, without_queries};
use super::oci::Registry;
use super::remote::{Facts, Part, Remote};
use super::{Digest, Kind, Result, SourceError};
use crate::limits::{
    CA_BYTES_MAX, FETCH_CONNECT_MAX, FETCH_SILENCE_MAX, REDIRECTS_MAX, REFUSAL_BYTES_MAX, REFUSAL_LETTERS_MAX,
};
use futures::{StreamExt, TryStreamExt};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE};
use http::header::{ETAG, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Response, Url};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const USER_AGENT: &str = concat!("quartermaster/", env!("CARGO_PKG_VERSION"));

/// Clients that trust the same certificates.
#[derive(Clone, Debug)]
pub(super) struct Http {
    /// Follows redirects.
    pub(super) follows: Client,
    /// Does not.
    pub(super) stays: Client,
}

/// What to do about a refusal.
#[derive(Clone, Debug)]
pub(super) struct Advice {
    /// Credentials are missing or don't suffice.
    pub(super) denied: String,
    /// Nothing is there.
    pub(super) missing: String,
}

/// How requests are let in.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// As anybody.
    Open,
    /// With this header.
    Header(HeaderValue),
    /// As a registry asks for.
    Registry(Arc<Registry>),
}

/// A file on the web.
#[derive(Clone, Debug)]
pub(super) struct WebFile {
    /// How errors and logs call it.
    pub(super) place: String,
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) access: Access,
    pub(super) advice: Advice,
}

impl Http {
    /// Clients that trust the system's certificates and those of a file.
    ///
    /// # Errors
    /// `Malformed`: the file is missing or holds no certificates.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self> {
        let pem = ca_file.map(read_ca).transpose()?.unwrap_or_default();
        let build = |policy| {
            let builder = Client::builder().user_agent(USER_AGENT).redirect(policy);
            let builder = builder.connect_timeout(FETCH_CONNECT_MAX).read_timeout(FETCH_SILENCE_MAX);
            let certificates = Certificate::from_pem_bundle(&pem)?;
            builder.tls_certs_merge(certificates).build()
        };
        let failed = |error: reqwest::Error| {
            let place = ca_file.map_or_else(|| "TLS".to_owned(), |path| path.display().to_string());
            let fix = "give CA certificates in PEM by --ca-file (QM_CA_FILE), or install ca-certificates";
            SourceError::new(Kind::Malformed, place, chain(&error), fix)
        };
        Ok(Self {
            follows: build(Policy::custom(redirect)).map_err(failed)?,
            stays: build(Policy::none()).map_err(failed)?,
        })
    }
}

/// The CA certificates of a file.
pub(super) fn read_ca(path: &Path) -> Result<Vec<u8>> {
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(CA_BYTES_MAX).read_to_end(&mut pem));
    read.map(|_| pem).map_err(|error| {
        let fix = "name a file of CA certificates in PEM by --ca-file (QM_CA_FILE)";
        SourceError::new(Kind::Malformed, path.display().to_string(), error.to_string(), fix)
    })
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let secure = |url: &Url| url.scheme() == "https";
    let downgraded = attempt.previous().last().is_some_and(secure) && !secure(attempt.url());
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if downgraded {
        attempt.error("a redirect to a URL without TLS")
    } else {
        attempt.follow()
    }
}

impl WebFile {
    /// What the server says of the file. It is asked for one byte, since many signed URLs take no HEAD.
    pub(super) async fn probe(self) -> Result<(Remote, Facts)> {
        let response = self.get(Some(HeaderValue::from_static("bytes=0-0")), None).await?;
        let (status, headers) = (response.status(), response.headers());
        let bytes = match status {
            StatusCode::PARTIAL_CONTENT => content_range(headers).and_then(|(_, total)| total),
            StatusCode::OK => response.content_length(),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.error(Kind::WrongContent, "the file is empty")),
            _ => return Err(refusal(&self.place, response, &self.advice).await),
        };
        self.check_encoding(headers)?;
        let facts = Facts { bytes, digest: None, validator: validator(headers) };
        Ok((Remote::Web(self), facts))
    }

    /// Reads from `from` to the end.
    pub(super) async fn open(&self, from: u64, facts: &Facts) -> Result<Part> {
        let rest = (from > 0).then(|| HeaderValue::try_from(format!("bytes={from}-")).ok()).flatten();
        // A weak ETag may not stand there. Where the hash is known, it decides.
        let strong = facts.validator.as_deref().filter(|text| facts.digest.is_none() && !text.starts_with("W/"));
        let condition = rest.as_ref().and(strong).and_then(|text| HeaderValue::from_str(text).ok());
        let response = self.get(rest, condition).await?;
        let headers = response.headers();
        let (start, total) = match response.status() {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT => content_range(headers)
                .filter(|(start, _)| *start == from)
                .ok_or_else(|| self.error(Kind::WrongContent, "the server sent another part than it was asked for"))?,
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.error(Kind::Changed, "the file became shorter")),
            _ => return Err(refusal(&self.place, response, &self.advice).await),
        };
        self.check_encoding(headers)?;
        let other_length = facts.bytes.is_some() && total.is_some() && facts.bytes != total;
        let now = validator(headers);
        let other_version =
            facts.digest.is_none() && now.is_some() && facts.validator.is_some() && now != facts.validator;
        if other_length || other_version {
            return Err(self.error(Kind::Changed, "the file changed while it was fetched"));
        }
        let place = self.place.clone();
        let stream = response.bytes_stream();
        let stream = stream.map_err(move |error| SourceError::network(place.as_str(), &error.without_url())).boxed();
        Ok(Part { from: start, stream })
    }

    async fn get(&self, range: Option<HeaderValue>, if_range: Option<HeaderValue>) -> Result<Response> {
        let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        headers.extend(range.map(|value| (RANGE, value)).into_iter().chain(if_range.map(|value| (IF_RANGE, value))));
        match &self.access {
            Access::Registry(registry) => return registry.get(self.url.clone(), headers).await,
            Access::Header(value) => headers.extend([(AUTHORIZATION, value.clone())]),
            Access::Open => {}
        }
        let sent = self.client.get(self.url.clone()).headers(headers).send().await;
        sent.map_err(|error| SourceError::network(self.place.as_str(), &error.without_url()))
    }

    fn check_encoding(&self, headers: &HeaderMap) -> Result<()> {
        let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
        plain.then_some(()).ok_or_else(|| self.error(Kind::WrongContent, "the server compresses the file on the way"))
    }

    fn error(&self, kind: Kind, what: &str) -> SourceError {
        SourceError::new(kind, self.place.as_str(), what, "check the server, and that the source names a model file")
    }
}

/// What a server's refusal means.
pub(super) async fn refusal(place: &str, response: Response, advice: &Advice) -> SourceError {
    let status = response.status();
    let (kind, fix) = match status.as_u16() {
        401 | 403 | 407 => (Kind::Denied, advice.denied.as_str()),
        404 | 410 => (Kind::NotFound, advice.missing.as_str()),
        429 => (Kind::Unreachable, "the server limits the rate: fetch less often, or with credentials"),
        500..=599 => (Kind::Unreachable, "it is the server's fault: look at its log, or wait"),
        _ => (Kind::Unreachable, "check that the URL is the file's own"),
    };
    let transient = matches!(status.as_u16(), 408 | 425 | 429 | 500..=599);
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let words = words(response).await;
    let what = format!("HTTP {status} from {host}{words}");
    SourceError {
        status: Some(status.as_u16()),
        transient,
        retry_after: retry_after.map(Duration::from_secs),
        ..SourceError::new(kind, place, what, fix)
    }
}

/// The beginning of what the server says, unless it is a page for people.
async fn words(response: Response) -> String {
    let headers = response.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let html = text(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.contains("html"));
    let said = match text("x-error-message") {
        Some(message) => message,
        None if html => String::new(),
        None => String::from_utf8_lossy(&start(response, REFUSAL_BYTES_MAX).await).into_owned(),
    };
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = without_queries(&said).chars().filter(|c| !c.is_control()).take(REFUSAL_LETTERS_MAX).collect();
    if said.is_empty() { said } else { format!(" ({said})") }
}

/// The beginning of a body.
async fn start(response: Response, most: usize) -> Vec<u8> {
    let (mut stream, mut bytes) = (response.bytes_stream(), Vec::new());
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend(chunk.iter().take(most.saturating_sub(bytes.len())));
        if bytes.len() >= most {
            break;
        }
    }
    bytes
}

/// A whole body that is not longer than `most`.
pub(super) async fn body(place: &str, response: Response, most: usize) -> Result<Vec<u8>> {
    let (mut stream, mut bytes) = (response.bytes_stream(), Vec::new());
    while let Some(chunk) = stream.next().await {
        bytes.extend(chunk.map_err(|error| SourceError::network(place, &error.without_url()))?);
        if bytes.len() > most {
            let what = format!("the answer is longer than {most} bytes");
            return Err(SourceError::new(Kind::WrongContent, place, what, "check that the server is what you mean"));
        }
    }
    Ok(bytes)
}

/// The version that a server names: a strong ETag, else the last change, else a weak ETag.
pub(super) fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let weak = |etag: &String| etag.starts_with("W/");
    text(ETAG).filter(|etag| !weak(etag)).or_else(|| text(LAST_MODIFIED)).or_else(|| text(ETAG))
}

/// `bytes START-END/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

/// A SHA-256 in a header, with or without quotes.
pub(super) fn digest(headers: &HeaderMap, name: &str) -> Option<Digest> {
    let text = headers.get(name)?.to_str().ok()?;
    Digest::parse(text.trim_start_matches("W/").trim_matches('"')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn ranges_are_read() {
        let range = |text| content_range(&headers(&[("content-range", text)]));
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */10"), None);
        assert_eq!(range("pages 1-2/3"), None);
    }

    #[test]
    fn the_strongest_version_counts() {
        let of = |pairs| validator(&headers(pairs));
        assert_eq!(of(&[("etag", "\"a\""), ("last-modified", "Mon")]).unwrap(), "\"a\"");
        assert_eq!(of(&[("etag", "W/\"a\""), ("last-modified", "Mon")]).unwrap(), "Mon");
        assert_eq!(of(&[("etag", "W/\"a\"")]).unwrap(), "W/\"a\"");
        assert_eq!(of(&[]), None);
        let quoted = format!("\"{}\"", Digest::of("x"));
        let linked = HeaderMap::from_iter([("x-linked-etag".parse().unwrap(), quoted.parse().unwrap())]);
        assert_eq!(digest(&linked, "x-linked-etag"), Some(Digest::of("x")));
    }
}
