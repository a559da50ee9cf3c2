//! Streams pass through byte for byte, are metered on the way, and are settled however they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::{Engine, World, events};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";

fn delta(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

fn finish() -> String {
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n".to_owned()
}

/// A stream cut in pieces of so many bytes, through the middle of characters and events.
fn cut(text: &str, size: usize) -> Vec<Bytes> {
    text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect()
}

async fn settled(world: &World) -> (u64, u64, String) {
    common::eventually("settled", || !world.ledger.accounts.lock().unwrap().settled.is_empty()).await;
    let accounts = world.ledger.accounts.lock().unwrap();
    assert!(accounts.held.is_empty());
    let usage = &accounts.only().usage;
    (usage.prompt.0, usage.completion.0, usage.outcome.clone())
}

#[tokio::test]
async fn bytes_pass_unchanged_and_the_usage_chunk_only_if_asked_for() {
    let start = [delta("grün 😀 "), ": ping\n\n".to_owned(), delta("zwei\n\n"), finish()].concat();
    let upstream = [start.as_str(), USAGE, "data: [DONE]\n\n"].concat();
    for size in [1, 2, 3, 7, 100_000] {
        for asked in [true, false] {
            let engine = Engine::streaming(cut(&upstream, size)).await;
            let world = World::new(&[engine.address]).await;
            let options = if asked { json!({"include_usage": true}) } else { json!(null) };
            let reply = world.chat(json!({"stream": true, "stream_options": options})).await;
            assert_eq!(reply.headers["content-type"], "text/event-stream");
            let expected = [start.as_str(), if asked { USAGE } else { "" }, "data: [DONE]\n\n"].concat();
            assert_eq!(String::from_utf8(reply.bytes.to_vec()).unwrap(), expected, "cut at {size}, asked: {asked}");
            assert_eq!(engine.body(0)["stream_options"], json!({"include_usage": true}));
            assert_eq!(settled(&world).await, (5, 2, "stop".to_owned()));
        }
    }
}

#[tokio::test]
async fn an_engine_without_usage_is_metered_here() {
    // Three pieces, but five words: the larger count is the true one.
    let upstream = [delta("a b "), delta("c d "), delta("e"), finish(), "data: [DONE]\n\n".into()].concat();
    let engine = Engine::streaming(cut(&upstream, 50)).await;
    let world = World::new(&[engine.address]).await;
    world.chat(json!({"stream": true})).await;
    assert_eq!(settled(&world).await, (5, 5, "stop".to_owned()));
}

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Two pieces, and then nothing for ever; tells when it is let go.
async fn hanging(dropped: Arc<AtomicBool>) -> Arc<Engine> {
    Engine::start(move |_, _| {
        let guard = Dropped(Arc::clone(&dropped));
        let first = futures::stream::iter([delta("one "), delta("two ")]).map(|text| Ok(Bytes::from(text)));
        let rest = futures::stream::once(async move {
            let _guard = guard;
            std::future::pending::<Result<Bytes, io::Error>>().await
        });
        events(first.chain(rest))
    })
    .await
}

#[tokio::test]
async fn a_client_that_goes_away_pays_for_what_came_and_stops_the_engine() {
    let dropped = Arc::new(AtomicBool::new(false));
    let engine = hanging(Arc::clone(&dropped)).await;
    let world = World::new(&[engine.address]).await;
    let request = world.request("/v1/chat/completions", common::KEY, &common::chat(json!({"stream": true})));
    let mut response = world.send(request).await;
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("two") {
        got.extend_from_slice(&response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert!(!dropped.load(Ordering::SeqCst));
    drop(response);
    assert_eq!(settled(&world).await, (5, 2, "client_gone".to_owned()));
    common::eventually("cancelled upstream", || dropped.load(Ordering::SeqCst)).await;
    let in_flight = r#"quartermaster_gateway_tokens_in_flight{namespace="demo",model="chat"}"#;
    assert_eq!(world.metric(in_flight).await, Some(0.0));
}

#[tokio::test]
async fn a_shutdown_that_cuts_a_stream_settles_it() {
    let engine = hanging(Arc::default()).await;
    let mut world = World::new(&[engine.address]).await;
    let request = world.request("/v1/chat/completions", common::KEY, &common::chat(json!({"stream": true})));
    let mut response = world.send(request).await;
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    let gateway = world.gateway.take().unwrap();
    gateway.stop(std::time::Duration::ZERO, std::time::Duration::from_millis(50)).await;
    let (prompt, completion, outcome) = settled(&world).await;
    assert_eq!((prompt, outcome.as_str()), (5, "gateway_shutdown"));
    assert!((1..=2).contains(&completion));
}

#[tokio::test]
async fn a_stream_at_its_deadline_says_so_charges_what_came_and_stops_the_engine() {
    let dropped = Arc::new(AtomicBool::new(false));
    let engine = hanging(Arc::clone(&dropped)).await;
    let mut world = World::peers(&[engine.address], 1000).await;
    world.args.request_timeout_seconds = 1;
    world.start().await;
    let reply = world.chat(json!({"stream": true})).await;
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    let rest = text.strip_prefix(&[delta("one "), delta("two ")].concat()).unwrap();
    let error: Value = serde_json::from_str(rest.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    assert_eq!(error["error"]["code"], "deadline_exceeded");
    assert_eq!(settled(&world).await, (5, 2, "deadline_exceeded".to_owned()));
    common::eventually("cancelled upstream", || dropped.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_and_charges_what_came() {
    let script = |_, _: Value| {
        let pieces = [Ok(Bytes::from(delta("one "))), Ok(Bytes::from("data: {\"cho")), Err(io::Error::other("gone"))];
        events(futures::stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            piece
        }))
    };
    let engine = Engine::start(script).await;
    let world = World::new(&[engine.address]).await;
    let reply = world.chat(json!({"stream": true})).await;
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    let rest = text.strip_prefix(&delta("one ")).unwrap();
    let error: Value = serde_json::from_str(rest.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_error");
    assert_eq!(settled(&world).await, (5, 1, "upstream_error".to_owned()));
}

#[tokio::test]
async fn an_error_of_the_engine_in_the_stream_is_not_passed_on() {
    let upstream = [delta("one "), "data: {\"error\":{\"message\":\"CUDA at 0xdead\"}}\n\n".into()].concat();
    let engine = Engine::streaming(cut(&upstream, 1000)).await;
    let world = World::new(&[engine.address]).await;
    let reply = world.chat(json!({"stream": true})).await;
    let text = String::from_utf8_lossy(&reply.bytes).into_owned();
    assert!(text.contains("upstream_error") && !text.contains("CUDA"), "{text}");
    assert_eq!(settled(&world).await, (5, 1, "upstream_error".to_owned()));
}
