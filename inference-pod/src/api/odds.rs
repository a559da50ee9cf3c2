//! Log odds of an answer's tokens in OpenAI's two shapes, and the confidence drawn from them.

use super::request::Kind;
use super::sampling::Tell;
use crate::driver::Said;
use crate::text::TextStream;
use serde_json::{Map, Value, json};

/// What a choice's tokens said of themselves.
#[derive(Clone, Debug)]
pub(super) struct Odds {
    kind: Kind,
    tell: Tell,
    /// Not told yet.
    pending: Vec<Said>,
    /// Finds where in the text a token begins.
    text: TextStream,
    characters: usize,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tokens: u32,
    logprobs: f64,
    least: f64,
    entropy: f64,
}

impl Odds {
    pub(super) fn new(kind: Kind, tell: Tell) -> Self {
        let (text, tally) = (TextStream::default(), Tally::default());
        Self { kind, tell, pending: Vec::new(), text, characters: 0, tally }
    }

    /// A token came. One that ends the answer is no part of it.
    pub(super) fn hear(&mut self, said: Option<Box<Said>>) {
        let Some(said) = said.filter(|said| !said.ends) else { return };
        let logprob = f64::from(said.logprob);
        self.tally.tokens = self.tally.tokens.saturating_add(1);
        self.tally.logprobs += logprob;
        self.tally.least = self.tally.least.min(logprob);
        self.tally.entropy += f64::from(said.entropy.unwrap_or(0.0));
        if self.tell.logprobs.is_some() {
            self.pending.push(*said);
        }
    }

    /// The log odds that were not told yet, in the endpoint's shape; null where there are none.
    pub(super) fn take(&mut self) -> Value {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Value::Null;
        }
        match self.kind {
            Kind::Chat => json!({"content": pending.iter().map(token).collect::<Vec<Value>>(), "refusal": null}),
            Kind::Text => self.columns(&pending),
        }
    }

    fn columns(&mut self, pending: &[Said]) -> Value {
        let mut offsets = Vec::with_capacity(pending.len());
        for said in pending {
            offsets.push(self.characters);
            self.characters += self.text.push(&said.bytes).chars().count();
        }
        json!({
            "tokens": pending.iter().map(|said| text(&said.bytes)).collect::<Vec<_>>(),
            "token_logprobs": pending.iter().map(|said| said.logprob).collect::<Vec<_>>(),
            "top_logprobs": pending.iter().map(likeliest).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }

    /// How sure the model was, where asked for: an extension of ours.
    pub(super) fn confidence(&self) -> Option<Value> {
        let Tally { tokens, logprobs, least, entropy } = self.tally;
        let mean = |sum: f64| (tokens > 0).then(|| sum / f64::from(tokens));
        self.tell.confidence.then(|| {
            json!({
                "mean_logprob": mean(logprobs),
                "min_logprob": (tokens > 0).then_some(least),
                "mean_entropy": mean(entropy),
                "tokens": tokens,
            })
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn token(said: &Said) -> Value {
    let one = |bytes: &[u8], logprob: f32| json!({"token": text(bytes), "logprob": logprob, "bytes": bytes});
    let mut object = one(&said.bytes, said.logprob);
    let top = said.top.iter().map(|(bytes, logprob)| one(bytes, *logprob));
    if let Value::Object(map) = &mut object {
        map.insert("top_logprobs".into(), top.collect());
    }
    object
}

/// The likeliest tokens by text; the one that was drawn is always among them.
fn likeliest(said: &Said) -> Value {
    let top = said.top.iter().map(|(bytes, logprob)| (text(bytes), json!(logprob)));
    let mut map: Map<String, Value> = top.collect();
    map.entry(text(&said.bytes)).or_insert(json!(said.logprob));
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8], logprob: f32, ends: bool) -> Option<Box<Said>> {
        let top = vec![(b"x".to_vec(), -0.25)];
        Some(Box::new(Said { bytes: bytes.to_vec(), logprob, top, entropy: Some(0.5), ends }))
    }

    fn odds(kind: Kind, tell: Tell) -> Odds {
        let mut odds = Odds::new(kind, tell);
        for (bytes, logprob) in [(&b"\xC3"[..], -0.5), (&b"\xA9"[..], -1.5), (&b"t"[..], -0.25)] {
            odds.hear(said(bytes, logprob, false));
        }
        odds.hear(said(b"", -3.0, true));
        odds
    }

    #[test]
    fn a_chat_tells_tokens_with_bytes_and_each_once() {
        let mut odds = odds(Kind::Chat, Tell { logprobs: Some(1), confidence: false });
        let told = odds.take();
        let top = json!([{"token": "x", "logprob": -0.25, "bytes": [120]}]);
        assert_eq!(told["content"][2], json!({"token": "t", "logprob": -0.25, "bytes": [116], "top_logprobs": top}));
        assert_eq!(told["content"][0]["bytes"], json!([0xC3]));
        assert_eq!(told["content"].as_array().unwrap().len(), 3);
        assert_eq!(odds.take(), Value::Null);
        assert_eq!(odds.confidence(), None);
    }

    #[test]
    fn a_completion_tells_columns_and_offsets_in_characters() {
        let told = odds(Kind::Text, Tell { logprobs: Some(1), confidence: false }).take();
        assert_eq!(told["text_offset"], json!([0, 0, 1]));
        assert_eq!(told["tokens"][2], "t");
        assert_eq!(told["token_logprobs"], json!([-0.5, -1.5, -0.25]));
        assert_eq!(told["top_logprobs"][2], json!({"x": -0.25, "t": -0.25}));
    }

    #[test]
    fn confidence_is_over_the_text_alone() {
        let sure = odds(Kind::Chat, Tell { logprobs: None, confidence: true });
        let wanted = json!({"mean_logprob": -0.75, "min_logprob": -1.5, "mean_entropy": 0.5, "tokens": 3});
        assert_eq!(sure.confidence(), Some(wanted));
        assert_eq!(sure.clone().take(), Value::Null);
        let none = Odds::new(Kind::Chat, Tell { logprobs: None, confidence: true }).confidence().unwrap();
        assert_eq!(none, json!({"mean_logprob": null, "min_logprob": null, "mean_entropy": null, "tokens": 0}));
    }
}
