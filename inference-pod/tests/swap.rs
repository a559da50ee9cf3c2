//! From one variant to another, with llama.cpp on tiny models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::gguf::{Options, write};
use support::process::{BINARY, Pod, write_config};

const TOKEN: &str = "let-me-in";

/// Variants `f32`, `q8` of the same model, and `broken`, on which llama.cpp aborts.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("model.gguf"), &Options::default());
    write(&path("broken.gguf"), &Options { duplicate: true, ..Options::default() });
    let quantized = std::process::Command::new(BINARY)
        .args(["quantize", "--type", "Q8_0", "--in"])
        .arg(path("model.gguf"))
        .arg("--out")
        .arg(path("q8.gguf"))
        .output()
        .unwrap();
    assert!(quantized.status.success());
    write_config(folder.path(), |config| {
        let variant = |name: &str, file: &str| json!({"name": name, "path": path(file), "precision": "x"});
        config["variants"] =
            json!([variant("f32", "model.gguf"), variant("q8", "q8.gguf"), variant("broken", "broken.gguf")]);
    });
    folder
}

fn start(folder: tempfile::TempDir) -> Pod {
    let digest = hex::encode(Sha256::digest(TOKEN));
    Pod::start(folder, &["--linger-seconds", "0", "--admin-token-sha256", &digest])
}

async fn order(url: &str, variant: &str, token: &str) -> (u16, Value) {
    let request = reqwest::Client::new().post(format!("{url}/admin/variant")).bearer_auth(token);
    let answer = request.body(json!({"variant": variant}).to_string()).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn serving(url: &str) -> Value {
    let request = reqwest::Client::new().get(format!("{url}/admin/variant")).bearer_auth(TOKEN);
    serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
}

/// Asks again and again until told to stop; how many answers came, each of them whole.
fn load(url: &str, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
    let (url, stop) = (url.to_owned(), Arc::clone(stop));
    tokio::spawn(async move {
        let client = reqwest::Client::new();
        let mut answers = 0;
        while !stop.load(Ordering::SeqCst) {
            let body =
                json!({"model": "tiny", "prompt": format!("the {answers}"), "max_tokens": 40, "ignore_eos": true});
            let answer = client.post(format!("{url}/v1/completions")).body(body.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(answer["usage"]["completion_tokens"], 40);
            answers += 1;
        }
        answers
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_lost_and_what_fails_keeps_the_old() {
    let mut pod = start(folder());
    let url = pod.ready();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3).map(|_| load(&url, &stop)).collect();
    assert_eq!(order(&url, "q8", "wrong").await.0, 401);
    let (status, answer) = order(&url, "q8", TOKEN).await;
    assert_eq!((status, &answer["variant"], &answer["drained"]), (200, &json!("q8"), &json!(false)), "{answer}");
    assert_eq!(serving(&url).await, json!({"variant": "q8", "variants": ["f32", "q8", "broken"], "swapping": false}));

    let (status, answer) = order(&url, "none", TOKEN).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("unknown_variant")));
    for _ in 0..200 {
        let (status, answer) = order(&url, "broken", TOKEN).await;
        // The variant before may still be finishing its requests.
        if status == 409 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        assert_eq!((status, &answer["error"]["code"]), (422, &json!("swap_failed")), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("broken.gguf"), "{answer}");
        break;
    }
    assert_eq!(serving(&url).await["variant"], "q8");
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("quartermaster_engine_info{model_name=\"tiny\",variant=\"q8\""), "{metrics}");
    assert!(metrics.contains("quartermaster_engine_swap_seconds_count{model_name=\"tiny\",outcome=\"done\"} 1"));
    pod.terminate();
    assert!(pod.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_both_do_not_fit_the_old_one_goes_first_and_requests_wait() {
    // One fits, two don't.
    let folder = folder();
    let model = folder.path().join("model.gguf").display().to_string();
    let estimate = std::process::Command::new(BINARY)
        .args(["estimate", "--context", "256", "--slots", "4", "--model", &model])
        .output()
        .unwrap();
    let estimate: Value = serde_json::from_slice(&estimate.stdout).unwrap();
    let limit = estimate["totalBytes"].as_u64().unwrap() + 1000;
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder.path().join("serve.json")).unwrap()).unwrap();
    config["memoryLimitBytes"] = json!(limit);
    std::fs::write(folder.path().join("serve.json"), config.to_string()).unwrap();
    let mut pod = start(folder);
    let url = pod.ready();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3).map(|_| load(&url, &stop)).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, answer) = order(&url, "q8", TOKEN).await;
    assert_eq!((status, &answer["variant"], &answer["drained"]), (200, &json!("q8"), &json!(true)), "{answer}");
    assert_eq!(order(&url, "broken", TOKEN).await.0, 422);
    assert_eq!(serving(&url).await["variant"], "q8");
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    pod.terminate();
    assert!(pod.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_the_admin_endpoints_are_closed() {
    let pod = Pod::start(folder(), &[]);
    let url = pod.ready();
    assert_eq!(order(&url, "q8", TOKEN).await.0, 403);
}
