//! What clients and the system do to a server that serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::time::Duration;
use support::gguf::{Options, write};
use support::process::{Pod, write_config};
use support::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 1_000;
/// Of one slow reader; more than sockets hold.
const TOKENS: u32 = 60_000;

fn pod() -> Pod {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.gguf"), &Options::default());
    write_config(folder.path(), |_| {});
    Pod::start(folder, &["--linger-seconds", "0"])
}

fn request(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}", body.len());
    format!("{head}\r\n\r\n{body}").into_bytes()
}

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

fn status(answer: &[u8]) -> u16 {
    let line = String::from_utf8_lossy(answer.get(..answer.len().min(32)).unwrap());
    line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_are_each_answered() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let pod = pod();
    let url = pod.ready();
    // All of them are open before the first one asks.
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(connect(&url).await);
    }
    let asks = open.into_iter().enumerate().map(|(at, mut stream)| async move {
        let body = json!({"model": "tiny", "prompt": format!("the {at}"), "max_tokens": 2});
        stream.write_all(&request(&body)).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        status(&answer)
    });
    let all = futures::future::join_all(asks.map(tokio::spawn));
    let answers = tokio::time::timeout(Duration::from_secs(50), all).await.expect("some were never answered");
    let mut counts = std::collections::BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.unwrap()).or_insert(0_usize) += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), CONNECTIONS);
    assert!(counts.keys().all(|status| [200, 429].contains(status)), "{counts:?}");
    // Four slots and sixteen places in the queue for each.
    assert!(counts[&200] >= 4 + 4 * 16, "{counts:?}");
    let late = reqwest::get(format!("{url}/readyz")).await.unwrap();
    assert_eq!(late.status(), 200, "it serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_does_not_read_keeps_neither_slot_nor_answer_from_others() {
    let server = Server::scripted(1, TOKENS + 64, &"a".repeat(usize::try_from(TOKENS).unwrap())).await;
    let mut slow = connect(&server.url).await;
    let body = json!({"model": "test", "prompt": "p", "max_tokens": TOKENS, "stream": true});
    slow.write_all(&request(&body)).await.unwrap();
    // Nobody reads, and yet the only slot becomes free: what was generated waits, and is never more than was asked for.
    server.await_metric("vllm:generation_tokens_total", f64::from(TOKENS)).await;
    server.await_metric("vllm:num_requests_running", 0.0).await;
    let (status, _) = server.post("/v1/completions", json!({"model": "test", "prompt": "q", "max_tokens": 3})).await;
    assert_eq!(status, 200);
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    let events = String::from_utf8(answer).unwrap();
    let texts = events.lines().filter(|line| line.contains("\"text\":\"a\"")).count();
    assert_eq!(u32::try_from(texts).unwrap(), TOKENS, "whoever reads late misses nothing");
    assert!(events.trim_end_matches(['\r', '\n', '0']).ends_with("data: [DONE]"), "{:?}", &events[events.len() - 40..]);
    // One that goes away without ever having read leaves nothing behind.
    let mut gone = connect(&server.url).await;
    gone.write_all(&request(&body)).await.unwrap();
    server.await_metric("vllm:num_requests_running", 1.0).await;
    drop(gone);
    server.idle().await;
}

#[test]
fn whoever_is_stopped_while_loading_ends_without_blaming_the_model() {
    // At every moment of the start, as far as a test can choose one.
    for pause in [0, 5, 20, 60] {
        let mut pod = pod();
        std::thread::sleep(Duration::from_millis(pause));
        pod.terminate();
        let status = pod.wait();
        let (code, words) = (status.code(), pod.last_words());
        assert_eq!(words, Value::Null, "after {pause} ms: {status}");
        // Before it listens for signals, the system ends it.
        assert!(matches!(code, Some(0) | None), "after {pause} ms: {status}");
    }
}
