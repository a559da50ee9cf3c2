//! A model's Jinja chat template, with the helpers that Hugging Face's templates count on.

use super::Message;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io;

/// Longest template source in bytes.
const SOURCE_MAX: usize = 256 * 1024;
/// Steps that rendering may take before the first message, and for each message and tool: a template comes from a stranger's file.
const FUEL_BASE: u64 = 200_000;
const FUEL_PER_MESSAGE: u64 = 20_000;
const NAME: &str = "chat_template";

/// A template that can't be read, or that refuses or fails on these messages.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The source is no Jinja that we can read.
    #[error("reading the model's chat template: {0}")]
    Syntax(String),
    /// The template itself refused the messages, by `raise_exception`.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// It failed on these messages.
    #[error("rendering the model's chat template: {0}")]
    Render(String),
}

/// A compiled template with its tokenizer's special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Compiles the template.
    ///
    /// # Errors
    /// Where the source is too long or no valid Jinja.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_MAX {
            return Err(TemplateError::Syntax(format!("{} bytes long; at most {SOURCE_MAX}", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        Ok(Self {
            environment,
            bos_token: bos_token.unwrap_or_default().to_owned(),
            eos_token: eos_token.unwrap_or_default().to_owned(),
        })
    }

    /// The prompt for these messages, ending where the assistant's answer begins.
    ///
    /// # Errors
    /// Where the template refuses the messages, or fails on them.
    pub fn render(&self, messages: &[Message], now: jiff::Timestamp) -> Result<String, TemplateError> {
        self.render_with(messages, None, now)
    }

    /// The same, with the tools that the assistant may call, as the request has them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: &[Message],
        tools: Option<&[serde_json::Value]>,
        now: jiff::Timestamp,
    ) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        let count = messages.len().saturating_add(tools.map_or(0, <[_]>::len));
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        environment.set_fuel(Some(FUEL_PER_MESSAGE.saturating_mul(count).saturating_add(FUEL_BASE)));
        environment.add_function("strftime_now", move |format: &str| strftime(format, now));
        let template = environment.get_template(NAME).map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let variables = context! {
            messages => Value::from(Serde(messages)),
            tools => tools.map(|tools| Value::from(Serde(tools))),
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            add_generation_prompt => true,
        };
        template.render(variables).map_err(|error| render_error(&error))
    }
}

/// Marks an error as the template's own word, so that it is told apart from a failure of ours.
const REFUSAL: &str = "refused: ";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

fn render_error(error: &Error) -> TemplateError {
    match error.detail().and_then(|detail| detail.strip_prefix(REFUSAL)) {
        Some(refusal) => TemplateError::Refused(refusal.to_owned()),
        None => TemplateError::Render(error.to_string()),
    }
}

fn strftime(format: &str, now: jiff::Timestamp) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &now.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

/// JSON as Python writes it: no escaping for HTML, a space after `,` and `:`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, format!("tojson: {error}"));
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty)).map_err(failed)?;
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)).map_err(failed)?,
    }
    let text = String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\\nYou are helpful<|im_end|>\\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

    fn now() -> jiff::Timestamp {
        "2024-07-26T23:30:00Z".parse().unwrap()
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
        ChatTemplate::new(source, Some("<s>"), Some("</s>"))?.render(messages, now())
    }

    #[test]
    fn chatml_renders_as_hugging_face_does() {
        let prompt = render(CHATML, &[Message::new("user", "Hi <b>&'\"")]).unwrap();
        let expected = "<|im_start|>system\nYou are helpful<|im_end|>\n<|im_start|>user\nHi <b>&'\"<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(prompt, expected);
    }

    #[test]
    fn llama_style_helpers_work() {
        let source = "{{- bos_token }}\n{%- set day = strftime_now('%d %b %Y') %}\nToday: {{ day }}\n\
            {% for m in messages -%}\n    {{ m.role.upper() }}: {{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}";
        let prompt = render(source, &[Message::new("user", "  a  "), Message::new("assistant", "b")]).unwrap();
        assert_eq!(prompt, "<s>Today: 26 Jul 2024\nUSER: a</s>\nASSISTANT: b</s>\n");
    }

    #[test]
    fn pythons_string_methods_and_tojson_work() {
        let source = "{{ messages[0].content.split('|')[1].strip() }} {{ {'a': [1, '<é>'], 'b': none} | tojson }}";
        assert_eq!(render(source, &[Message::new("user", "x| y ")]).unwrap(), "y {\"a\": [1, \"<é>\"], \"b\": null}");
    }

    #[test]
    fn a_refusal_is_told_apart_from_a_failure() {
        let refused =
            render("{{ raise_exception('roles must alternate') }}", &[Message::new("user", "a")]).unwrap_err();
        assert!(matches!(&refused, TemplateError::Refused(why) if why == "roles must alternate"), "{refused}");
        let failed = render("{{ messages[9].content.x }}", &[Message::new("user", "a")]).unwrap_err();
        assert!(matches!(failed, TemplateError::Render(_)));
        assert!(matches!(ChatTemplate::new("{% if %}", None, None).unwrap_err(), TemplateError::Syntax(_)));
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(matches!(render(source, &[Message::new("user", "a")]).unwrap_err(), TemplateError::Render(_)));
    }

    #[test]
    fn tools_are_none_or_what_the_request_has() {
        let source = "{% if tools is none %}no tools{% else %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}\
            {% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}|{{ c.function.name }} \
            {{ c.function.arguments | tojson }}{% endfor %}{% endif %}{% endfor %}";
        let call = serde_json::json!([{"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}]);
        let messages = super::super::messages(Some(&call)).unwrap();
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert_eq!(template.render(&messages, now()).unwrap(), "no tools|f {\"a\": 1}");
        let tools = [serde_json::json!({"type": "function", "function": {"name": "f"}})];
        let prompt = template.render_with(&messages, Some(&tools), now()).unwrap();
        assert_eq!(prompt, "{\"type\": \"function\", \"function\": {\"name\": \"f\"}}|f {\"a\": 1}");
    }

    proptest! {
        #[test]
        fn content_passes_through_untouched(content in "\\PC*") {
            let prompt = render(CHATML, &[Message::new("user", content.clone())]).unwrap();
            let wanted = format!("<|im_start|>user\n{content}<|im_end|>\n");
            prop_assert!(prompt.contains(&wanted));
        }
    }
}
