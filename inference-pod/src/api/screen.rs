//! Finds tool calls in an answer's text, and holds back what may become one.
//!
//! Read are `<tool_call>{"name", "arguments"}</tool_call>` of Hermes and Qwen, anywhere in the text; and a text that is
//! nothing but `{"name", "parameters"}`, of Llama 3.1. A call of a tool that was not offered stays text.

use super::tools::{Calls, Tools};
use serde_json::{Value, json};
use std::sync::Arc;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Made up here; the client answers to it.
    id: String,
    name: String,
    /// JSON text.
    arguments: String,
}

impl Call {
    fn new(name: &str, arguments: &Value) -> Self {
        let arguments = match arguments {
            // Some models write JSON in a text.
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Self { id: format!("call_{}", uuid::Uuid::new_v4().simple()), name: name.to_owned(), arguments }
    }

    /// As a message has it.
    pub(super) fn object(&self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }

    /// As a stream has it, the whole call at once.
    pub(super) fn delta(&self, index: usize) -> Value {
        json!({"index": index, "id": self.id, "type": "function",
            "function": {"name": self.name, "arguments": self.arguments}})
    }
}

/// Between an answer's text and the client.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    calls: Calls,
    names: Arc<[String]>,
    held: String,
    /// Whether all that comes is held until the end.
    holds: bool,
    /// Whether text went out.
    said: bool,
}

impl Screen {
    pub(super) fn new(tools: &Tools) -> Self {
        let holds = tools.calls == Calls::Forced;
        Self { calls: tools.calls, names: Arc::clone(&tools.names), held: String::new(), holds, said: false }
    }

    /// Takes new text and returns what is certainly no call.
    pub(super) fn push(&mut self, text: String) -> String {
        if self.calls == Calls::None {
            return text;
        }
        self.held.push_str(&text);
        if self.holds {
            return String::new();
        }
        let begins = self.held.trim_start();
        let bare = !self.said && (begins.is_empty() || begins.starts_with('{'));
        let keep = match self.held.find(OPEN) {
            Some(at) => at,
            None if bare => 0,
            None => self.held.len() - overlap(&self.held),
        };
        self.holds = self.held.contains(OPEN) || (bare && !begins.is_empty());
        let rest = self.held.split_off(keep);
        let out = std::mem::replace(&mut self.held, rest);
        self.said |= !out.is_empty();
        out
    }

    /// The rest of the text, and the calls in what was held.
    pub(super) fn finish(&mut self) -> (String, Vec<Call>) {
        let held = std::mem::take(&mut self.held);
        if self.calls == Calls::None || held.is_empty() {
            return (held, Vec::new());
        }
        match self.call(&held) {
            Some(call) => (String::new(), vec![call]),
            None => self.tagged(&held),
        }
    }

    /// The call that is the whole of this text.
    fn call(&self, text: &str) -> Option<Call> {
        let value: Value = serde_json::from_str(text.trim()).ok()?;
        let name = value.get("name")?.as_str().filter(|name| self.names.iter().any(|known| known == name))?;
        let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
        Some(Call::new(name, arguments))
    }

    /// The calls between tags; the last one may lack its end.
    fn tagged(&self, text: &str) -> (String, Vec<Call>) {
        let (mut left, mut calls, mut rest) = (String::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (inner, next) = after.split_once(CLOSE).unwrap_or((after, ""));
            left.push_str(before);
            match self.call(inner) {
                Some(call) => calls.push(call),
                None => left.push_str(rest.strip_prefix(before).and_then(|it| it.strip_suffix(next)).unwrap_or(rest)),
            }
            rest = next;
        }
        left.push_str(rest);
        if !calls.is_empty() && left.trim().is_empty() {
            left.clear();
        }
        (left, calls)
    }
}

/// Length of the end of `text` that may become the opening tag.
fn overlap(text: &str) -> usize {
    (1..OPEN.len()).rev().find(|length| text.ends_with(OPEN.split_at(*length).0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn screen(calls: Calls) -> Screen {
        let names: Arc<[String]> = Arc::from(["f".to_owned(), "g".to_owned()]);
        Screen::new(&Tools { names, calls, ..Tools::default() })
    }

    fn run(calls: Calls, pieces: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let mut screen = screen(calls);
        let mut out: Vec<String> = pieces.iter().map(|piece| screen.push((*piece).to_owned())).collect();
        let (rest, calls) = screen.finish();
        out.push(rest);
        (out, calls.into_iter().map(|call| (call.name, call.arguments)).collect())
    }

    fn called(name: &str, arguments: &str) -> (String, String) {
        (name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn tagged_calls_are_taken_out_and_text_before_them_goes_on() {
        let text = [
            "Let me ",
            "see. <tool",
            "_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n",
            "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
        ];
        let (out, calls) = run(Calls::Auto, &text);
        assert_eq!(out, ["Let me ", "see. ", "", "", ""]);
        assert_eq!(calls, [called("f", "{\"a\":1}"), called("g", "{}")]);
        let (out, calls) = run(Calls::Auto, &["<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}"]);
        assert_eq!((out.concat(), calls), (String::new(), vec![called("f", "{}")]));
    }

    #[test]
    fn a_bare_call_is_one_only_where_nothing_else_is_said() {
        let bare = "{\"name\": \"f\", \"parameters\": {\"x\": \"y\"}}";
        assert_eq!(run(Calls::Auto, &["\n", bare]).1, [called("f", "{\"x\":\"y\"}")]);
        let (out, calls) = run(Calls::Auto, &["see ", bare]);
        assert_eq!((out.concat(), calls), (format!("see {bare}"), vec![]));
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in [
            "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call> more",
            "a <tool_call>no json",
            "{\"answer\": 42}",
            "1 < 2 <tool",
            "  ",
        ] {
            let (out, calls) = run(Calls::Auto, &[text]);
            assert_eq!((out.concat().as_str(), calls), (text, vec![]));
        }
    }

    #[test]
    fn a_forced_answer_is_a_call_or_its_broken_text() {
        assert_eq!(run(Calls::Forced, &["{\"name\":\"g\",", "\"arguments\":{}}"]).1, [called("g", "{}")]);
        let (out, calls) = run(Calls::Forced, &["{\"name\":\"g\",", "\"argu"]);
        assert_eq!((out.concat().as_str(), calls), ("{\"name\":\"g\",\"argu", vec![]));
    }

    proptest! {
        #[test]
        fn text_without_calls_passes_however_it_is_cut(text in "[a<tol_c>{}\" ]{0,40}", cut in 1_usize..9) {
            let pieces: Vec<&str> = text.as_bytes().chunks(cut).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
            prop_assert_eq!(run(Calls::Auto, &pieces).0.concat(), text);
        }
    }
}
