//! A client that streams `/v1/completions` and says when each piece of text came.

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

use super::host::MODEL;

/// Longest answer that a measurement waits for.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// Longest event of a stream; more is no server of ours.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
}

/// What a request consumed, as the server says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    /// Tokens of the prompt.
    pub(super) prompt_tokens: u64,
    /// Tokens of the answer.
    pub(super) completion_tokens: u64,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
}

impl Client {
    /// A client of the server at `base`.
    pub(super) fn new(base: &str) -> Result<Self> {
        // A connection for each request: one was closed by llama-server before its answer, and a kept one may have been why.
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).pool_max_idle_per_host(0);
        let http = http.build().context("could not make a client")?;
        Ok(Self { http, url: format!("{base}/v1/completions") })
    }

    /// Generates just `tokens` tokens greedily; `on_text` hears of every piece of text.
    pub(super) async fn stream(&self, prompt: &str, tokens: u64, mut on_text: impl FnMut(Instant)) -> Result<Usage> {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 1,
            // The model's special tokens have no text, so nobody would count them. `llama-server` draws none of them anyway
            // where the end is to be ignored.
            "logit_bias": {"0": -100, "1": -100, "2": -100},
            "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}});
        let request = self.http.post(&self.url).header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.with_context(|| format!("no answer from {}", self.url))?;
        let status = response.status();
        if !status.is_success() {
            bail!("status {status}: {}", response.text().await.unwrap_or_default());
        }
        let mut bytes = response.bytes_stream();
        let (mut events, mut usage) = (Events::default(), None);
        while let Some(piece) = bytes.next().await {
            let now = Instant::now();
            for event in events.push(&piece.context("the stream broke off")?)? {
                let chunk: Chunk =
                    serde_json::from_str(&event).with_context(|| format!("the server sent {event:?}"))?;
                if let Some(error) = chunk.error {
                    bail!("the stream ended with {error}");
                }
                if chunk.choices.iter().any(|choice| !choice.text.is_empty()) {
                    on_text(now);
                }
                usage = chunk.usage.or(usage);
            }
        }
        usage.context("the stream ended without usage")
    }
}

/// Server-sent events, cut out of the bytes as they come.
#[derive(Debug, Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    /// The data of every event that these bytes complete, but for the last one's `[DONE]`.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>> {
        self.rest.extend_from_slice(bytes);
        ensure!(self.rest.len() <= EVENT_BYTES_MAX, "an event is longer than {EVENT_BYTES_MAX} bytes");
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end.saturating_add(1));
        let whole = String::from_utf8(std::mem::replace(&mut self.rest, rest)).context("an event is no text")?;
        let data = whole.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        Ok(data.filter(|data| *data != "[DONE]").map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let stream = "data: {\"a\": \"é\"}\n\n: ping\n\ndata: {}\n\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..stream.len() {
            let mut events = Events::default();
            let (left, right) = stream.split_at(cut);
            let mut found = events.push(left).unwrap();
            found.extend(events.push(right).unwrap());
            assert_eq!(found, ["{\"a\": \"é\"}", "{}"], "cut at {cut}");
        }
    }

    #[test]
    fn usage_and_text_are_read_from_both_servers_chunks() {
        let ours: Chunk = serde_json::from_str(r#"{"choices":[{"index":0,"text":"a"}],"usage":null}"#).unwrap();
        assert!(ours.usage.is_none() && ours.choices[0].text == "a");
        let last: Chunk =
            serde_json::from_str(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#).unwrap();
        assert_eq!(last.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 2 }));
    }
}
