//! CPU of the request path without sockets: who asks, what for, how many tokens, what goes upstream.
//! Goal: 200 µs a request of 1,000 prompt tokens (a gateway core carries 5,000 requests a second).
#![allow(missing_docs, clippy::expect_used, reason = "a test may panic")]

use criterion::{Criterion, criterion_group, criterion_main};
use quartermaster_core::units::Tokens;
use quartermaster_core::wire::gateway::{ApiKey, GatewaySnapshot, TokenLimits};
use quartermaster_core::wire::serve::TokenizerBundle;
use quartermaster_gateway::catalogue::View;
use quartermaster_gateway::metrics::Metrics;
use quartermaster_gateway::request::identify::identify;
use quartermaster_gateway::request::parse::{Api, parse, rewrite};
use quartermaster_gateway::tokenizer::Counter;
use quartermaster_gateway::upstream::sse::{Splitter, read};
use quartermaster_gateway::{admit, respond};
use serde_json::json;
use std::hint::black_box;

/// Byte-level BPE without merges: the dearest vocabulary per byte, so the figure is an upper bound.
fn counter() -> Counter {
    let vocabulary: serde_json::Map<_, _> =
        (0u32..0x180).filter_map(char::from_u32).map(|c| (c.to_string(), json!(u32::from(c)))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": false},
    });
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    let bundle = TokenizerBundle {
        hash: String::new(),
        tokenizer_json: tokenizer.to_string(),
        chat_template: Some(template.into()),
        bos_token: None,
        eos_token: None,
        add_bos: false,
        add_eos: false,
        context_tokens: 8192,
    };
    Counter::new(bundle).expect("the bench's tokenizer is sound")
}

fn request(criterion: &mut Criterion) {
    let content = "The quartermaster of a ship issues rations to the crew. ".repeat(16);
    let body =
        respond::json(&json!({"model": "m", "messages": [{"role": "user", "content": content}], "stream": true}));
    let now = jiff::Timestamp::UNIX_EPOCH;
    let counter = counter();
    let limits = TokenLimits { max_context: Tokens(8192), ..TokenLimits::default() };
    criterion.bench_function("request/parse_rewrite_1kb", |bencher| {
        bencher.iter(|| {
            let mut asked = parse(Api::Chat, black_box(&body)).expect("a sound body");
            rewrite(&mut asked, "engine", Tokens(100))
        });
    });
    criterion.bench_function("request/parse_count_admit_rewrite_1kb", |bencher| {
        bencher.iter(|| {
            let mut asked = parse(Api::Chat, black_box(&body)).expect("a sound body");
            let prompt = counter.count(&asked.prompt, now).expect("a sound prompt");
            let bounds = admit::bounds(&limits, &asked, prompt).expect("it fits");
            rewrite(&mut asked, "engine", admit::afforded(bounds.want, prompt, 1))
        });
    });
}

fn identity(criterion: &mut Criterion) {
    let key = ApiKey { namespace: "demo".into(), subject: "demo/alice".into(), budgets: vec![] };
    let keys = (0u32..10_000).map(|n| (format!("{n:064x}"), key.clone())).collect();
    let snapshot = GatewaySnapshot { key_salt: "00".repeat(32), keys, ..GatewaySnapshot::default() };
    let view = View::compile(snapshot, &Metrics::default()).expect("a sound snapshot");
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", http::HeaderValue::from_static("Bearer sk-0123456789abcdef0123456789abcdef"));
    criterion.bench_function("request/identify_among_10k", |bencher| {
        bencher.iter(|| identify(black_box(&headers), &view).is_err());
    });
}

fn stream(criterion: &mut Criterion) {
    let event = format!("data: {}\n\n", json!({"id": "x", "choices": [{"index": 0, "delta": {"content": " word"}}]}));
    criterion.bench_function("stream/meter_200_events", |bencher| {
        bencher.iter(|| {
            let mut splitter = Splitter::default();
            (0..200)
                .filter_map(|_| {
                    splitter.push(black_box(event.as_bytes())).ok()?;
                    Some(read(&splitter.next_event()?).pieces)
                })
                .sum::<u64>()
        });
    });
}

criterion_group!(benches, request, identity, stream);
criterion_main!(benches);
