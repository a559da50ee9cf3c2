//! hf://: the hub says hash and size and sends to a storage on another host, which gets no token.

use crate::content::{Content, noise};
use crate::run::{Node, text};
use crate::server;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, Method, Response, header};
use axum::routing::any;
use std::sync::{Arc, Mutex};

struct Hub {
    node: Node,
    asked: Arc<Mutex<Vec<String>>>,
    storage: Content,
}

/// A hub with one file, for which a token is needed; its storage is another server.
fn hub(content: Content, claimed: String) -> Hub {
    let node = Node::new();
    let stored = content.clone();
    let answer = move |method: Method, headers: HeaderMap| std::future::ready(stored.answer(&method, &headers));
    let storage = server::secure(Router::new().route("/blob", any(answer)), &node.path("storage.pem"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, length) = (Arc::clone(&asked), content.manner.lock().unwrap().bytes.len());
    let resolve = move |Path(path): Path<String>, headers: HeaderMap| {
        log.lock().unwrap().push(path.clone());
        let allowed = headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer good");
        let response = Response::builder().header("x-repo-commit", "c0ffee").header("x-linked-size", length);
        std::future::ready(if !allowed {
            let gated = "Access to model org/repo is restricted";
            Response::builder().status(401).header("x-error-message", gated).body(Body::empty()).unwrap()
        } else if path.ends_with("/m.gguf") {
            let response = response.status(302).header("x-linked-etag", format!("\"{claimed}\""));
            let target = format!("https://{storage}/blob?Signature=secret");
            response.header(header::LOCATION, target).body(Body::empty()).unwrap()
        } else {
            Response::builder().status(404).header("x-error-message", "Entry not found").body(Body::empty()).unwrap()
        })
    };
    let host = server::secure(Router::new().route("/{*path}", any(resolve)), &node.path("hub.pem"));
    let read = |name: &str| std::fs::read_to_string(node.path(name)).unwrap();
    std::fs::write(node.path("ca.pem"), read("storage.pem") + &read("hub.pem")).unwrap();
    let ca = text(&node.path("ca.pem"));
    Hub { node: node.env("QM_CA_FILE", ca).env("HF_ENDPOINT", format!("https://{host}")), asked, storage: content }
}

#[test]
fn the_hubs_hash_is_checked_and_its_token_stays_with_it() {
    let bytes = noise(40, 500_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.cut = Some(300_000));
    let Hub { node, asked, storage } = hub(content.clone(), content.hash());
    let node = node.env("HF_TOKEN", "good");
    node.fetch("hf://org/repo@v1/q8/m.gguf", &[]).brought(&bytes, 500_000);
    assert_eq!(node.cached("entries"), [storage.hash()]);
    assert!(storage.seen.lock().unwrap().iter().all(|seen| seen.authorization.is_none()));
    assert_eq!(storage.starts(), [0, 300_000]);
    // Asked for the tag first, then for its commit.
    let paths = asked.lock().unwrap().clone();
    assert_eq!(paths[0], "org/repo/resolve/v1/q8/m.gguf");
    assert!(paths[1..].iter().all(|path| path == "org/repo/resolve/c0ffee/q8/m.gguf"), "{paths:?}");
    // Another hash than the hub's is refused before a byte is fetched.
    let said = node.fetch("hf://org/repo/m.gguf", &["--sha256", &crate::content::sha256(b"x")]).refused("CorruptModel");
    assert!(said.contains("nothing was fetched"), "{said}");
    assert_eq!(storage.sent(), 500_000);
}

#[test]
fn the_hubs_refusals_say_what_to_do() {
    let content = Content::new(noise(41, 1000));
    let Hub { node, .. } = hub(content.clone(), content.hash());
    let said = node.fetch("hf://org/repo/m.gguf", &[]).refused("SourceUnavailable");
    assert!(said.contains("hf://org/repo@main/m.gguf: HTTP 401") && said.contains("restricted"), "{said}");
    assert!(said.contains("set HF_TOKEN"), "{said}");
    let node = node.env("HF_TOKEN", "good");
    let said = node.fetch("hf://org/repo/n.gguf", &[]).refused("ModelNotFound");
    assert!(said.contains("Entry not found") && said.contains("check that org/repo has n.gguf"), "{said}");
}

#[test]
fn a_storage_that_lies_is_found_out() {
    let content = Content::new(noise(42, 100_000));
    let Hub { node, .. } = hub(content, crate::content::sha256(b"what the hub promised"));
    let node = node.env("HF_TOKEN", "good");
    node.fetch("hf://org/repo/m.gguf", &[]).refused("CorruptModel");
    assert!(node.cached("entries").is_empty() && node.cached("partial").is_empty());
}
