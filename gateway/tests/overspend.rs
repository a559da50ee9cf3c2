//! Many clients, some of which go away, against one budget: settled and held together never pass the limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::{Engine, World, events};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Streams `max_tokens` words, one event each.
async fn obedient() -> std::sync::Arc<Engine> {
    Engine::start(|_, body| {
        let max = body["max_tokens"].as_u64().unwrap();
        let word = move |n: u64| {
            let finish = if n == max { json!("length") } else { json!(null) };
            format!("data: {}\n\n", json!({"choices": [{"delta": {"content": "w "}, "finish_reason": finish}]}))
        };
        let words = futures::stream::iter((1..=max).map(word)).then(|event| async {
            tokio::task::yield_now().await;
            Ok(Bytes::from(event))
        });
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": max}});
        let end = format!("data: {usage}\n\ndata: [DONE]\n\n");
        events(words.chain(futures::stream::iter([Ok(Bytes::from(end))])))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_streams_with_aborts_never_overspend() {
    const BUDGET: u64 = 700;
    let engine = obedient().await;
    let world = World::with_budget(&[engine.address], BUDGET).await;
    let refused = AtomicUsize::new(0);
    let clients = (0..80).map(|n| {
        let (world, refused) = (&world, &refused);
        async move {
            let body = common::chat(json!({"stream": true}));
            let mut response = world.send(world.request("/v1/chat/completions", common::KEY, &body)).await;
            if response.status() == 429 {
                refused.fetch_add(1, Ordering::SeqCst);
                return;
            }
            assert_eq!(response.status(), 200);
            if n % 3 == 0 {
                // Goes away after the first piece.
                assert!(response.body_mut().frame().await.unwrap().is_ok());
            } else {
                assert!(common::Reply::read(response).await.bytes.ends_with(b"[DONE]\n\n"));
            }
        }
    });
    futures::stream::iter(clients).buffer_unordered(40).collect::<()>().await;
    common::eventually("all settled", || world.ledger.accounts.lock().unwrap().held.is_empty()).await;
    let accounts = world.ledger.accounts.lock().unwrap();
    assert!(accounts.peak <= BUDGET, "{}", accounts.peak);
    assert!(accounts.used() <= BUDGET);
    assert!(refused.load(Ordering::SeqCst) > 0, "the budget was never reached");
    assert!(accounts.used() > BUDGET / 2, "{}", accounts.used());
}
