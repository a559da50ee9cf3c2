//! A file as servers give it: by ranges, slowly, cut off, not at all; and what was asked for.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CHUNK: usize = 16 * 1024;

/// How the server behaves; tests change it at will.
#[derive(Clone, Debug)]
pub struct Manner {
    pub bytes: Arc<Vec<u8>>,
    pub etag: Option<String>,
    /// Takes `Range`.
    pub ranges: bool,
    /// Each answer is cut off after so many bytes.
    pub cut: Option<usize>,
    /// Pause before each 16 KiB.
    pub pause: Duration,
    /// Answers this instead, so often.
    pub fail: Option<(StatusCode, u32)>,
}

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: Method,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Clone)]
pub struct Content {
    pub manner: Arc<Mutex<Manner>>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Bytes of bodies that were sent, but for probes of one byte.
    pub sent: Arc<AtomicU64>,
}

/// Bytes that look like nothing, the same for the same seed.
pub fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(seed);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Content {
    pub fn new(bytes: Vec<u8>) -> Self {
        let etag = Some(format!("\"{}\"", &sha256(&bytes)[..16]));
        let manner =
            Manner { bytes: Arc::new(bytes), etag, ranges: true, cut: None, pause: Duration::ZERO, fail: None };
        Self { manner: Arc::new(Mutex::new(manner)), seen: Arc::default(), sent: Arc::default() }
    }

    pub fn set(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    pub fn hash(&self) -> String {
        sha256(&self.manner.lock().unwrap().bytes)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Where each download began, probes left out.
    pub fn starts(&self) -> Vec<u64> {
        let probe = |seen: &&Seen| seen.range.as_deref() != Some("bytes=0-0") && seen.method == Method::GET;
        let start = |seen: &Seen| {
            seen.range.as_deref().map_or(0, |range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap())
        };
        self.seen.lock().unwrap().iter().filter(probe).map(start).collect()
    }

    pub fn answer(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
        self.seen.lock().unwrap().push(Seen { method: method.clone(), range: range.clone(), authorization });
        let mut manner = self.manner.lock().unwrap();
        if let Some((status, times)) = manner.fail.as_mut().filter(|(_, times)| *times > 0) {
            *times -= 1;
            return Response::builder().status(*status).body(Body::from("told to fail")).unwrap();
        }
        let manner = manner.clone();
        let condition = text(header::IF_RANGE).is_none_or(|etag| Some(etag) == manner.etag);
        let wanted = range.filter(|_| manner.ranges && condition);
        self.respond(method, &manner, wanted.as_deref())
    }

    fn respond(&self, method: &Method, manner: &Manner, range: Option<&str>) -> Response<Body> {
        let total = manner.bytes.len();
        let mut response = Response::builder();
        // A date, as real stores send it, though nobody needs it here.
        response = response.header(header::LAST_MODIFIED, "Mon, 02 Nov 2026 10:00:00 GMT");
        if let Some(etag) = &manner.etag {
            response = response.header(header::ETAG, etag);
        } else {
            response.headers_mut().unwrap().remove(header::LAST_MODIFIED);
        }
        let (start, end) = match range {
            Some(range) => {
                let (start, end) = range["bytes=".len()..].split_once('-').unwrap();
                let start: usize = start.parse().unwrap();
                let end = end.parse().map_or(total, |end: usize| total.min(end + 1));
                if start >= total {
                    let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
                    return response
                        .header(header::CONTENT_RANGE, format!("bytes */{total}"))
                        .body(Body::empty())
                        .unwrap();
                }
                let content_range = format!("bytes {start}-{}/{total}", end - 1);
                response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
                (start, end)
            }
            None => (0, total),
        };
        response = response.header(header::CONTENT_LENGTH, end - start);
        if method == Method::HEAD {
            return response.body(Body::empty()).unwrap();
        }
        response.body(self.body(manner, start, end)).unwrap()
    }

    fn body(&self, manner: &Manner, start: usize, end: usize) -> Body {
        let (manner, sent) = (manner.clone(), Arc::clone(&self.sent));
        let cut = manner.cut.map_or(end, |cut| end.min(start + cut));
        let probe = end - start == 1;
        let chunks = futures::stream::unfold(start, move |at| {
            let (manner, sent) = (manner.clone(), Arc::clone(&sent));
            async move {
                if at >= cut {
                    // So that what was sent before is out: an error drops what the server still holds.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    return (cut < end).then(|| (Err(io::Error::other("cut off")), end));
                }
                let next = cut.min(at + CHUNK);
                tokio::time::sleep(manner.pause).await;
                if !probe {
                    sent.fetch_add(u64::try_from(next - at).unwrap(), Ordering::SeqCst);
                }
                Some((Ok(bytes::Bytes::copy_from_slice(&manner.bytes[at..next])), next))
            }
        });
        // After the error nothing more comes.
        let mut over = false;
        let chunks = futures::StreamExt::take_while(chunks, move |chunk: &io::Result<_>| {
            let ended = over;
            over |= chunk.is_err();
            std::future::ready(!ended)
        });
        Body::from_stream(chunks)
    }
}
