//! Replicas that go, an operator or a ledger that is away, and a gateway that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test may panic")]

mod common;

use axum::response::IntoResponse;
use bytes::Bytes;
use common::{Engine, World, answer, events};
use http::StatusCode;
use http_body_util::BodyExt;
use quartermaster_core::units::Millis;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let engine = Engine::answering(2).await;
    let world = World::new(&[nobody().await, engine.address]).await;
    let retries = r#"quartermaster_gateway_upstream_retries_total{reason="connect"}"#;
    // Among equals one is drawn: the dead one may be spared for a while.
    let mut sent = 0;
    while world.metric(retries).await.is_none() {
        assert!(sent < 64, "the dead one is never tried");
        assert_eq!(world.chat(json!({})).await.status, 200);
        sent += 1;
    }
    for _ in 0..8 {
        assert_eq!(world.chat(json!({})).await.status, 200);
    }
    assert_eq!(engine.calls(), sent + 8);
    // The first failure takes the dead one out, so the others do not even try.
    let retries = world.metric(retries).await.unwrap();
    assert!((1.0..=4.0).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_variant_switch_loses_no_request() {
    let (old, new) = (nobody().await, Engine::answering(2).await);
    let mut world = World::peers(&[old], 1000).await;
    world.operator.change(|snapshot| {
        snapshot.models.get_mut("demo/chat").unwrap().tokenizer = common::tokenizer(&[new.address]);
    });
    world.start().await;
    let switch = async {
        // The request has met only the old replica, which is gone already, when the new one comes up.
        let retries = r#"quartermaster_gateway_upstream_retries_total{reason="connect"}"#;
        while world.metric(retries).await.is_none_or(|retries| retries < 2.0) {}
        world.operator.change(|snapshot| {
            snapshot.models.get_mut("demo/chat").unwrap().endpoints = vec![common::endpoint(new.address)];
        });
    };
    let (reply, ()) = tokio::join!(world.chat(json!({})), switch);
    assert_eq!((reply.status, new.calls()), (200, 1));
}

#[tokio::test]
async fn a_busy_replica_is_asked_again() {
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    let engine = Engine::start(move |turn, body| match busy.get(turn) {
        Some(status) => status.into_response(),
        None => answer(&body, 2),
    })
    .await;
    let world = World::new(&[engine.address]).await;
    assert_eq!(world.chat(json!({})).await.status, 200);
    assert_eq!(engine.calls(), 4);
}

#[tokio::test]
async fn a_replica_that_fails_before_the_first_byte_is_replaced_a_bounded_number_of_times() {
    let broken = |turn: usize| -> axum::response::Response {
        match turn {
            0 => (StatusCode::INTERNAL_SERVER_ERROR, "secret trace").into_response(),
            _ => events(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))])),
        }
    };
    let engine = Engine::start(move |turn, body| if turn < 2 { broken(turn) } else { answer(&body, 2) }).await;
    let world = World::new(&[engine.address]).await;
    assert_eq!(world.chat(json!({"stream": true})).await.status, 200);
    let engine = Engine::start(move |turn, _| broken(turn)).await;
    let world = World::new(&[engine.address]).await;
    let reply = world.chat(json!({"stream": true})).await;
    assert_eq!((reply.status, engine.calls()), (502, 3));
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("secret"));
    common::eventually("settled", || !world.ledger.accounts.lock().unwrap().settled.is_empty()).await;
    let accounts = world.ledger.accounts.lock().unwrap();
    assert_eq!((accounts.used(), accounts.only().usage.outcome.as_str()), (0, "upstream_error"));
}

#[tokio::test]
async fn a_request_wakes_a_model_at_zero_and_waits_for_it() {
    let engine = Engine::answering(2).await;
    let world = World::new(&[]).await;
    world.operator.change(|snapshot| snapshot.models.get_mut("demo/chat").unwrap().wake_deadline = Millis(20_000));
    let version = "quartermaster_gateway_snapshot_version";
    while world.metric(version).await != Some(2.0) {}
    let requests = futures::future::join_all((0..5).map(|_| world.chat(json!({}))));
    let waker = async {
        let waiting = r#"quartermaster_gateway_requests_waiting{namespace="demo",model="chat"}"#;
        while world.metric(waiting).await != Some(5.0) {}
        assert_eq!(*world.operator.wakes.lock().unwrap(), ["demo/chat"], "five requests, one call");
        assert!(world.ledger.accounts.lock().unwrap().reserved.is_empty(), "nothing is held while it waits");
        world.operator.change(|snapshot| {
            let route = snapshot.models.get_mut("demo/chat").unwrap();
            route.endpoints = vec![common::endpoint(engine.address)];
            route.tokenizer = common::tokenizer(&[engine.address]);
        });
    };
    let (replies, ()) = tokio::join!(requests, waker);
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert_eq!(engine.bundles.load(Ordering::SeqCst), 1, "five requests, one fetch");
}

#[tokio::test]
async fn a_model_that_does_not_wake_says_why() {
    let world = World::new(&[]).await;
    let reply = world.chat(json!({})).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["retry-after"], "5");
    let expected = json!({"error": {
        "message": "The model chat does not serve after 0 s: asleep: no request for 5 min",
        "type": "server_error", "param": null, "code": "model_unavailable",
    }});
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_request_at_its_deadline_gets_a_504_and_holds_nothing() {
    let engine = Engine::start(|_, _| events(futures::stream::pending())).await;
    let mut world = World::peers(&[engine.address], 1000).await;
    world.args.request_timeout_seconds = 1;
    world.operator.change(|snapshot| {
        let mut asleep = snapshot.models["demo/chat"].clone();
        (asleep.name, asleep.endpoints, asleep.wake_deadline) = ("asleep".into(), vec![], Millis(20_000));
        snapshot.models.insert("demo/asleep".into(), asleep);
    });
    world.start().await;
    let (working, waiting) = tokio::join!(world.chat(json!({})), world.chat(json!({"model": "asleep"})));
    for reply in [working, waiting] {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("deadline_exceeded")));
    }
    common::eventually("settled", || !world.ledger.accounts.lock().unwrap().settled.is_empty()).await;
    let accounts = world.ledger.accounts.lock().unwrap();
    assert_eq!((accounts.reserved.len(), accounts.held.len()), (1, 0));
    // The replica had the prompt; what it made of it nobody knows.
    assert_eq!((accounts.used(), accounts.only().usage.outcome.as_str()), (5, "deadline_exceeded"));
}

#[tokio::test]
async fn who_waits_long_for_a_stream_hears_so_and_gets_the_error_in_it() {
    let world = World::new(&[]).await;
    world.operator.change(|snapshot| snapshot.models.get_mut("demo/chat").unwrap().wake_deadline = Millis(11_000));
    let version = "quartermaster_gateway_snapshot_version";
    while world.metric(version).await != Some(2.0) {}
    let (streamed, whole) = tokio::join!(world.chat(json!({"stream": true})), world.chat(json!({})));
    assert_eq!((streamed.status, whole.status), (200, 503));
    let text = String::from_utf8(streamed.bytes.to_vec()).unwrap();
    let error = text.strip_prefix(": waiting\n\ndata: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    assert_eq!(error.as_bytes(), whole.bytes);
}

#[tokio::test]
async fn without_a_ledger_nothing_is_served() {
    let engine = Engine::answering(2).await;
    let world = World::new(&[engine.address]).await;
    world.ledger.away.store(true, Ordering::SeqCst);
    let reply = world.chat(json!({})).await;
    assert_eq!((reply.status, engine.calls()), (503, 0));
    assert_eq!(reply.json()["error"]["code"], "ledger_unavailable");
    assert!(reply.headers.contains_key("retry-after"));
    world.ledger.away.store(false, Ordering::SeqCst);
    // What the ledger may have held for it is given back.
    let released = || world.ledger.accounts.lock().unwrap().released.len() == 1;
    common::eventually("released", released).await;
    assert_eq!(world.chat(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_ledger_that_goes_away_in_between_gets_the_settlement_later() {
    let engine = Engine::answering(2).await;
    let world = World::new(&[engine.address]).await;
    assert_eq!(world.chat(json!({})).await.status, 200);
    let settled = || world.ledger.accounts.lock().unwrap().settled.len() == 1;
    common::eventually("settled", settled).await;
    let reply = {
        let script = Engine::start(|_, body| answer(&body, 2)).await;
        world.operator.change(|snapshot| {
            snapshot.models.get_mut("demo/chat").unwrap().endpoints = vec![common::endpoint(script.address)];
        });
        let request = world.chat(json!({}));
        let (reply, ()) = tokio::join!(request, async {
            let reserved = || world.ledger.accounts.lock().unwrap().reserved.len() == 2;
            common::eventually("reserved", reserved).await;
            world.ledger.away.store(true, Ordering::SeqCst);
        });
        reply
    };
    assert_eq!(reply.status, 200);
    world.ledger.away.store(false, Ordering::SeqCst);
    common::eventually("settled later", || world.ledger.accounts.lock().unwrap().settled.len() == 2).await;
    assert_eq!(world.ledger.accounts.lock().unwrap().used(), 14);
}

#[tokio::test]
async fn a_restart_without_the_operator_serves_on() {
    let engine = Engine::answering(2).await;
    let mut world = World::new(&[engine.address]).await;
    assert_eq!(world.chat(json!({})).await.status, 200);
    let snapshot = world.args.state_dir.join("snapshot.json");
    common::eventually("the snapshot is on disk", || snapshot.exists()).await;
    assert!(!std::fs::read_to_string(&snapshot).unwrap().contains(common::KEY), "only hashes rest on disk");
    world.stop().await;
    world.operator.away.store(true, Ordering::SeqCst);
    world.start().await;
    assert_eq!(world.chat(json!({})).await.status, 200);
    assert_eq!(engine.bundles.load(Ordering::SeqCst), 1, "the tokenizer came from disk");
    let age = world.metric("quartermaster_gateway_snapshot_age_seconds").await.unwrap();
    assert!(age.is_nan(), "this process has never heard the operator");
}

#[tokio::test]
async fn a_stopping_gateway_finishes_what_it_has() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let engine = Engine::start(move |_, _| {
        let mut wait = wait.clone();
        events(futures::stream::once(async move {
            wait.wait_for(|go| *go).await.unwrap();
            let last = json!({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]});
            Ok(Bytes::from(format!("data: {last}\n\ndata: [DONE]\n\n")))
        }))
    })
    .await;
    let mut world = World::new(&[engine.address]).await;
    let request = world.request("/v1/chat/completions", common::KEY, &common::chat(json!({"stream": true})));
    let client = world.http.clone();
    let reply = tokio::spawn(async move { common::Reply::read(client.request(request).await.unwrap()).await });
    common::eventually("the engine works", || engine.calls() == 1).await;
    let (gateway, admin) = (world.gateway.take().unwrap(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let admin = SocketAddr::new(admin.ip(), gateway.admin.port());
    let stop = tokio::spawn(gateway.stop(Duration::ZERO, Duration::from_secs(20)));
    while world.get(admin, "/readyz").await.0 != 503 {}
    release.send_replace(true);
    let reply = reply.await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.bytes.ends_with(b"data: [DONE]\n\n"));
    stop.await.unwrap();
    assert_eq!(world.ledger.accounts.lock().unwrap().only().usage.outcome, "stop");
}

/// The real binary, so that it can be killed.
struct Process {
    child: Child,
    public: SocketAddr,
}

impl Process {
    async fn start(world: &World) -> Self {
        let args = &world.args;
        let mut child = Command::new(env!("CARGO_BIN_EXE_quartermaster-gateway"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--operator-url", &args.operator_url, "--ledger-url", &args.ledger_url])
            .arg("--internal-token-file")
            .arg(&args.internal_token_file)
            .arg("--state-dir")
            .arg(&args.state_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, told) = std::sync::mpsc::channel();
        // Reads to the end, so that the process never meets a closed pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let log: Value = serde_json::from_str(&line).unwrap();
                if log["message"] == "the gateway listens" {
                    let address = |name: &str| log[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
                    tell.send((address("public"), address("admin"))).unwrap();
                }
            }
        });
        let (public, admin) = told.recv().expect("the gateway says where it listens");
        while world.get(admin, "/readyz").await.0 != 200 {}
        Self { child, public }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_gateway_held_is_settled_in_full_by_the_next_one() {
    let engine = Engine::start(|_, _| {
        let piece = format!("data: {}\n\n", json!({"choices": [{"delta": {"content": "x"}}]}));
        let first = futures::stream::iter([Ok(Bytes::from(piece))]);
        events(futures::StreamExt::chain(first, futures::stream::pending()))
    })
    .await;
    let world = World::peers(&[engine.address], 1000).await;
    let process = Process::start(&world).await;
    let uri = format!("http://{}/v1/chat/completions", process.public);
    let body = common::chat(json!({"stream": true, "max_tokens": 7})).to_string();
    let request = http::Request::post(uri).header("authorization", format!("Bearer {}", common::KEY));
    let request = request.body(http_body_util::Full::from(body)).unwrap();
    let mut response = world.http.request(request).await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    drop(process);
    assert!(world.ledger.accounts.lock().unwrap().settled.is_empty());
    for _ in 0..2 {
        let _next = Process::start(&world).await;
        let settled = || world.ledger.accounts.lock().unwrap().settled.len() == 1;
        common::eventually("settled by the next one", settled).await;
        let accounts = world.ledger.accounts.lock().unwrap();
        assert_eq!((accounts.used(), accounts.held.len()), (12, 0));
        assert_eq!(accounts.only().usage.outcome, "gateway_crash");
    }
}
