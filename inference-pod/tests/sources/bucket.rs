//! s3:// and gs://: the few requests that reading an object takes.

use crate::content::{Content, noise};
use crate::run::Node;
use crate::server;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri, header};
use axum::routing::any;
use std::time::Duration;

const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
const MISSING: &str = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>";

/// A store with one object; `signed` wants AWS's signature.
fn store(content: &Content, signed: bool) -> String {
    let content = content.clone();
    let answer = move |uri: Uri, method: Method, headers: HeaderMap| {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let authorization = text(header::AUTHORIZATION.as_str());
        let whole = authorization.starts_with("AWS4-HMAC-SHA256 Credential=key-id/")
            && authorization.contains("/eu-test-1/s3/aws4_request")
            && authorization.contains("SignedHeaders=")
            && authorization.contains("Signature=")
            && !text("x-amz-date").is_empty()
            && !text("x-amz-content-sha256").is_empty();
        let say =
            |status: u16, words: &'static str| Response::builder().status(status).body(Body::from(words)).unwrap();
        std::future::ready(match uri.path() {
            _ if signed && !whole => say(403, DENIED),
            "/models/q8/m.gguf" | "/models/q8%2Fm%2Egguf" => content.answer(&method, &headers),
            _ => say(404, MISSING),
        })
    };
    server::plain(Router::new().fallback(any(answer)))
}

fn s3(content: &Content) -> Node {
    Node::new()
        .env("AWS_ENDPOINT_URL", format!("http://{}", store(content, true)))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "eu-test-1")
        .env("AWS_SECRET_ACCESS_KEY", "secret-key")
}

#[test]
fn s3_objects_are_read_signed_and_by_ranges() {
    let bytes = noise(60, 700_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.cut = Some(400_000));
    let node = s3(&content).env("AWS_ACCESS_KEY_ID", "key-id");
    node.fetch("s3://models/q8/m.gguf", &[]).brought(&bytes, 700_000);
    assert_eq!((content.starts(), content.sent()), (vec![0, 400_000], 700_000));
    node.fetch("s3://models/q8/m.gguf", &[]).brought(&bytes, 0);
    let said = node.fetch("s3://models/q8/n.gguf", &[]).refused("ModelNotFound");
    assert!(said.contains("s3://models/q8/n.gguf: HTTP 404") && said.contains("bucket and the key"), "{said}");
}

#[test]
fn s3_goes_on_after_kill_9() {
    let bytes = noise(61, 600_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.pause = Duration::from_millis(20));
    let node = s3(&content).env("AWS_ACCESS_KEY_ID", "key-id");
    let mut child = node.spawn("s3://models/q8/m.gguf", &[]);
    crate::run::wait_until("a beginning", || node.partial_bytes() > 200_000);
    child.kill().unwrap();
    child.wait().unwrap();
    let there = node.partial_bytes();
    node.fetch("s3://models/q8/m.gguf", &[]).brought(&bytes, 600_000 - usize::try_from(there).unwrap());
    assert_eq!(content.starts(), [0, there]);
}

#[test]
fn s3_says_which_credentials_are_wanted() {
    let content = Content::new(noise(62, 1000));
    let node = s3(&content).env("AWS_ACCESS_KEY_ID", "other-id");
    let said = node.fetch("s3://models/q8/m.gguf", &[]).refused("SourceUnavailable");
    assert!(said.contains("HTTP 403") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    assert!(!said.contains("secret-key"), "{said}");
}

#[test]
fn google_objects_are_read() {
    let bytes = noise(63, 300_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.cut = Some(200_000));
    let node = Node::new()
        .env("GOOGLE_BASE_URL", format!("http://{}", store(&content, false)))
        .env("GOOGLE_ALLOW_HTTP", "true")
        .env("GOOGLE_SKIP_SIGNATURE", "true");
    node.fetch("gs://models/q8/m.gguf", &[]).brought(&bytes, 300_000);
    assert_eq!(content.starts(), [0, 200_000]);
    let said = node.fetch("gs://models/none", &[]).refused("ModelNotFound");
    assert!(said.contains("gs://models/none: HTTP 404"), "{said}");
}
