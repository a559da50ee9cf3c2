//! What a request meets before it reaches a replica, and what a refusal looks like.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::{BROKE, Engine, KEY, World, answer, chat};
use http_body_util::Full;
use quartermaster_core::wire::serve::TENANT_HEADER;
use serde_json::{Value, json};

#[tokio::test]
async fn a_chat_is_served_metered_and_settled() {
    let engine = Engine::answering(3).await;
    let world = World::new(&[engine.address]).await;
    let reply = world.chat(json!({"temperature": 0.5, "user": "u"})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.bytes);
    assert_eq!(reply.headers["x-quartermaster-variant"], "q8");
    assert_eq!(reply.headers["x-quartermaster-hardware-class"], "cpu-standard");
    assert_eq!(reply.json()["usage"]["total_tokens"], 8);
    common::eventually("settled", || world.ledger.accounts.lock().unwrap().settled.len() == 1).await;
    {
        let accounts = world.ledger.accounts.lock().unwrap();
        let settle = accounts.only();
        assert_eq!(settle.attempt, reply.headers["x-request-id"]);
        assert_eq!(settle.actual.tokens.0, 8);
        let usage = &settle.usage;
        assert_eq!((usage.prompt.0, usage.completion.0, usage.outcome.as_str()), (5, 3, "stop"));
        assert_eq!(
            (usage.subject.as_str(), usage.model.as_str(), usage.variant.as_str()),
            ("demo/alice", "chat", "q8")
        );
        assert!(accounts.held.is_empty());
        let reserve = &accounts.reserved[0];
        assert_eq!((reserve.want.tokens.0, reserve.at_least.tokens.0), (25, 6));
        assert_eq!(reserve.budgets, ["demo/team"]);
    }
    let expected = json!({
        "model": "org/smol", "messages": [{"role": "user", "content": "one two three"}],
        "temperature": 0.5, "user": "u", "max_tokens": 20,
    });
    assert_eq!(engine.body(0), expected);
    let labels = r#"{namespace="demo",model="chat"}"#;
    assert_eq!(world.metric(&format!("quartermaster_gateway_tokens_in_flight{labels}")).await, Some(0.0));
    let tokens =
        r#"quartermaster_gateway_tokens_total{namespace="demo",model="chat",subject="demo/alice",kind="prompt"}"#;
    assert_eq!(world.metric(tokens).await, Some(5.0));
    let mismatch = format!("quartermaster_gateway_prompt_count_mismatch_total{labels}");
    assert_eq!(world.metric(&mismatch).await, Some(0.0));
}

#[tokio::test]
async fn tools_are_paid_for_as_the_engine_counts_them() {
    let engine = Engine::answering(1).await;
    let world = World::new(&[engine.address]).await;
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let tools = json!([tool("weather"), tool("time")]);
    for (more, prompt) in [
        (json!({}), 5),
        (json!({"tools": tools}), 7),
        (json!({"tools": tools, "tool_choice": "none"}), 5),
        (json!({"tools": tools, "tool_choice": "required"}), 7),
    ] {
        let mut more = more;
        more["max_tokens"] = json!(3);
        assert_eq!(world.chat(more).await.status, 200);
        let reserved = world.ledger.accounts.lock().unwrap().reserved.last().unwrap().clone();
        assert_eq!(reserved.want.tokens.0, prompt + 3);
    }
}

#[tokio::test]
async fn no_header_of_the_client_reaches_a_replica() {
    let engine = Engine::answering(1).await;
    let world = World::new(&[engine.address]).await;
    let mut request = world.request("/v1/chat/completions", KEY, &chat(json!({})));
    for name in ["x-quartermaster-variant", "x-request-id", "x-tenant", "cookie", "x-forwarded-for", TENANT_HEADER] {
        request.headers_mut().insert(name, "forged".parse().unwrap());
    }
    let reply = common::Reply::read(world.send(request).await).await;
    assert_eq!(reply.status, 200);
    assert_ne!(reply.headers["x-request-id"], "forged");
    let headers = engine.headers.lock().unwrap()[0].clone();
    assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(headers[TENANT_HEADER], "demo/team", "the budget that pays is who the replica is fair to");
}

#[tokio::test]
async fn completions_count_text_and_ids() {
    let engine = Engine::answering(30).await;
    let world = World::new(&[engine.address]).await;
    for (prompt, tokens) in [(json!("a b c d"), 4), (json!([7, 8]), 2)] {
        let body = json!({"model": "org/smol", "prompt": prompt, "max_tokens": 3});
        let reply = world.post("/v1/completions", KEY, &body).await;
        assert_eq!(reply.json()["usage"]["prompt_tokens"], tokens);
        let reserved = world.ledger.accounts.lock().unwrap().reserved.last().unwrap().clone();
        assert_eq!(reserved.want.tokens.0, tokens + 3);
    }
}

#[tokio::test]
async fn max_tokens_is_what_the_hold_affords() {
    let engine = Engine::answering(1000).await;
    let world = World::with_budget(&[engine.address], 40).await;
    // 5 + 20 of 40, then 5 + 10 of 15, then nothing is left.
    for (asked, sent) in [(json!({"max_completion_tokens": 500}), 20), (json!({"max_tokens": 500}), 10)] {
        let reply = world.chat(asked.clone()).await;
        assert_eq!(reply.status, 200);
        let body = engine.body(engine.calls() - 1);
        assert_eq!(body["max_tokens"], sent);
        assert!(body.get("max_completion_tokens").is_none_or(|max| *max == sent));
        let settled = || world.ledger.accounts.lock().unwrap().settled.len() == engine.calls();
        common::eventually("settled", settled).await;
    }
    let reply = world.chat(json!({})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("token_budget_exhausted")));
    assert_eq!(world.ledger.accounts.lock().unwrap().used(), 40);
    let rejections = r#"quartermaster_gateway_budget_rejections_total{budget="demo/team",window="day"}"#;
    assert_eq!(world.metric(rejections).await, Some(1.0));
}

#[tokio::test]
async fn choices_share_the_hold() {
    let engine = Engine::answering(1000).await;
    let world = World::with_budget(&[engine.address], 25).await;
    let reply = world.chat(json!({"n": 3})).await;
    assert_eq!(reply.json()["usage"]["total_tokens"], 5 + 3 * 6);
    assert_eq!(engine.body(0)["max_tokens"], 6);
}

#[tokio::test]
async fn models_are_those_of_the_keys_namespace() {
    let world = World::new(&[]).await;
    let list = |path: &str, key: &str| {
        let uri = format!("http://{}{path}", world.public());
        http::Request::get(uri).header("authorization", format!("Bearer {key}")).body(Full::<Bytes>::default()).unwrap()
    };
    let reply = common::Reply::read(world.send(list("/v1/models", KEY)).await).await;
    let model = json!({"id": "chat", "object": "model", "created": 0, "owned_by": "demo"});
    assert_eq!(reply.json(), json!({"object": "list", "data": [model]}));
    let reply = common::Reply::read(world.send(list("/v1/models/org/smol", KEY)).await).await;
    assert_eq!(reply.json()["id"], "chat");
    assert_eq!(world.send(list("/v1/models/other/secret", KEY)).await.status(), 404);
    assert_eq!(world.send(list("/v1/models", "nobody")).await.status(), 401);
}

/// A refusal as a golden: all that a client can act on.
fn golden(reply: &common::Reply) -> Value {
    let retry_after = reply.headers.get("retry-after").map(|value| value.to_str().unwrap());
    assert!(reply.headers.contains_key("x-request-id"));
    assert_eq!(reply.headers["content-type"], "application/json");
    json!({"status": reply.status, "retry-after": retry_after, "body": reply.json()})
}

#[tokio::test]
async fn refusals() {
    let engine = Engine::start(|_, body| match body["temperature"].as_f64() {
        Some(temperature) if temperature > 2.0 => {
            let error = json!({"error": {"message": "temperature must be at most 2", "param": "temperature"}});
            axum::response::IntoResponse::into_response((http::StatusCode::BAD_REQUEST, axum::Json(error)))
        }
        _ => answer(&body, 1),
    })
    .await;
    let world = World::with_budget(&[engine.address], 30).await;
    let path = "/v1/chat/completions";
    let mut seen = serde_json::Map::new();
    let words = |count: usize| json!({"messages": [{"role": "user", "content": "w ".repeat(count)}]});
    for (name, path, key, body) in [
        ("unknown key", path, "nobody", chat(json!({}))),
        ("no budget", path, BROKE, chat(json!({}))),
        ("not an object", path, KEY, json!([])),
        ("wrong type", path, KEY, chat(json!({"max_tokens": "many"}))),
        ("no messages", path, KEY, json!({"model": "chat"})),
        ("unknown model", path, KEY, chat(json!({"model": "gpt-7"}))),
        ("model of another namespace", path, KEY, chat(json!({"model": "other/secret"}))),
        ("prompt too long", path, KEY, chat(words(49))),
        ("no such path", "/v1/embeddings", KEY, json!({})),
        ("engine refuses", path, KEY, chat(json!({"temperature": 3}))),
        ("above the whole budget", path, KEY, chat(words(40))),
        ("budget exhausted", path, KEY, chat(words(25))),
    ] {
        if name == "budget exhausted" {
            // Six of thirty tokens, so that the next request needs more than is left.
            assert_eq!(world.chat(json!({})).await.status, 200);
            common::eventually("settled", || world.ledger.accounts.lock().unwrap().used() == 6).await;
        }
        let mut reply = golden(&world.post(path, key, &body).await);
        if name == "budget exhausted" {
            let message = reply["body"]["error"]["message"].as_str().unwrap();
            let (before, time) = message.split_once("It resets at ").unwrap();
            assert!(time.trim_end_matches('.').parse::<jiff::Timestamp>().is_ok(), "{time}");
            reply["body"]["error"]["message"] = json!(format!("{before}It resets at TIME."));
        }
        seen.insert(name.to_owned(), reply);
    }
    let mut malformed = world.request(path, KEY, &json!({}));
    *malformed.body_mut() = Full::from("{\"model\": ");
    seen.insert("malformed".into(), golden(&common::Reply::read(world.send(malformed).await).await));
    let mut keyless = world.request(path, KEY, &chat(json!({})));
    keyless.headers_mut().remove("authorization");
    seen.insert("no key".into(), golden(&common::Reply::read(world.send(keyless).await).await));
    let mut get = world.request(path, KEY, &json!({}));
    *get.method_mut() = http::Method::GET;
    seen.insert("wrong method".into(), golden(&common::Reply::read(world.send(get).await).await));
    insta::assert_json_snapshot!("refusals", seen);
    assert!(world.ledger.accounts.lock().unwrap().held.is_empty());
}

/// A body that counts how much of it was asked for.
fn endless(chunk: usize, count: usize) -> axum::body::Body {
    let pieces = (0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; chunk])));
    axum::body::Body::from_stream(futures::stream::iter(pieces))
}

#[tokio::test]
async fn a_body_of_50_mb_is_refused_and_not_kept() {
    let world = World::new(&[]).await;
    let client: hyper_util::client::legacy::Client<_, axum::body::Body> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let before = resident();
    for announced in [true, false] {
        let mut request = http::Request::post(format!("http://{}/v1/completions", world.public()))
            .header("authorization", format!("Bearer {KEY}"));
        if announced {
            request = request.header("content-length", 50 << 20);
        }
        let reply = client.request(request.body(endless(1 << 20, 50)).unwrap()).await.unwrap();
        assert_eq!(reply.status(), 413, "announced: {announced}");
        let body = http_body_util::BodyExt::collect(reply.into_body()).await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("request_too_large"));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 25 << 20, "grew by {grown} bytes");
}

/// Peak memory of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
