//! The gateway against the real ledger on its real database: a budget is never overspent, and the book adds up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::{Engine, World, answer};
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use quartermaster_core::units::Tokens;
use quartermaster_core::wire::ledger::{Balance, Budget, Budgets, CalendarUnit, Period, Window};
use quartermaster_ledger::clock::Clock;
use quartermaster_ledger::server::Ledger;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const BUDGET: u64 = 400;

async fn ledger(world: &World) -> SocketAddr {
    let args = quartermaster_ledger::args::Args {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: world.state.path().join("ledger"),
        internal_token_file: world.args.internal_token_file.clone(),
        log: "off".into(),
    };
    std::fs::create_dir_all(&args.data_dir).unwrap();
    let ledger = Ledger::open(&args, Clock::system()).await.unwrap();
    let (api, _) = ledger.addresses().unwrap();
    tokio::spawn(ledger.serve(std::future::pending()));
    api
}

async fn call(world: &World, method: http::Method, at: SocketAddr, path: &str, body: String) -> Bytes {
    let request = http::Request::builder().method(method).uri(format!("http://{at}{path}"));
    let request = request.header("authorization", "Bearer internal").header("content-type", "application/json");
    let response = world.http.request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{path}: {status} {body:?}");
    body
}

async fn balance(world: &World, at: SocketAddr) -> Balance {
    let bytes = call(world, http::Method::GET, at, "/v1/balances", String::new()).await;
    let balances: Vec<Balance> = serde_json::from_slice(&bytes).unwrap();
    balances.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_against_one_budget() {
    let engine = Engine::start(|turn, body| answer(&body, u64::try_from(turn % 20).unwrap() + 1)).await;
    let mut world = World::peers(&[engine.address], 0).await;
    let at = ledger(&world).await;
    let window = Window {
        name: "day".into(),
        period: Period::Calendar { unit: CalendarUnit::Year, time_zone: "UTC".into() },
        tokens: Some(Tokens(BUDGET)),
        nano_usd: None,
    };
    let budgets = Budgets { epoch: 1, budgets: vec![Budget { id: "demo/team".into(), windows: vec![window] }] };
    call(&world, http::Method::PUT, at, "/v1/budgets", serde_json::to_string(&budgets).unwrap()).await;
    world.args.ledger_url = format!("http://{at}");
    world.start().await;
    let replies = futures::stream::iter(0..60).map(|_| world.chat(json!({}))).buffer_unordered(20);
    let replies: Vec<_> = replies.collect().await;
    let served: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert!(replies.iter().all(|reply| [200, 429].contains(&reply.status)), "{replies:?}");
    assert!(served.len() < replies.len(), "the budget was never reached");
    let sum: u64 = served.iter().map(|reply| reply.json()["usage"]["total_tokens"].as_u64().unwrap()).sum();
    let end = Instant::now() + Duration::from_secs(20);
    let last = loop {
        let balance = balance(&world, at).await;
        assert!(balance.settled.tokens.saturating_add(balance.held.tokens) <= Tokens(BUDGET), "{balance:?}");
        if balance.held.tokens == Tokens::ZERO || Instant::now() > end {
            break balance;
        }
    };
    assert_eq!((last.settled.tokens.0, last.held.tokens.0), (sum, 0));
    assert!(sum <= BUDGET && sum > BUDGET / 2, "{sum}");
}
