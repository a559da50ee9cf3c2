//! The API over real sockets, with an engine that answers as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use support::server::Server;

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "test", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn a_chat_answer_is_whole_and_counts_its_tokens() {
    let server = Server::scripted(2, 64, "Hi there").await;
    let (status, body) = server.post(CHAT, chat(json!({"unknown_field": {"x": 1}}))).await;
    assert_eq!(status, 200);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "test");
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "Hi there"}));
    assert_eq!(choice["finish_reason"], "stop");
    // Eight bytes and the token that ends the answer.
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 0}})
    );
}

#[tokio::test]
async fn the_limit_ends_an_answer_exactly() {
    let server = Server::scripted(2, 64, "abcdefgh").await;
    let (_, body) = server.post(CHAT, chat(json!({"max_tokens": 20, "max_completion_tokens": 3}))).await;
    assert_eq!(body["choices"][0]["message"]["content"], "abc");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 3);
    let (_, body) = server.post(TEXT, json!({"model": "test", "prompt": "p", "max_tokens": 8})).await;
    assert_eq!(
        (&body["choices"][0]["text"], &body["choices"][0]["finish_reason"]),
        (&json!("abcdefgh"), &json!("length"))
    );
    assert_eq!(body["object"], "text_completion");
    // Without a limit: what the context leaves for a chat, sixteen tokens for a text.
    let long = Server::scripted(1, 40, &"x".repeat(100)).await;
    let (_, body) = long.post(CHAT, json!({"model": "test", "messages": [{"role": "user", "content": "hello"}]})).await;
    assert_eq!(body["usage"]["total_tokens"], 40);
    let (_, body) = long.post(TEXT, json!({"model": "test", "prompt": "p"})).await;
    assert_eq!(body["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn a_stop_text_across_tokens_never_shows() {
    let server = Server::scripted(2, 64, "one END two").await;
    for stop in [json!("END"), json!(["xyz", "END"])] {
        let (_, body) = server.post(CHAT, chat(json!({"stop": stop}))).await;
        assert_eq!(body["choices"][0]["message"]["content"], "one ");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"]["completion_tokens"], 7);
    }
    let lines = server.stream(CHAT, chat(json!({"stop": "END", "stream": true}))).await;
    assert_eq!(content(&lines), "one ", "{lines:?}");
}

fn content(lines: &[String]) -> String {
    let objects =
        lines.iter().filter(|line| *line != "[DONE]").map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects.filter_map(|object| object["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_stream_says_the_same_and_ends_with_usage() {
    let server = Server::scripted(2, 64, "grüße 😀!").await;
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let lines = server.stream(CHAT, body).await;
    assert_eq!(content(&lines), "grüße 😀!");
    assert!(!lines.concat().contains('\u{FFFD}'));
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(first["usage"], Value::Null);
    let [.., finish, usage, done] = lines.as_slice() else { panic!("{lines:?}") };
    let finish: Value = serde_json::from_str(finish).unwrap();
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    let usage: Value = serde_json::from_str(usage).unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 14, "total_tokens": 19, "prompt_tokens_details": {"cached_tokens": 0}})
    );
    assert_eq!(done, "[DONE]");
    // Not asked for, not sent.
    let lines = server.stream(TEXT, json!({"model": "test", "prompt": "p", "stream": true})).await;
    assert!(!lines.concat().contains("usage"), "{lines:?}");
}

#[tokio::test]
async fn continuous_usage_counts_up_with_every_token() {
    let server = Server::scripted(2, 64, "abc").await;
    let options = json!({"continuous_usage_stats": true});
    let lines = server.stream(CHAT, chat(json!({"stream": true, "stream_options": options}))).await;
    let counts: Vec<u64> = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 2, 3, 4]);
}

#[tokio::test]
async fn bad_requests_name_their_field() {
    let server = Server::scripted(2, 64, "x").await;
    for (body, param, code) in [
        (chat(json!({"messages": "hi"})), "messages", "invalid_value"),
        (chat(json!({"messages": [{"role": "user", "content": 5}]})), "messages[0].content", "invalid_value"),
        (chat(json!({"temperature": "hot"})), "temperature", "invalid_value"),
        (chat(json!({"n": 17})), "n", "invalid_value"),
        (chat(json!({"guided_regex": "("})), "guided_regex", "invalid_value"),
        (chat(json!({"model": null})), "model", "invalid_value"),
        (chat(json!({"max_tokens": 60})), "max_tokens", "context_length_exceeded"),
        (
            chat(json!({"messages": [{"role": "user", "content": "y".repeat(64)}]})),
            "messages",
            "context_length_exceeded",
        ),
        (chat(json!({"messages": [{"role": "user", "content": ""}]})), "messages", "invalid_value"),
    ] {
        let (status, answer) = server.post(CHAT, body).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
        assert_eq!(answer["error"]["code"], code);
        assert_eq!(answer["error"]["type"], "invalid_request_error");
        assert!(answer["error"]["message"].as_str().unwrap().contains(param));
    }
    let (status, answer) = server.post(TEXT, json!({"model": "test", "prompt": ["a", "b"]})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("prompt")));
    let (status, answer) = server.post(CHAT, chat(json!({"model": "other"}))).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
    let (status, answer) = server.post("/v1/nothing", json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("unknown_url")));
    assert_eq!(server.get(CHAT).await.0, 405);
    assert_eq!(server.metric("vllm:num_requests_running").await, 0.0);
}

#[tokio::test]
async fn broken_json_and_huge_bodies_are_refused() {
    let server = Server::scripted(1, 64, "x").await;
    let url = format!("{}{CHAT}", server.url);
    let broken = server.http.post(&url).body("{\"model\": \"te").send().await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    assert!(broken.text().await.unwrap().contains("no valid JSON"));
    let huge = server.http.post(&url).body(vec![b'x'; 50_000_000]).send().await.unwrap();
    assert_eq!(huge.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let chunks = futures::stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000_000])));
    let chunked = server.http.post(&url).body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(chunked.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(chunked.text().await.unwrap().contains("body_too_large"));
}

#[tokio::test]
async fn while_it_loads_it_says_so() {
    let server = Server::loading(1, 64).await;
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/readyz").await, (503, "loading\n".into()));
    assert_eq!(server.get("/health").await.0, 503);
    let (status, answer) = server.post(CHAT, chat(json!({}))).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("engine_unavailable")));
    assert_eq!(server.get("/tokenizer").await.0, 503);
    assert_eq!(server.get("/v1/models").await.0, 200);
}

#[tokio::test]
async fn models_and_an_unsupported_tokenizer_are_told() {
    let server = Server::scripted(1, 64, "x").await;
    assert_eq!(server.get("/readyz").await.0, 200);
    let models: Value = serde_json::from_str(&server.get("/v1/models").await.1).unwrap();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["max_model_len"]), (&json!("test"), &json!(64)));
    assert_eq!(server.get("/v1/models/test").await.0, 200);
    assert_eq!(server.get("/v1/models/other").await.0, 404);
    let (status, text) = server.get("/tokenizer").await;
    assert_eq!(status, 501);
    assert!(text.contains("not supported"), "{text}");
}

#[tokio::test]
async fn many_requests_share_steps() {
    let server = Server::scripted(4, 64, &"a".repeat(30)).await;
    server.slow(Duration::from_millis(5));
    let requests = (0..8).map(|_| server.post(CHAT, chat(json!({"max_tokens": 30}))));
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|(status, body)| *status == 200 && body["usage"]["completion_tokens"] == 30));
    let steps = server.seen.steps.load(std::sync::atomic::Ordering::SeqCst);
    assert!(steps < 8 * 30 / 2, "{steps} steps for 240 tokens: no batching");
    assert_eq!(server.seen.slots_max.load(std::sync::atomic::Ordering::SeqCst), 4);
    assert_eq!(server.metric("vllm:generation_tokens_total").await, 240.0);
    assert_eq!(server.metric("vllm:prompt_tokens_total").await, 40.0);
    server.await_metric("quartermaster_engine_tokens_in_flight", 0.0).await;
}

#[tokio::test]
async fn a_full_queue_says_try_again() {
    let server = Server::scripted(1, 64, &"a".repeat(40)).await;
    server.slow(Duration::from_millis(20));
    let requests = (0..30).map(|_| {
        let url = format!("{}{CHAT}", server.url);
        server.http.post(url).body(chat(json!({"max_tokens": 2})).to_string()).send()
    });
    let answers = futures::future::join_all(requests).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().map(Result::unwrap).partition(|a| a.status() == 200);
    assert_eq!((served.len(), refused.len()), (17, 13), "one slot and sixteen places in the queue");
    for answer in refused {
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot() {
    let server = Server::scripted(1, 1000, &"a".repeat(900)).await;
    server.slow(Duration::from_millis(10));
    let url = format!("{}{CHAT}", server.url);
    let body = chat(json!({"stream": true, "max_tokens": 900})).to_string();
    let mut response = server.http.post(&url).body(body).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    // The first chunk comes with the request's place in the queue, before its first step.
    server.await_metric("vllm:num_requests_running", 1.0).await;
    drop(response);
    server.await_metric("vllm:num_requests_running", 0.0).await;
    server.await_metric("vllm:kv_cache_usage_perc", 0.0).await;
    assert_eq!(server.metric("vllm:request_success_total{model_name=\"test\",finished_reason=\"abort\"}").await, 1.0);
    assert!(server.metric("vllm:generation_tokens_total").await < 900.0);
    // One that doesn't stream leaves too.
    let gone =
        server.http.post(&url).body(chat(json!({"max_tokens": 900})).to_string()).timeout(Duration::from_millis(100));
    assert!(gone.send().await.is_err());
    server.await_metric("vllm:num_requests_running", 0.0).await;
}

#[tokio::test]
async fn a_failed_step_loses_only_those_in_it() {
    let server = Server::scripted(1, 64, "fine").await;
    server.seen.fail.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, answer) = server.post(CHAT, chat(json!({}))).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("engine_error")));
    let (status, answer) = server.post(CHAT, chat(json!({}))).await;
    assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!("fine")));
    server.stop();
    server.await_metric("vllm:num_requests_running", 0.0).await;
    let (status, _) = server.post(CHAT, chat(json!({}))).await;
    assert!(status >= 500, "{status}");
}
