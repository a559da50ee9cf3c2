//! Several choices, log odds, forms and tools, over real sockets, with an engine that answers as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::server::Server;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "test", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().unwrap();
    choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap()).collect()
}

fn objects(lines: &[String]) -> Vec<Value> {
    lines.iter().filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a stream's choice said, and how it ended.
fn said(objects: &[Value], index: u64) -> (String, Vec<Value>) {
    let choices: Vec<&Value> = objects.iter().flat_map(|object| object["choices"].as_array().unwrap()).collect();
    let own: Vec<&Value> = choices.into_iter().filter(|choice| choice["index"] == index).collect();
    let text = own.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    (text, own.iter().map(|choice| choice["finish_reason"].clone()).filter(|reason| !reason.is_null()).collect())
}

#[tokio::test]
async fn each_choice_has_its_seed_and_the_prompt_is_computed_once() {
    let server = Server::scripted(4, 256, &"?".repeat(12)).await;
    let long = json!([{"role": "user", "content": "h".repeat(100)}]);
    let (status, body) = server.post(CHAT, chat(json!({"n": 4, "seed": 7, "messages": long}))).await;
    assert_eq!(status, 200, "{body}");
    let indices: Vec<_> = body["choices"].as_array().unwrap().iter().map(|choice| choice["index"].as_u64()).collect();
    assert_eq!(indices, [Some(0), Some(1), Some(2), Some(3)]);
    let distinct: std::collections::BTreeSet<&str> = texts(&body).into_iter().collect();
    assert_eq!(distinct.len(), 4, "{body}");
    // The ends of the answers count as in OpenAI's API; the prompt counts once, and was computed once.
    assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]), (&json!(100), &json!(4 * 13)));
    assert!(server.metric("vllm:prompt_tokens_total").await < 110.0);
    let (_, next) = server.post(CHAT, chat(json!({"seed": 8, "messages": long}))).await;
    assert_eq!(texts(&next), texts(&body)[1..2]);
    assert_eq!(next["usage"]["prompt_tokens_details"]["cached_tokens"], 99);
    server.await_metric("quartermaster_engine_tokens_in_flight", 0.0).await;
}

#[tokio::test]
async fn more_choices_than_slots_wait_for_each_other() {
    let server = Server::scripted(1, 64, "??").await;
    let (status, body) = server.post(TEXT, json!({"model": "test", "prompt": "p", "n": 16})).await;
    assert_eq!((status, body["choices"].as_array().unwrap().len()), (200, 16));
    // A place for each: with one taken, sixteen more fit, and no seventeenth.
    server.slow(Duration::from_millis(20));
    let many = |n: u32| server.post(TEXT, json!({"model": "test", "prompt": "p", "n": n, "max_tokens": 20}));
    let ((first, _), (second, refused)) = futures::future::join(many(16), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        many(2).await
    })
    .await;
    assert_eq!((first, second), (200, 429), "{refused}");
    // The place that the refused request took was given back too.
    server.idle().await;
}

#[tokio::test]
async fn streams_of_choices_interleave() {
    let server = Server::scripted(2, 64, "????????").await;
    let options = json!({"include_usage": true});
    let lines = server.stream(CHAT, chat(json!({"n": 2, "seed": 3, "stream": true, "stream_options": options}))).await;
    let objects = objects(&lines);
    let whole = server.post(CHAT, chat(json!({"n": 2, "seed": 3}))).await.1;
    for index in [0, 1] {
        let (text, finish) = said(&objects, index);
        assert_eq!((text.as_str(), finish), (texts(&whole)[index as usize], vec![json!("stop")]));
    }
    let order: Vec<u64> = objects.iter().filter_map(|object| object["choices"][0]["index"].as_u64()).collect();
    assert!(order.windows(3).any(|three| three == [0, 1, 0]), "{order:?}");
    assert_eq!(objects.last().unwrap()["usage"]["completion_tokens"], 18);
    assert_eq!(lines.iter().filter(|line| *line == "[DONE]").count(), 1);
}

#[tokio::test]
async fn a_sibling_is_cancelled_and_the_other_goes_on() {
    let server = Server::scripted(2, 256, &"?".repeat(200)).await;
    server.slow(Duration::from_millis(10));
    let url = format!("{}{CHAT}", server.url);
    let body = chat(json!({"n": 2, "stream": true, "max_tokens": 60, "stream_options": {"include_usage": true}}));
    let mut response = server.http.post(&url).body(body.to_string()).send().await.unwrap();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let id = first["id"].as_str().unwrap();
    let cancel =
        |id: &str, index: &str| server.http.delete(format!("{}/v1/requests/{id}/choices/{index}", server.url)).send();
    let told: Value = serde_json::from_str(&cancel(id, "1").await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(told, json!({"id": id, "index": 1, "cancelled": true}));
    assert_eq!(cancel(id, "2").await.unwrap().status(), 404);
    assert_eq!(cancel("chatcmpl-other", "0").await.unwrap().status(), 404);
    assert_eq!(cancel(id, "x").await.unwrap().status(), 400);
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let lines: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect();
    let objects = objects(&lines);
    let ((going, finish), (gone, cancelled)) = (said(&objects, 0), said(&objects, 1));
    assert_eq!((going.len(), finish), (60, vec![json!("length")]));
    assert_eq!(cancelled, [json!("cancelled")]);
    assert!(gone.len() < 30, "{gone}");
    let usage = objects.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage, 60 + gone.len() as u64, "what was generated before counts");
    assert_eq!(lines.last().unwrap(), "[DONE]");
    assert_eq!(cancel(id, "0").await.unwrap().status(), 404, "the answer is done");
    assert_eq!(server.metric("vllm:request_success_total{model_name=\"test\",finished_reason=\"abort\"}").await, 1.0);
}

#[tokio::test]
async fn a_choice_that_still_waits_is_cancelled_too() {
    let server = Server::scripted(1, 256, &"?".repeat(200)).await;
    server.slow(Duration::from_millis(10));
    let url = format!("{}{CHAT}", server.url);
    let body = chat(json!({"n": 2, "stream": true, "max_tokens": 40}));
    let mut response = server.http.post(&url).body(body.to_string()).send().await.unwrap();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let cancel = format!("{}/v1/requests/{}/choices/1", server.url, first["id"].as_str().unwrap());
    assert_eq!(server.http.delete(&cancel).send().await.unwrap().status(), 200);
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let lines: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect();
    let objects = objects(&lines);
    assert_eq!(said(&objects, 1), (String::new(), vec![json!("cancelled")]));
    assert_eq!((said(&objects, 0).0.len(), said(&objects, 0).1), (40, vec![json!("length")]));
    server.idle().await;
}

#[tokio::test]
async fn a_failing_choice_fails_the_request() {
    let server = Server::scripted(2, 64, "abc").await;
    server.seen.fail.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, answer) = server.post(CHAT, chat(json!({"n": 2}))).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("engine_error")));
    server.idle().await;
}

#[tokio::test]
async fn log_odds_and_confidence_are_told_where_asked_for() {
    let server = Server::scripted(2, 64, "?b").await;
    let (_, body) = server.post(CHAT, chat(json!({"logprobs": true, "top_logprobs": 2, "confidence": true}))).await;
    let choice = &body["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 2, "{body}");
    let uniform = -(26_f64).ln();
    assert!((content[0]["logprob"].as_f64().unwrap() - uniform).abs() < 1e-4);
    assert_eq!(content[1]["token"], "b");
    assert_eq!((&content[1]["bytes"], &content[1]["logprob"]), (&json!([98]), &json!(0.0)));
    let top: Vec<_> = content[0]["top_logprobs"].as_array().unwrap().iter().map(|top| top["token"].clone()).collect();
    assert_eq!(top, ["a", "b"]);
    let confidence = &choice["confidence"];
    assert_eq!(confidence["tokens"], 2);
    assert!((confidence["min_logprob"].as_f64().unwrap() - uniform).abs() < 1e-4);
    assert!((confidence["mean_logprob"].as_f64().unwrap() - uniform / 2.0).abs() < 1e-4);
    assert!((confidence["mean_entropy"].as_f64().unwrap() + uniform / 2.0).abs() < 1e-4);
    // A stream tells the same, token by token, and how sure it was with the last chunk.
    let lines = server.stream(CHAT, chat(json!({"logprobs": true, "confidence": true, "stream": true}))).await;
    let objects = objects(&lines);
    let told = |object: &Value| object["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len);
    assert_eq!(objects.iter().map(told).sum::<usize>(), 2);
    let sure: Vec<bool> = objects.iter().map(|object| object["choices"][0]["confidence"].is_object()).collect();
    assert_eq!(sure.iter().position(|sure| *sure), Some(objects.len() - 1), "{lines:?}");
    let (_, body) = server.post(CHAT, chat(json!({}))).await;
    assert_eq!((&body["choices"][0]["logprobs"], body["choices"][0].get("confidence")), (&Value::Null, None));
}

#[tokio::test]
async fn bias_and_penalties_change_what_is_drawn() {
    let server = Server::scripted(2, 64, "?????").await;
    let only = json!({"98": 100, "97": -100, "99": 10});
    let (_, body) = server.post(CHAT, chat(json!({"logit_bias": only, "max_tokens": 5}))).await;
    assert_eq!(texts(&body), ["bbbbb"]);
    let (_, body) = server.post(CHAT, chat(json!({"temperature": 0, "presence_penalty": 2}))).await;
    assert_eq!(texts(&body), ["abcde"]);
    let (_, body) = server.post(CHAT, chat(json!({"top_k": 1}))).await;
    assert_eq!(texts(&body), ["aaaaa"]);
}

#[tokio::test]
async fn an_answer_keeps_its_form() {
    // The script wishes for something else; the schema wins.
    let server = Server::scripted(2, 256, "I will not do what you ask me to do, whatever you say.").await;
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false});
    let formats = [
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
        json!({"structured_outputs": {"json": schema}}),
        json!({"guided_json": schema.to_string()}),
    ];
    for format in formats {
        let (status, body) = server.post(CHAT, chat(format)).await;
        assert_eq!((status, &body["choices"][0]["finish_reason"]), (200, &json!("stop")), "{body}");
        let answer: Value = serde_json::from_str(texts(&body)[0]).unwrap();
        assert!(answer["ok"].is_boolean(), "{answer}");
    }
    let (_, body) = server.post(CHAT, chat(json!({"guided_choice": ["yes", "Indeed"], "n": 2}))).await;
    assert_eq!(texts(&body), ["Indeed", "Indeed"]);
    let (_, body) = server.post(TEXT, json!({"model": "test", "prompt": "p", "guided_regex": "[0-9]{3}"})).await;
    let text = body["choices"][0]["text"].as_str().unwrap();
    assert!(text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    let wrong = json!({"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}});
    let (status, body) = server.post(CHAT, chat(json!({"response_format": wrong}))).await;
    assert_eq!((status, &body["error"]["param"]), (400, &json!("response_format.json_schema.schema")), "{body}");
    server.idle().await;
}

fn weather() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
        "additionalProperties": false, "$defs": {"city": {"type": "string", "enum": ["Bonn", "Rome"]}}});
    json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
}

#[tokio::test]
async fn a_forced_call_fits_the_tools_schema() {
    let server = Server::scripted(2, 400, "no").await;
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "weather"}})] {
        let body = chat(json!({"tools": weather(), "tool_choice": choice, "parallel_tool_calls": false}));
        let (status, body) = server.post(CHAT, body).await;
        assert_eq!(status, 200, "{body}");
        let choice = &body["choices"][0];
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(["Bonn", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
    }
    let both = json!({"tools": weather(), "tool_choice": "required", "response_format": {"type": "json_object"}});
    assert_eq!(server.post(CHAT, chat(both)).await.1["error"]["param"], "tool_choice");
}

#[tokio::test]
async fn a_call_in_the_text_is_found_whole_and_streamed() {
    let call = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";
    let server = Server::scripted(2, 700, call).await;
    let ask = |extra: Value| {
        let mut body = chat(json!({"tools": weather(), "max_tokens": 200}));
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let (_, body) = server.post(CHAT, ask(json!({}))).await;
    let message = &body["choices"][0]["message"];
    assert_eq!(
        (&body["choices"][0]["finish_reason"], &message["content"]),
        (&json!("tool_calls"), &json!("Let me see.\n"))
    );
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "weather", "arguments": "{\"city\":\"Bonn\"}"}));
    // The tools are part of the prompt, and so of its count.
    let without = server.post(CHAT, chat(json!({"max_tokens": 200}))).await.1;
    assert_eq!(texts(&without), [call]);
    assert_eq!(without["usage"]["prompt_tokens"], 5);
    assert!(body["usage"]["prompt_tokens"].as_u64().unwrap() > 200);
    let objects = objects(&server.stream(CHAT, ask(json!({"stream": true}))).await);
    assert_eq!(said(&objects, 0), ("Let me see.\n".into(), vec![json!("tool_calls")]));
    let calls: Vec<&Value> = objects
        .iter()
        .map(|object| &object["choices"][0]["delta"]["tool_calls"])
        .filter(|calls| !calls.is_null())
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (&calls[0][0]["index"], &calls[0][0]["function"]["arguments"]),
        (&json!(0), &json!("{\"city\":\"Bonn\"}"))
    );
    let (_, body) = server.post(CHAT, ask(json!({"tool_choice": "none"}))).await;
    assert_eq!((texts(&body), &body["usage"]["prompt_tokens"]), (vec![call], &json!(5)));
}

#[tokio::test]
async fn a_completion_takes_tokens_and_repeats_its_prompt() {
    let server = Server::scripted(2, 64, "xyz").await;
    let ask = |extra: Value| {
        let mut body = json!({"model": "test", "prompt": [72, 105]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let (_, body) = server.post(TEXT, ask(json!({"logprobs": 1}))).await;
    assert_eq!((&body["choices"][0]["text"], &body["usage"]["prompt_tokens"]), (&json!("xyz"), &json!(2)));
    let odds = json!({"tokens": ["x", "y", "z"], "token_logprobs": [0.0, 0.0, 0.0],
        "top_logprobs": [{"x": 0.0}, {"y": 0.0}, {"z": 0.0}], "text_offset": [0, 1, 2]});
    assert_eq!(body["choices"][0]["logprobs"], odds);
    let (_, body) = server.post(TEXT, ask(json!({"echo": true, "n": 2}))).await;
    assert_eq!([0, 1].map(|at| body["choices"][at]["text"].clone()), ["Hixyz", "Hixyz"]);
    let lines = server.stream(TEXT, ask(json!({"echo": true, "stream": true}))).await;
    let text: String =
        objects(&lines).iter().map(|object| object["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(text, "Hixyz");
    for (extra, field) in [
        (json!({"echo": true, "logprobs": 0}), "echo"),
        (json!({"prompt": [72, 256]}), "prompt[1]"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": vec![1; 64]}), "prompt"),
    ] {
        let (status, body) = server.post(TEXT, ask(extra)).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!(field)), "{body}");
    }
}

#[tokio::test]
async fn text_becomes_tokens_and_back() {
    let server = Server::scripted(1, 64, "x").await;
    let (status, body) = server.post("/tokenize", json!({"model": "test", "prompt": "Hi"})).await;
    assert_eq!((status, body), (200, json!({"count": 2, "max_model_len": 64, "tokens": [72, 105]})));
    let messages = json!([{"role": "user", "content": "hello"}]);
    let (_, body) = server.post("/tokenize", json!({"model": "test", "messages": messages})).await;
    assert_eq!(body["count"], 5);
    let (_, body) = server.post("/tokenize", json!({"model": "test", "messages": messages, "tools": weather()})).await;
    assert!(body["count"].as_u64().unwrap() > 200);
    let (_, body) = server.post("/detokenize", json!({"model": "test", "tokens": [0xC3, 0xA9, 72]})).await;
    assert_eq!(body, json!({"prompt": "éH"}));
    for (path, body, field) in [
        ("/tokenize", json!({"model": "test"}), "prompt"),
        ("/tokenize", json!({"model": "test", "prompt": "a", "messages": messages}), "prompt"),
        ("/tokenize", json!({"model": "test", "prompt": "a", "add_special_tokens": 1}), "add_special_tokens"),
        ("/detokenize", json!({"model": "test"}), "tokens"),
        ("/detokenize", json!({"model": "test", "tokens": [1, 256]}), "tokens[1]"),
    ] {
        let (status, answer) = server.post(path, body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)), "{answer}");
    }
    assert_eq!(server.post("/tokenize", json!({"model": "other", "prompt": "a"})).await.0, 404);
}

#[tokio::test]
async fn without_room_for_embeddings_it_says_so() {
    let server = Server::scripted(1, 64, "x").await;
    let (status, body) = server.post("/v1/embeddings", json!({"model": "test", "input": "a"})).await;
    assert_eq!((status, &body["error"]["code"]), (501, &json!("embeddings_not_supported")));
}
