//! Clients of every manner, good and bad.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

use crate::bench::inference::host::MODEL;
use crate::bench::inference::prompts::prompt;

/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Pause of a client that was told to come again.
const COME_AGAIN: Duration = Duration::from_millis(300);
/// A slow reader's pause between two pieces.
const SLOW: Duration = Duration::from_millis(40);
/// Tokens that many prompts share.
const SHARED: u64 = 200;

/// What a request is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Short,
    Long,
    SharedPrefix,
    Leaves,
    ReadsSlowly,
    Schema,
    Embeds,
    Nonsense,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Short,
        Self::Long,
        Self::SharedPrefix,
        Self::Leaves,
        Self::ReadsSlowly,
        Self::Schema,
        Self::Embeds,
        Self::Nonsense,
    ];

    fn of(nth: u64) -> Self {
        let at = usize::try_from(nth % 8).unwrap_or(0);
        Self::ALL.get(at).copied().unwrap_or(Self::Short)
    }
}

/// What became of requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    done: BTreeMap<Kind, u64>,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
}

impl Tally {
    pub(super) fn of(&self, kind: Kind) -> u64 {
        self.done.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn done(&self) -> u64 {
        self.done.values().sum()
    }

    pub(super) fn add(&mut self, other: Self) {
        for (kind, count) in other.done {
            *self.done.entry(kind).or_default() += count;
        }
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// One client until `end`: every kind of request in turn.
pub(super) async fn work(base: String, client: u64, clients: u64, end: Instant) -> Result<Tally> {
    let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().context("could not make a client")?;
    let mut tally = Tally::default();
    let mut nth = client;
    while Instant::now() < end {
        // Nobody asks for the same kind all the time: there are more clients than kinds, and not a multiple.
        let kind = Kind::of(nth / clients + client);
        match ask(&http, &base, kind, nth).await {
            Ok(true) => *tally.done.entry(kind).or_default() += 1,
            Ok(false) => tokio::time::sleep(COME_AGAIN).await,
            Err(error) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| format!("{kind:?}: {error:#}"));
                tokio::time::sleep(COME_AGAIN).await;
            }
        }
        nth += clients;
    }
    Ok(tally)
}

/// One request; false where the server was full and said so.
async fn ask(http: &reqwest::Client, base: &str, kind: Kind, nth: u64) -> Result<bool> {
    let shared = prompt(SHARED, 0);
    let text = |prompt: String, tokens: u64| {
        json!({"model": MODEL, "prompt": prompt, "max_tokens": tokens, "temperature": 0.8, "seed": nth,
               "ignore_eos": true, "stream": true})
    };
    let (path, body) = match kind {
        Kind::Short | Kind::Leaves => ("completions", text(prompt(24, nth), 48)),
        Kind::Long => ("completions", text(prompt(400, nth), 24)),
        Kind::SharedPrefix => {
            let mut body = text(format!("{shared} {}", prompt(16, nth)), 16);
            (body["n"], body["stream"]) = (json!(2), json!(false));
            ("completions", body)
        }
        Kind::ReadsSlowly => ("completions", text(prompt(32, nth), 64)),
        Kind::Schema => ("chat/completions", chat(nth)),
        Kind::Embeds => ("embeddings", json!({"model": MODEL, "input": [prompt(20, nth), prompt(60, nth + 1)]})),
        Kind::Nonsense => ("completions", json!({"model": MODEL, "prompt": "x", "max_tokens": "many"})),
    };
    let request = http.post(format!("{base}/v1/{path}")).header("content-type", "application/json");
    let response = request.body(body.to_string()).send().await.context("no answer")?;
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(false);
    }
    if kind == Kind::Nonsense {
        ensure!(status == StatusCode::BAD_REQUEST, "status {status}");
        return Ok(true);
    }
    if !status.is_success() {
        anyhow::bail!("status {status}: {}", response.text().await.unwrap_or_default());
    }
    match kind {
        Kind::Leaves => leave(response, nth).await,
        Kind::SharedPrefix | Kind::Schema | Kind::Embeds => whole(response, kind).await,
        _ => read(response, if kind == Kind::ReadsSlowly { SLOW } else { Duration::ZERO }).await,
    }?;
    Ok(true)
}

fn chat(nth: u64) -> Value {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["ship", "days"],
        "properties": {"ship": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 0, "maximum": 99}},
    });
    json!({
        "model": MODEL, "max_tokens": 60, "temperature": 0.5, "seed": nth,
        "messages": [{"role": "user", "content": format!("Name a ship and days at sea, number {nth}.")}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "voyage", "strict": true, "schema": schema}},
    })
}

/// Goes away in the middle, sooner or later.
async fn leave(response: reqwest::Response, nth: u64) -> Result<()> {
    let mut pieces = response.bytes_stream();
    for _ in 0..=(nth / 8 % 12) {
        if pieces.next().await.transpose().context("the stream broke off")?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Reads a stream to its end.
async fn read(response: reqwest::Response, pause: Duration) -> Result<()> {
    let mut pieces = response.bytes_stream();
    let mut tail = Vec::new();
    while let Some(piece) = pieces.next().await {
        tail = [tail, piece.context("the stream broke off")?.to_vec()].concat();
        tail = tail.split_off(tail.len().saturating_sub(64));
        tokio::time::sleep(pause).await;
    }
    let end = String::from_utf8_lossy(&tail);
    ensure!(end.trim_end().ends_with("data: [DONE]"), "the stream ended with {end:?}");
    Ok(())
}

async fn whole(response: reqwest::Response, kind: Kind) -> Result<()> {
    let text = response.text().await.context("the body broke off")?;
    let answer: Value = serde_json::from_str(&text).context("the answer is no JSON")?;
    let count = |list: &str| answer[list].as_array().map_or(0, Vec::len);
    match kind {
        Kind::SharedPrefix => ensure!(count("choices") == 2, "{text}"),
        Kind::Embeds => ensure!(count("data") == 2, "{text}"),
        _ => {
            let content = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            let cut = answer["choices"][0]["finish_reason"] == "length";
            ensure!(cut || serde_json::from_str::<Value>(content).is_ok(), "no JSON: {content:?}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_comes_to_every_kind() {
        for client in 0..12 {
            let kinds: std::collections::BTreeSet<Kind> =
                (0..8).map(|turn| Kind::of((client + turn * 12) / 12 + client)).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "client {client}");
        }
    }
}
