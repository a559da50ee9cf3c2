//! The wire as clients count on it: whole answers and streams, byte for byte but for ids and times.
//! A test that differs writes its file and fails, so that the difference shows in review; in CI it only fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::server::Server;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// What differs from run to run: ids, times, the last digits.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match (key.as_str(), &*value) {
                    ("id", Value::String(id)) => *value = json!(id.split_once(['-', '_']).unwrap().0),
                    ("created", Value::Number(_)) => *value = json!(0),
                    _ => settle(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        // Logarithms differ in their last digits from machine to machine.
        Value::Number(number) if number.is_f64() => {
            *value = json!((number.as_f64().unwrap() * 1e6).round() / 1e6);
        }
        _ => {}
    }
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|wanted| wanted == found) {
        return;
    }
    if std::env::var_os("CI").is_none() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    panic!("{} differs; run again and commit the difference if it is wanted:\n{found}", path.display());
}

async fn whole(name: &str, server: &Server, path: &str, body: Value) {
    let (_, mut answer) = server.post(path, body).await;
    settle(&mut answer);
    compare(name, &(serde_json::to_string_pretty(&answer).unwrap() + "\n"));
}

async fn streamed(name: &str, server: &Server, path: &str, body: Value) {
    let mut found = String::new();
    for line in server.stream(path, body).await {
        let line = serde_json::from_str(&line).map_or(line, |mut object: Value| {
            settle(&mut object);
            object.to_string()
        });
        found.push_str(&format!("data: {line}\n\n"));
    }
    compare(name, &found);
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "test", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3,
        "temperature": 0});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn text(extra: Value) -> Value {
    let mut body = json!({"model": "test", "prompt": "hello", "max_tokens": 3, "temperature": 0});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn chats() {
    let server = Server::scripted(2, 600, "Hé").await;
    whole("chat_length.json", &server, CHAT, chat(json!({}))).await;
    whole(
        "chat_stop_logprobs.json",
        &server,
        CHAT,
        chat(json!({"max_tokens": 9, "logprobs": true, "top_logprobs": 1})),
    )
    .await;
    whole("chat_two_confident.json", &server, CHAT, chat(json!({"n": 2, "confidence": true}))).await;
    let usage = json!({"include_usage": true});
    streamed("chat_stream.txt", &server, CHAT, chat(json!({"stream": true}))).await;
    streamed(
        "chat_stream_usage.txt",
        &server,
        CHAT,
        chat(json!({"stream": true, "stream_options": usage, "max_tokens": 9})),
    )
    .await;
    let told = json!({"stream": true, "logprobs": true, "confidence": true, "max_tokens": 9});
    streamed("chat_stream_logprobs.txt", &server, CHAT, chat(told)).await;
}

#[tokio::test]
async fn completions() {
    let server = Server::scripted(2, 600, "Hé").await;
    whole("text_length.json", &server, TEXT, text(json!({}))).await;
    whole("text_stop_logprobs.json", &server, TEXT, text(json!({"max_tokens": 9, "logprobs": 1, "echo": false}))).await;
    let usage = json!({"include_usage": true});
    streamed("text_stream.txt", &server, TEXT, text(json!({"stream": true}))).await;
    streamed(
        "text_stream_usage.txt",
        &server,
        TEXT,
        text(json!({"stream": true, "stream_options": usage, "logprobs": 0})),
    )
    .await;
}

#[tokio::test]
async fn tool_calls() {
    let server =
        Server::scripted(2, 600, "On it.<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>").await;
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let ask = json!({"tools": tools, "max_tokens": 99});
    whole("chat_tools.json", &server, CHAT, chat(ask.clone())).await;
    let mut ask = ask;
    ask["stream"] = json!(true);
    streamed("chat_stream_tools.txt", &server, CHAT, chat(ask)).await;
}

#[tokio::test]
async fn errors() {
    let server = Server::scripted(1, 64, "x").await;
    whole("error_field.json", &server, CHAT, chat(json!({"temperature": "hot"}))).await;
    whole("error_context.json", &server, CHAT, chat(json!({"max_tokens": 64}))).await;
    whole("error_model.json", &server, CHAT, chat(json!({"model": "other"}))).await;
    whole("error_form.json", &server, TEXT, text(json!({"guided_grammar": "start: missing"}))).await;
}
