//! Server-sent events: cuts a stream into whole events without changing a byte, and reads what they say.
//!
//! Lines end in LF or CRLF, as all engines write them. What does not end in a blank line comes out at the end.

use crate::limits;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use serde::Deserialize;
use std::borrow::Cow;

/// Of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Whether the answer with these headers is a stream of events.
pub fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
}

/// An event that carries this JSON.
pub fn event(json: &[u8]) -> Bytes {
    // Line breaks stand only between tokens of JSON; in an event they would end the line.
    let line = json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
    b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect()
}

/// An upstream that sends an event without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading an event stream: one event is larger than {} bytes", limits::EVENT_BYTES_MAX)]
pub struct EventTooLarge;

/// Collects bytes until an event is whole.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Everything before is known to hold no end of an event.
    scanned: usize,
}

impl Splitter {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > limits::EVENT_BYTES_MAX + bytes.len() { Err(EventTooLarge) } else { Ok(()) }
    }

    /// The next whole event with its blank line.
    pub fn next_event(&mut self) -> Option<Bytes> {
        let end = self.end_of_event()?;
        self.scanned = 0;
        Some(self.buffer.split_to(end).freeze())
    }

    /// What is left at the end of the stream.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.scanned = 0;
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }

    /// An event ends at an LF that follows an LF, with or without a CR between them. At the start of the buffer a blank
    /// line is an event of its own.
    fn end_of_event(&mut self) -> Option<usize> {
        let bytes = &self.buffer[..];
        for (at, _) in bytes.iter().enumerate().skip(self.scanned).filter(|(_, byte)| **byte == b'\n') {
            let line = bytes.get(..at).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.ends_with(b"\n") {
                return Some(at + 1);
            }
        }
        self.scanned = bytes.len();
        None
    }
}

/// What an event means to the meter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// `[DONE]`
    pub done: bool,
    /// Choices with text, tool calls or reasoning in them: at least so many tokens.
    pub pieces: u64,
    /// The text of them.
    pub text: String,
    /// Why the engine stopped, if it did.
    pub finish: Option<String>,
    /// The engine's own count.
    pub usage: Option<Usage>,
    /// It carries nothing but usage: a client that did not ask for it must not see it.
    pub only_usage: bool,
    /// The engine reports an error in the midst of the stream.
    pub error: bool,
}

/// OpenAI's usage, as far as it is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt.
    pub prompt_tokens: u64,
    /// All choices together.
    pub completion_tokens: u64,
    /// Parts of the prompt.
    pub prompt_tokens_details: Option<PromptDetails>,
}

/// Parts of the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PromptDetails {
    /// From the prefix cache.
    pub cached_tokens: Option<u64>,
}

impl Usage {
    /// Prompt tokens from the cache; a subset of the prompt.
    pub fn cached(&self) -> u64 {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw<'a> {
    #[serde(borrow)]
    choices: Vec<RawChoice<'a>>,
    usage: Option<Usage>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawChoice<'a> {
    #[serde(borrow, alias = "message")]
    delta: Option<RawDelta<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDelta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reasoning_content: Option<Cow<'a, str>>,
    tool_calls: Option<serde::de::IgnoredAny>,
}

/// Reads one event. One that is no JSON says nothing; it passes all the same.
pub fn read(event: &[u8]) -> Chunk {
    let data = data(event);
    if data.as_ref() == b"[DONE]" {
        return Chunk { done: true, ..Chunk::default() };
    }
    read_json(&data)
}

/// Reads what an event carries, or a whole answer that is not streamed.
pub fn read_json(data: &[u8]) -> Chunk {
    let Ok(raw) = serde_json::from_slice::<Raw<'_>>(data) else { return Chunk::default() };
    let mut chunk = Chunk {
        only_usage: raw.choices.is_empty() && raw.usage.is_some() && raw.error.is_none(),
        usage: raw.usage,
        error: raw.error.is_some(),
        ..Chunk::default()
    };
    for choice in raw.choices {
        let delta = choice.delta.unwrap_or_default();
        let texts = [choice.text, delta.content, delta.reasoning_content];
        let texts: Vec<_> = texts.into_iter().flatten().filter(|text| !text.is_empty()).collect();
        if !texts.is_empty() || delta.tool_calls.is_some() {
            chunk.pieces += 1;
        }
        texts.iter().for_each(|text| chunk.text.push_str(text));
        chunk.finish = choice.finish_reason.map(Cow::into_owned).or(chunk.finish);
    }
    chunk
}

/// The `data:` lines of an event, joined.
fn data(event: &[u8]) -> Cow<'_, [u8]> {
    let mut lines = event.split(|byte| *byte == b'\n').filter_map(|line| {
        let value = line.strip_suffix(b"\r").unwrap_or(line).strip_prefix(b"data:")?;
        Some(value.strip_prefix(b" ").unwrap_or(value))
    });
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut joined = [first, b"\n", second].concat();
            lines.for_each(|line| {
                joined.push(b'\n');
                joined.extend_from_slice(line);
            });
            Cow::Owned(joined)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(piece).unwrap();
            while let Some(event) = splitter.next_event() {
                events.push(event);
            }
        }
        events.extend(splitter.rest());
        events
    }

    #[test]
    fn both_line_ends_and_comments_are_events() {
        let events = split(&[b"data: a\n\ndata: b\r\n\r\n: waiting\n\n\ndata: [DONE]"]);
        let expected = ["data: a\n\n", "data: b\r\n\r\n", ": waiting\n\n", "\n", "data: [DONE]"];
        assert_eq!(events, expected);
    }

    #[test]
    fn chunks_say_what_they_carry() {
        let text = read("data: {\"choices\":[{\"delta\":{\"content\":\"gr\u{fc}n\\n\"}}]}\n\n".as_bytes());
        assert_eq!((text.pieces, text.text.as_str()), (1, "gr\u{fc}n\n"));
        let usage = read(br#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}"#);
        assert!(usage.only_usage);
        let figures = usage.usage.unwrap();
        assert_eq!((figures.prompt_tokens, figures.completion_tokens, figures.cached()), (3, 4, 2));
        let last = read(br#"data:{"choices":[{"text":"","finish_reason":"length"}],"usage":null}"#);
        assert_eq!((last.finish.as_deref(), last.pieces, last.only_usage), (Some("length"), 0, false));
        assert!(read(b"data: [DONE]\n\n").done);
        assert!(read(b"data: {\"error\":{\"message\":\"x\"}}\n\n").error);
        assert_eq!(read(b": waiting\n\n"), Chunk::default());
        assert_eq!(read(b"data: {broken\n\n"), Chunk::default());
        assert!(read(b"data: {\"choices\":[],\r\ndata: \"usage\":{}}\r\n\r\n").only_usage);
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; 1 << 19];
        let results: Vec<_> = (0..6).map(|_| splitter.push(&piece)).collect();
        assert_eq!(results.last(), Some(&Err(EventTooLarge)));
    }

    proptest! {
        #[test]
        fn splits_anywhere_change_nothing(
            events in proptest::collection::vec("(data: [a-zäöü€😀\"{}:]{0,20}(\r)?\n){1,3}(\r)?\n", 0..6),
            tail in "[a-z:\r\n]{0,5}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
        ) {
            let stream = events.concat() + &tail;
            let bytes = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let whole = split(&[bytes]);
            prop_assert_eq!(&split(&pieces), &whole);
            prop_assert_eq!(whole.concat(), bytes);
            prop_assert!(whole.len() >= events.len());
        }
    }
}
