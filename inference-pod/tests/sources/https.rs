//! https://: ranges, cuts, hashes, refusals.

use crate::content::{Content, noise};
use crate::run::{Ended, Node, text};
use crate::server;
use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::any;
use std::time::Duration;

const MEGABYTE: usize = 1024 * 1024;

/// Serves a content under /m.gguf.
pub fn serve(node: Node, content: &Content) -> (Node, String) {
    let content = content.clone();
    let answer = move |uri: Uri, method: Method, headers: HeaderMap| {
        let missing = axum::http::Response::builder().status(404).body("no such file".into()).unwrap();
        let found = uri.path() == "/m.gguf";
        std::future::ready(if found { content.answer(&method, &headers) } else { missing })
    };
    let ca = node.path("ca.pem");
    let host = server::secure(Router::new().fallback(any(answer)), &ca);
    let node = node.env("QM_CA_FILE", text(&ca));
    (node, format!("https://{host}/m.gguf"))
}

#[test]
fn cuts_are_survived_and_nothing_is_fetched_twice() {
    let bytes = noise(1, MEGABYTE);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.cut = Some(400_000));
    let (node, url) = serve(Node::new(), &content);
    let first = node.fetch(&url, &["--sha256", &content.hash()]);
    first.brought(&bytes, MEGABYTE);
    assert_eq!(content.sent(), MEGABYTE as u64);
    assert_eq!(content.starts().len(), 3);
    assert_eq!(node.cached("entries"), [content.hash()]);
    assert!(node.cached("partial").is_empty());
    // With the hash nobody is asked; without it, the server is asked for the version only.
    let requests = content.seen.lock().unwrap().len();
    node.fetch(&url, &["--sha256", &content.hash()]).brought(&bytes, 0);
    assert_eq!(content.seen.lock().unwrap().len(), requests);
    node.fetch(&url, &[]).brought(&bytes, 0);
    assert_eq!(content.sent(), MEGABYTE as u64);
}

#[test]
fn without_ranges_it_begins_again_and_still_ends_right() {
    let bytes = noise(2, 300_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| (manner.ranges, manner.cut) = (false, Some(200_000)));
    let (node, url) = serve(Node::new(), &content);
    let healed = content.clone();
    let healer = std::thread::spawn(move || {
        crate::run::wait_until("a second try", || healed.starts().len() > 1);
        healed.set(|manner| manner.cut = None);
    });
    let ended = node.fetch(&url, &[]);
    healer.join().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(ended.answer["sha256"], content.hash());
}

#[test]
fn a_file_that_changes_on_the_way_is_not_mixed() {
    let (old, new) = (noise(3, 500_000), noise(4, 600_000));
    let content = Content::new(old);
    content.set(|manner| manner.cut = Some(300_000));
    let (node, url) = serve(Node::new(), &content);
    let (changed, bytes) = (content.clone(), new.clone());
    let changer = std::thread::spawn(move || {
        crate::run::wait_until("the first cut", || changed.sent() >= 300_000);
        let next = Content::new(bytes);
        let manner = next.manner.lock().unwrap().clone();
        changed.set(|old| *old = manner);
    });
    let ended = node.fetch(&url, &[]);
    changer.join().unwrap();
    ended.brought(&new, 600_000);
    assert!(ended.log.contains("changed while it was fetched"), "{}", ended.log);
    assert!(node.cached("partial").is_empty());
}

#[test]
fn a_wrong_hash_is_refused_and_leaves_nothing() {
    let content = Content::new(noise(5, 200_000));
    let (node, url) = serve(Node::new(), &content);
    let other = crate::content::sha256(b"other");
    let said = node.fetch(&url, &["--sha256", &other]).refused("CorruptModel");
    assert!(said.contains(&other) && said.contains(&content.hash()) && said.contains("thrown away"), "{said}");
    assert!(said.contains(&url), "{said}");
    assert!(node.cached("entries").is_empty() && node.cached("partial").is_empty());
    let said = node.fetch(&url, &["--sha256", "0f"]).refused("BadConfig");
    assert!(said.contains("64 hex digits"), "{said}");
}

#[test]
fn refusals_name_url_status_and_fix_but_no_secret() {
    let content = Content::new(noise(6, 1000));
    let (node, url) = serve(Node::new(), &content);
    let missing = url.replace("m.gguf", "n.gguf?X-Signature=secret");
    let said = node.fetch(&missing, &[]).refused("ModelNotFound");
    assert!(said.contains("/n.gguf?…: HTTP 404 Not Found from localhost (no such file)"), "{said}");
    assert!(said.contains("check the URL's path") && !said.contains("secret"), "{said}");
    content.set(|manner| manner.fail = Some((StatusCode::FORBIDDEN, 1)));
    let said = node.fetch(&url, &[]).refused("SourceUnavailable");
    assert!(said.contains("HTTP 403") && said.contains("signed URL"), "{said}");
    // Without the certificate nothing is sent, and it is not tried again.
    let stranger = Node::new();
    let said = stranger.fetch(&url, &[]).refused("SourceUnavailable");
    assert!(said.contains("--ca-file") && !said.contains("attempts"), "{said}");
}

#[test]
fn a_server_that_is_down_is_asked_again_and_then_the_cache_serves() {
    let bytes = noise(7, 100_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.fail = Some((StatusCode::SERVICE_UNAVAILABLE, 2)));
    let (node, url) = serve(Node::new(), &content);
    node.fetch(&url, &[]).brought(&bytes, 100_000);
    content.set(|manner| manner.fail = Some((StatusCode::BAD_GATEWAY, u32::MAX)));
    // A fresh node has nothing to fall back on.
    let fresh = Node::new().env("QM_CA_FILE", text(&node.path("ca.pem")));
    let waiting = fresh.spawn(&url, &[]);
    let ended = node.fetch(&url, &[]);
    ended.brought(&bytes, 0);
    assert!(ended.log.contains("led to the last time"), "{}", ended.log);
    let said = Ended::of(waiting).refused("SourceUnavailable");
    assert!(said.contains("HTTP 502") && said.contains("after 6 attempts"), "{said}");
}

#[test]
fn the_log_says_how_far_it_is() {
    let bytes = noise(8, 400_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.pause = Duration::from_millis(100));
    let (node, url) = serve(Node::new(), &content);
    let ended = node.fetch(&url, &["--progress-seconds", "1"]);
    ended.brought(&bytes, 400_000);
    assert!(ended.log.contains("\"eta_seconds\":") && ended.log.contains("\"bytes_per_second\":"), "{}", ended.log);
    // What takes too long is given up, and what came is kept.
    let slow = Content::new(noise(9, 400_000));
    slow.set(|manner| manner.pause = Duration::from_millis(200));
    let (node, url) = serve(Node::new(), &slow);
    let said = node.fetch(&url, &["--fetch-timeout-seconds", "1"]).refused("SourceUnavailable");
    assert!(said.contains("not done after 1 seconds"), "{said}");
    assert!(node.partial_bytes() > 0);
}
