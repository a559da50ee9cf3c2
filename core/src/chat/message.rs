//! The `messages` of a chat request, checked field by field.

use serde::Serialize;
use serde_json::{Map, Value};

/// Most messages in one request.
const MESSAGES_MAX: usize = 4096;
/// Most parts in one message's content.
const PARTS_MAX: usize = 1024;

/// A `messages` array that can't be rendered. The message says what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ChatError {
    /// Path of the field in the request, such as `messages[0].content`.
    pub field: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

impl ChatError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// One message as the template sees it: text parts are joined, and fields that we don't know are passed through.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Further fields, such as `name`.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Message {
    /// A plain message.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), rest: Map::new() }
    }
}

/// Reads the request's `messages`.
///
/// # Errors
/// Names the first field that is missing or of a wrong type.
pub fn messages(value: Option<&Value>) -> Result<Vec<Message>, ChatError> {
    let Some(value) = value else {
        return Err(ChatError::new("messages", "is required: a list of {role, content}"));
    };
    let Value::Array(items) = value else {
        return Err(ChatError::new("messages", format!("must be a list, not {}", kind(value))));
    };
    if items.is_empty() {
        return Err(ChatError::new("messages", "must hold at least one message"));
    }
    if items.len() > MESSAGES_MAX {
        return Err(ChatError::new("messages", format!("holds {} messages; at most {MESSAGES_MAX}", items.len())));
    }
    items.iter().enumerate().map(|(index, item)| message(&format!("messages[{index}]"), item)).collect()
}

/// The request's `tools` as its template gets them: none where there are none, or where `tool_choice` is `none`.
#[must_use]
pub fn tools(request: &Map<String, Value>) -> Option<&[Value]> {
    let tools = request.get("tools").and_then(Value::as_array).filter(|tools| !tools.is_empty())?;
    request.get("tool_choice").is_none_or(|choice| choice != "none").then_some(tools.as_slice())
}

fn message(path: &str, value: &Value) -> Result<Message, ChatError> {
    let Value::Object(fields) = value else {
        return Err(ChatError::new(path, format!("must be an object with role and content, not {}", kind(value))));
    };
    let role = match fields.get("role") {
        Some(Value::String(role)) if !role.is_empty() => role.clone(),
        Some(other) => {
            return Err(ChatError::new(format!("{path}.role"), format!("must be a text, not {}", kind(other))));
        }
        None => return Err(ChatError::new(format!("{path}.role"), "is required: system, user, assistant or tool")),
    };
    let content = content(&format!("{path}.content"), fields.get("content"), &role)?;
    // Null is the same as absent: templates ask whether a field is there.
    let rest = fields.iter().filter(|(key, value)| *key != "role" && *key != "content" && !value.is_null());
    let mut rest: Map<String, Value> = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    if let Some(calls) = rest.get_mut("tool_calls") {
        read_arguments(&format!("{path}.tool_calls"), calls)?;
    }
    Ok(Message { role, content, rest })
}

/// The arguments of each call, which the API has as JSON text, become the values that templates count on.
fn read_arguments(path: &str, calls: &mut Value) -> Result<(), ChatError> {
    let Value::Array(calls) = calls else {
        return Err(ChatError::new(path, format!("must be a list, not {}", kind(calls))));
    };
    if calls.len() > PARTS_MAX {
        return Err(ChatError::new(path, format!("holds {} calls; at most {PARTS_MAX}", calls.len())));
    }
    for (index, call) in calls.iter_mut().enumerate() {
        let path = format!("{path}[{index}].function");
        let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
            return Err(ChatError::new(path, "is required: an object with name and arguments"));
        };
        if !function.get("name").is_some_and(Value::is_string) {
            return Err(ChatError::new(format!("{path}.name"), "is required: a text"));
        }
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) => serde_json::from_str(text).ok().filter(Value::is_object),
            Some(Value::Object(_)) => None,
            _ => return Err(ChatError::new(format!("{path}.arguments"), "is required: JSON as a text")),
        };
        // What is no JSON stays a text: the model wrote it.
        if let Some(arguments) = arguments {
            function.insert("arguments".into(), arguments);
        }
    }
    Ok(())
}

fn content(path: &str, value: Option<&Value>, role: &str) -> Result<String, ChatError> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        // An assistant's message that only calls tools has no content.
        None | Some(Value::Null) if role == "assistant" => Ok(String::new()),
        None | Some(Value::Null) => Err(ChatError::new(path, "is required: a text or a list of text parts")),
        Some(Value::Array(parts)) if parts.len() > PARTS_MAX => {
            Err(ChatError::new(path, format!("holds {} parts; at most {PARTS_MAX}", parts.len())))
        }
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(index, item)| part(&format!("{path}[{index}]"), item)).collect()
        }
        Some(other) => {
            Err(ChatError::new(path, format!("must be a text or a list of text parts, not {}", kind(other))))
        }
    }
}

fn part<'a>(path: &str, value: &'a Value) -> Result<&'a str, ChatError> {
    match value.get("type") {
        Some(Value::String(part)) if part == "text" => {}
        Some(Value::String(part)) => {
            return Err(ChatError::new(
                format!("{path}.type"),
                format!("{part:?} is not supported; this model reads parts of type \"text\" only"),
            ));
        }
        _ => return Err(ChatError::new(format!("{path}.type"), "is required: \"text\"")),
    }
    match value.get("text") {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ChatError::new(format!("{path}.text"), "is required: a text")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "an empty text",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(value: Value) -> String {
        messages(Some(&value)).unwrap_err().field
    }

    #[test]
    fn text_and_parts_read_alike() {
        let whole = messages(Some(&json!([{"role": "user", "content": "hello"}]))).unwrap();
        let parts =
            json!([{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]);
        assert_eq!(messages(Some(&parts)).unwrap(), whole);
        assert_eq!(whole, [Message::new("user", "hello")]);
    }

    #[test]
    fn unknown_fields_pass_through() {
        let read = messages(Some(&json!([{"role": "user", "content": "a", "name": "ann"}]))).unwrap();
        assert_eq!(read[0].rest["name"], "ann");
    }

    #[test]
    fn tool_calls_are_read_and_null_is_absent() {
        let of = |function: Value| {
            let calls = json!([{"id": "1", "type": "function", "function": function}]);
            messages(Some(&json!([{"role": "assistant", "tool_calls": calls, "refusal": null}])))
        };
        let read = of(json!({"name": "f", "arguments": "{\"a\": [1]}"})).unwrap();
        assert_eq!(read[0].rest["tool_calls"][0]["function"]["arguments"], json!({"a": [1]}));
        assert!(!read[0].rest.contains_key("refusal"));
        let broken = of(json!({"name": "f", "arguments": "{"})).unwrap();
        assert_eq!(broken[0].rest["tool_calls"][0]["function"]["arguments"], "{");
        let wrong = |function: Value| of(function).unwrap_err().field;
        assert_eq!(wrong(json!(1)), "messages[0].tool_calls[0].function");
        assert_eq!(wrong(json!({"arguments": "{}"})), "messages[0].tool_calls[0].function.name");
        assert_eq!(wrong(json!({"name": "f", "arguments": 1})), "messages[0].tool_calls[0].function.arguments");
        assert_eq!(field(json!([{"role": "assistant", "tool_calls": {}}])), "messages[0].tool_calls");
        let answer = json!([{"role": "tool", "tool_call_id": "1", "content": "42"}]);
        assert_eq!(messages(Some(&answer)).unwrap()[0].rest["tool_call_id"], "1");
    }

    #[test]
    fn tools_count_unless_none_may_be_called() {
        let of = |body: Value| tools(body.as_object().unwrap()).map(<[Value]>::len);
        assert_eq!(of(json!({"tools": [{}, {}]})), Some(2));
        assert_eq!(of(json!({"tools": [{}], "tool_choice": "required"})), Some(1));
        assert_eq!(of(json!({"tools": [{}], "tool_choice": null})), Some(1));
        assert_eq!(of(json!({"tools": [{}], "tool_choice": "none"})), None);
        assert_eq!((of(json!({"tools": []})), of(json!({"tools": null})), of(json!({}))), (None, None, None));
    }

    #[test]
    fn an_assistant_may_be_silent_and_nobody_else() {
        assert_eq!(messages(Some(&json!([{"role": "assistant"}]))).unwrap()[0].content, "");
        assert_eq!(field(json!([{"role": "user", "content": null}])), "messages[0].content");
    }

    #[test]
    fn each_error_names_its_field() {
        assert_eq!(messages(None).unwrap_err().field, "messages");
        assert_eq!(field(json!("hi")), "messages");
        assert_eq!(field(json!([])), "messages");
        assert_eq!(field(json!([3])), "messages[0]");
        assert_eq!(field(json!([{"content": "a"}])), "messages[0].role");
        assert_eq!(field(json!([{"role": 7, "content": "a"}])), "messages[0].role");
        assert_eq!(
            field(json!([{"role": "user", "content": "a"}, {"role": "user", "content": 1}])),
            "messages[1].content"
        );
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
        assert_eq!(field(image), "messages[0].content[0].type");
        assert_eq!(field(json!([{"role": "user", "content": [{"type": "text"}]}])), "messages[0].content[0].text");
        assert_eq!(field(json!([{"role": "user", "content": ["text"]}])), "messages[0].content[0].type");
        let many = vec![json!({"role": "user", "content": "a"}); MESSAGES_MAX + 1];
        assert_eq!(field(Value::Array(many)), "messages");
    }
}
