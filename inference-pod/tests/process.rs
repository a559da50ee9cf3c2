//! The binary with llama.cpp on a tiny model: serving, refusing, draining.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::gguf::{Options, bytes, write};
use support::process::{BINARY, Pod, write_config};

fn folder(options: &Options) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.gguf"), options);
    write_config(folder.path(), |_| {});
    folder
}

async fn complete(url: &str, prompt: &str, extra: Value) -> Value {
    let mut body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 24, "ignore_eos": true, "temperature": 0});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let sent =
        reqwest::Client::new().post(format!("{url}/v1/completions")).body(body.to_string()).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    serde_json::from_str(&sent.text().await.unwrap()).unwrap()
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn together_or_alone_the_answers_are_the_same() {
    let mut pod = Pod::start(folder(&Options::default()), &["--linger-seconds", "0"]);
    let url = pod.ready();
    let prompts: Vec<String> =
        (0..6).map(|n| format!("{} and the {n} in an error", "the and ".repeat(n * 7))).collect();
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(complete(&url, prompt, json!({})).await);
    }
    let together = futures::future::join_all(prompts.iter().map(|prompt| complete(&url, prompt, json!({})))).await;
    for (one, other) in alone.iter().zip(&together) {
        let counts = |answer: &Value| ["prompt_tokens", "completion_tokens"].map(|key| answer["usage"][key].clone());
        assert_eq!((text(one), counts(one)), (text(other), counts(other)));
        assert_eq!(one["usage"]["completion_tokens"], 24);
    }
    // What the first run computed was not computed again, and changed nothing.
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(together.iter().map(cached).sum::<u64>() > 0);
    let distinct: std::collections::BTreeSet<&str> = alone.iter().map(text).collect();
    assert!(distinct.len() > 1, "the model answers everything alike: the test would see nothing");
    let warm = json!({"temperature": 1.5, "top_p": 0.95, "seed": 7});
    let (first, again) = (complete(&url, "the", warm.clone()).await, complete(&url, "the", warm).await);
    assert_eq!(text(&first), text(&again));
    let other = complete(&url, "the", json!({"temperature": 1.5, "top_p": 0.95, "seed": 8})).await;
    assert_ne!(text(&first), text(&other));
    // What the gateway would count is what was counted here.
    let bundle = reqwest::get(format!("{url}/tokenizer")).await.unwrap().text().await.unwrap();
    let bundle: quartermaster_core::wire::serve::TokenizerBundle = serde_json::from_str(&bundle).unwrap();
    let tokenizer: tokenizers::Tokenizer = bundle.tokenizer_json.parse().unwrap();
    let counted = tokenizer.encode(prompts[3].as_str(), false).unwrap().len();
    assert_eq!(alone[3]["usage"]["prompt_tokens"], json!(counted));
    pod.terminate();
    assert!(pod.wait().success());
    assert_eq!(pod.last_words(), Value::Null);
}

async fn embed(url: &str, input: Value, extra: Value) -> (u16, Value) {
    let mut body = json!({"model": "tiny", "input": input});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let sent = reqwest::Client::new().post(format!("{url}/v1/embeddings")).body(body.to_string()).send().await.unwrap();
    (sent.status().as_u16(), serde_json::from_str(&sent.text().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_embedded_beside_answers() {
    let mut pod = Pod::start(folder(&Options::default()), &["--linger-seconds", "0"]);
    let url = pod.ready();
    let vector = |answer: &Value, at: usize| -> Vec<f64> {
        let numbers = answer["data"][at]["embedding"].as_array().unwrap();
        numbers.iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let long = "the end and the error ".repeat(12);
    let (answer, (status, all)) = futures::future::join(
        complete(&url, "the", json!({})),
        embed(&url, json!(["the end", "an error", long]), json!({})),
    )
    .await;
    assert_eq!((status, all["data"].as_array().unwrap().len()), (200, 3), "{all}");
    assert_eq!(answer["usage"]["completion_tokens"], 24);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for at in 0..3 {
        assert!((product(&vector(&all, at), &vector(&all, at)) - 1.0).abs() < 1e-4);
    }
    assert!(product(&vector(&all, 0), &vector(&all, 1)) < 0.999, "different texts differ");
    // Alone, and as its tokens, it is the same; a text of several batches too.
    let counted = |text: &str| {
        let (_, answer) =
            run(&["tokenize", "--model", &pod.folder.path().join("model.gguf").display().to_string(), "--text", text]);
        answer["tokens"].clone()
    };
    assert!(counted(&long).as_array().unwrap().len() > 64);
    for (text, at) in [("the end", 0), (long.as_str(), 2)] {
        let (_, alone) = embed(&url, counted(text), json!({})).await;
        assert!(product(&vector(&alone, 0), &vector(&all, at)) > 0.9999);
    }
    let (_, encoded) = embed(&url, json!("the end"), json!({"encoding_format": "base64"})).await;
    assert_eq!(encoded["data"][0]["embedding"].as_str().unwrap().len(), (64_usize * 4).div_ceil(3) * 4);
    assert_eq!(encoded["usage"]["prompt_tokens"], counted("the end").as_array().unwrap().len());
    for (input, extra) in [(json!("x ".repeat(600)), json!({})), (json!(""), json!({})), (json!([9999]), json!({}))] {
        assert_eq!(embed(&url, input, extra).await.0, 400);
    }
    assert_eq!(embed(&url, json!("a"), json!({"dimensions": 3})).await.1["error"]["param"], "dimensions");
    pod.terminate();
    assert!(pod.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_memory_has_no_room_for_embeddings_the_rest_is_served() {
    let folder = folder(&Options::default());
    let model = folder.path().join("model.gguf").display().to_string();
    let (_, estimate) = run(&["estimate", "--model", &model, "--context", "256", "--slots", "4"]);
    write_config(folder.path(), |config| config["memoryLimitBytes"] = estimate["totalBytes"].clone());
    let mut pod = Pod::start(folder, &["--linger-seconds", "0"]);
    let url = pod.ready();
    let (status, answer) = embed(&url, json!("a"), json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (501, &json!("embeddings_not_supported")));
    assert_eq!(complete(&url, "the", json!({})).await["usage"]["completion_tokens"], 24);
    pod.terminate();
    assert!(pod.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_cache_is_held_the_answers_are_the_same_and_beginnings_are_shared() {
    let prompts: Vec<String> = (0..6).map(|n| format!("{} {n}", "the and in error ".repeat(8))).collect();
    let mut answers = Vec::new();
    for flags in [
        ["--unified-kv", "on", "--flash-attention", "on"],
        ["--unified-kv", "off", "--flash-attention", "on"],
        ["--unified-kv", "off", "--flash-attention", "off"],
    ] {
        let pod = Pod::start(folder(&Options::default()), &flags);
        let url = pod.ready();
        let extra = json!({"max_tokens": 6});
        let got = futures::future::join_all(prompts.iter().map(|prompt| complete(&url, prompt, extra.clone()))).await;
        let total = |key: &str| got.iter().map(|answer| answer["usage"][key].as_u64().unwrap()).sum::<u64>();
        let cached = got.iter().map(|a| a["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap());
        let computed = total("prompt_tokens") - cached.sum::<u64>();
        // Six prompts that differ in their end: the beginning is computed once.
        assert!(computed < total("prompt_tokens") / 3, "{flags:?}: {computed} of {}", total("prompt_tokens"));
        answers.push(got.iter().map(|answer| text(answer).to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_draft_the_answers_are_the_same() {
    let quantize = |folder: &Path, name: &str, precision: &str| {
        let (from, to) = (folder.join("model.gguf"), folder.join(name));
        let mut quantize = Command::new(BINARY);
        quantize.args(["quantize", "--type", precision, "--in"]).arg(from).arg("--out").arg(to);
        assert!(quantize.output().unwrap().status.success());
    };
    let started = |draft: Option<&str>, flags: &[&str]| {
        let folder = folder(&Options::default());
        quantize(folder.path(), "q8.gguf", "Q8_0");
        let path = |name: &str| folder.path().join(name);
        write_config(folder.path(), |config| {
            config["variants"] = json!([
                {"name": "f32", "path": path("model.gguf"), "precision": "F32"},
                {"name": "q8", "path": path("q8.gguf"), "precision": "Q8_0"},
            ]);
            config["draft"] = json!(draft);
        });
        Pod::start(folder, &[&["--linger-seconds", "0"], flags].concat())
    };
    let (plain, guessing) = (started(None, &[]), started(Some("q8"), &["--draft-tokens", "4"]));
    let (plain_url, guessing_url) = (plain.ready(), guessing.ready());
    for at in 0..6 {
        // Greedy, and drawn with a seed: what is drawn decides what holds, so the answer is what it would have been.
        let temperature = f64::from(at % 2) * 0.8;
        let extra = json!({"max_tokens": 60, "temperature": temperature, "seed": at, "logprobs": 2});
        let prompt = format!("the {at} and then");
        let (one, other) =
            (complete(&plain_url, &prompt, extra.clone()).await, complete(&guessing_url, &prompt, extra).await);
        assert_eq!(
            (text(&one), &one["usage"]["completion_tokens"]),
            (text(&other), &other["usage"]["completion_tokens"])
        );
    }
    let together = (0..4).map(|at| complete(&guessing_url, "the same", json!({"max_tokens": 40 + at, "n": 2})));
    for answer in futures::future::join_all(together).await {
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() >= 80, "{answer}");
    }
    let page = reqwest::get(format!("{guessing_url}/metrics")).await.unwrap().text().await.unwrap();
    let figure = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (guessed, held) = (figure("vllm:spec_decode_num_draft_tokens"), figure("vllm:spec_decode_num_accepted_tokens"));
    assert!(guessed > 100.0 && held > guessed * 0.3, "of {guessed} guesses {held} held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_sigterm_what_is_in_flight_is_finished() {
    let mut pod = Pod::start(folder(&Options::default()), &["--linger-seconds", "3"]);
    let url = pod.ready();
    let requests: Vec<_> = (0..8)
        .map(|n| {
            let url = url.clone();
            tokio::spawn(async move { complete(&url, &format!("the {n}"), json!({"max_tokens": 200})).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    pod.terminate();
    // Not ready at once, and still serving for a while.
    let mut status = 200;
    for _ in 0..40 {
        status = reqwest::get(format!("{url}/readyz")).await.unwrap().status().as_u16();
        if status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, 503);
    assert_eq!(complete(&url, "late", json!({})).await["usage"]["completion_tokens"], 24);
    for request in requests {
        assert_eq!(request.await.unwrap()["usage"]["completion_tokens"], 200);
    }
    assert!(pod.wait().success());
}

/// Runs until it ends by itself; returns the exit code and the last words.
fn refused(folder: tempfile::TempDir) -> (Option<i32>, Value) {
    let mut pod = Pod::start(folder, &[]);
    let code = pod.wait().code();
    (code, pod.last_words())
}

#[test]
fn each_refusal_has_its_code_and_its_words() {
    let truncated = folder(&Options::default());
    let whole = bytes(&Options::default());
    std::fs::write(truncated.path().join("model.gguf"), &whole[..whole.len() / 2]).unwrap();
    let (code, words) = refused(truncated);
    assert_eq!((code, &words["reason"]), (Some(65), &json!("CorruptModel")));
    assert!(words["message"].as_str().unwrap().contains("truncated"), "{words}");

    let missing = folder(&Options::default());
    std::fs::remove_file(missing.path().join("model.gguf")).unwrap();
    assert_eq!(refused(missing).1["reason"], "ModelNotFound");

    let large = folder(&Options::default());
    write_config(large.path(), |config| config["memoryLimitBytes"] = json!(20_000_000));
    let (code, words) = refused(large);
    assert_eq!((code, &words["reason"]), (Some(77), &json!("ModelTooLarge")));
    let message = words["message"].as_str().unwrap();
    assert!(message.contains("KV cache") && message.contains("the limit is 19 MiB"), "{message}");

    let mut narrow = Pod::start(folder(&Options::default()), &["--kv-precision", "q8_0"]);
    assert_eq!(narrow.wait().code(), Some(78));
    assert!(narrow.last_words()["message"].as_str().unwrap().contains("heads of 16"), "{}", narrow.last_words());

    let wrong = folder(&Options::default());
    write_config(wrong.path(), |config| config["contextTokens"] = json!(100_000));
    let (code, words) = refused(wrong);
    assert_eq!((code, &words["reason"]), (Some(78), &json!("BadConfig")));
    assert!(words["message"].as_str().unwrap().contains("trained for at most 512"), "{words}");
}

#[test]
fn even_an_abort_inside_the_engine_leaves_words() {
    let (code, words) = refused(folder(&Options { duplicate: true, ..Options::default() }));
    assert_ne!(code, Some(0));
    assert_eq!(words["reason"], "CorruptModel", "{words}");
}

fn run(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer)
}

#[test]
fn the_tools_measure_and_quantize() {
    let folder = folder(&Options::default());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (model, small) = (path("model.gguf"), path("q8.gguf"));
    let (code, answer) = run(&["quantize", "--in", &model, "--out", &small, "--type", "q8_0"]);
    assert_eq!(code, Some(0));
    assert!(answer["outputBytes"].as_u64().unwrap() < answer["inputBytes"].as_u64().unwrap() * 2 / 3, "{answer}");
    assert_eq!(run(&["quantize", "--in", &model, "--out", &small, "--type", "Q9"]).0, Some(78));
    assert_eq!(run(&["quantize", "--in", &path("none"), "--out", &small, "--type", "F16"]).0, Some(66));

    let prose = path("prose.txt");
    std::fs::write(&prose, "the error and the end in an error. ".repeat(40)).unwrap();
    let perplexity = |model: &str| {
        let (code, answer) = run(&["perplexity", "--model", model, "--text", &prose, "--window", "64"]);
        assert_eq!(code, Some(0));
        (answer["ppl"].as_f64().unwrap(), answer["tokens"].as_u64().unwrap())
    };
    let (whole, quantized) = (perplexity(&model), perplexity(&small));
    assert_eq!(whole.1, quantized.1);
    assert!(whole.0 > 1.0 && (whole.0 / quantized.0 - 1.0).abs() < 0.05, "{whole:?} {quantized:?}");

    let (_, tokens) = run(&["tokenize", "--model", &model, "--text", "the end"]);
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let (_, inspected) = run(&["inspect", "--model", &model]);
    assert_eq!((&inspected["architecture"], &inspected["vocabulary"]), (&json!("llama"), &json!(273)));
    let (_, estimate) = run(&["estimate", "--model", &model, "--context", "256", "--slots", "2"]);
    assert_eq!(estimate["kvBytes"], 128 * 2 * 256 * 2);
}
