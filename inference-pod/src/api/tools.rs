//! The tools that a chat offers, and the form of an answer that must call one.

use super::error::ApiError;
use super::fields::Fields;
use super::form::Wish;
use crate::constraint::Form;
use crate::limits::{TOOL_NAME_BYTES_MAX, TOOLS_MAX};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Whether the answer may or must call a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Calls {
    /// Text only.
    #[default]
    None,
    /// The model decides.
    Auto,
    /// The whole answer is a call.
    Forced,
}

/// What is offered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tools {
    /// As the request has them.
    pub(super) offered: Vec<Value>,
    /// Names of those that may be called.
    pub(super) names: Arc<[String]>,
    /// Whether they may or must be.
    pub(super) calls: Calls,
}

impl Tools {
    /// Reads `tools` and `tool_choice`.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub(super) fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let offered = fields.list("tools", TOOLS_MAX)?.unwrap_or_default();
        let names = offered.iter().enumerate().map(|(index, tool)| name(&format!("tools[{index}]"), tool));
        let names: Vec<String> = names.collect::<Result<_, _>>()?;
        let (calls, chosen) = choice(fields, &names)?;
        if calls == Calls::None {
            return Ok(Self::default());
        }
        let names = chosen.map_or(names, |chosen| vec![chosen]);
        Ok(Self { offered: offered.to_vec(), names: names.into(), calls })
    }

    /// Settles who says what the answer looks like: a call that is forced, or the form that the request asks for.
    ///
    /// # Errors
    /// Where both do.
    pub(super) fn beside(self, form: &mut Option<Wish>) -> Result<Self, ApiError> {
        match (self.form(), &form) {
            (Some(_), Some(wish)) => {
                Err(ApiError::field("tool_choice", format!("forces a call, and {} another form", wish.field)))
            }
            // What has a form of its own is no call.
            (None, Some(_)) => Ok(Self { calls: Calls::None, ..self }),
            (forced, None) => {
                *form = forced;
                Ok(self)
            }
        }
    }

    /// The form of an answer that must be a call.
    fn form(&self) -> Option<Wish> {
        if self.calls != Calls::Forced {
            return None;
        }
        let callable = self.offered.iter().filter_map(|tool| {
            let function = tool.get("function")?;
            let name = function.get("name")?.as_str().filter(|name| self.names.iter().any(|one| one == name))?;
            Some((name, function.get("parameters").filter(|parameters| parameters.is_object())))
        });
        let callable: Vec<(&str, Option<&Value>)> = callable.collect();
        let schema = match callable.as_slice() {
            [(name, parameters)] => call(name, *parameters, "#"),
            several => {
                let one = |(at, (name, parameters)): (usize, &(&str, Option<&Value>))| {
                    call(name, *parameters, &format!("#/anyOf/{at}"))
                };
                json!({"anyOf": several.iter().enumerate().map(one).collect::<Vec<Value>>()})
            }
        };
        Some(Wish { form: Form::JsonSchema(schema), field: "tools" })
    }
}

/// The schema of a call, which stands at `path` in the whole schema.
fn call(name: &str, parameters: Option<&Value>, path: &str) -> Value {
    let any = json!({"type": "object"});
    let mut arguments = parameters.unwrap_or(&any).clone();
    rebase(&mut arguments, &format!("{path}/properties/arguments"));
    json!({
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}

/// References within a schema go on to mean the same once it stands at `path` in another.
fn rebase(schema: &mut Value, path: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{path}{}", target.trim_start_matches('#'));
                    }
                    inner => rebase(inner, path),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, path)),
        _ => {}
    }
}

fn name(path: &str, tool: &Value) -> Result<String, ApiError> {
    let wrong = |field: &str, wanted: &str| ApiError::field(format!("{path}{field}"), format!("must be {wanted}"));
    let tool = tool.as_object().ok_or_else(|| wrong("", "an object with a function"))?;
    if tool.get("type").is_none_or(|kind| kind != "function") {
        return Err(wrong(".type", "\"function\""));
    }
    let function = tool.get("function").and_then(Value::as_object);
    let function = function.ok_or_else(|| wrong(".function", "an object with a name"))?;
    if function.get("parameters").is_some_and(|parameters| !parameters.is_object() && !parameters.is_null()) {
        return Err(wrong(".function.parameters", "a JSON schema: an object"));
    }
    let fits = |name: &&str| !name.is_empty() && name.len() <= TOOL_NAME_BYTES_MAX;
    let name = function.get("name").and_then(Value::as_str).filter(fits);
    name.map(str::to_owned)
        .ok_or_else(|| wrong(".function.name", &format!("a text of 1 to {TOOL_NAME_BYTES_MAX} bytes")))
}

/// What `tool_choice` means, and the one tool that it names.
fn choice(fields: Fields<'_>, names: &[String]) -> Result<(Calls, Option<String>), ApiError> {
    let wrong = || fields.wrong("tool_choice", "none, auto, required or {type: function, function: {name}}");
    let calls = match fields.get("tool_choice") {
        None if names.is_empty() => Calls::None,
        None => Calls::Auto,
        Some(Value::String(choice)) => match choice.as_str() {
            "none" => Calls::None,
            "auto" if names.is_empty() => Calls::None,
            "auto" => Calls::Auto,
            "required" => Calls::Forced,
            _ => return Err(wrong()),
        },
        Some(Value::Object(choice)) => {
            let name = named(choice).ok_or_else(wrong)?;
            let known = names.iter().any(|known| known == name);
            let unknown = || ApiError::field("tool_choice", format!("names {name:?}, which is not among the tools"));
            return if known { Ok((Calls::Forced, Some(name.to_owned()))) } else { Err(unknown()) };
        }
        Some(_) => return Err(wrong()),
    };
    if calls == Calls::Forced && names.is_empty() {
        return Err(ApiError::field("tool_choice", "needs tools"));
    }
    Ok((calls, None))
}

fn named(choice: &Map<String, Value>) -> Option<&str> {
    choice.get("function")?.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    fn tools(body: Value) -> Result<Tools, String> {
        Tools::read(Fields::new(body.as_object().unwrap())).map_err(|error| error.param.unwrap())
    }

    #[test]
    fn the_choice_says_which_tools_count() {
        assert_eq!(tools(json!({})), Ok(Tools::default()));
        assert_eq!(tools(json!({"tool_choice": "auto"})), Ok(Tools::default()));
        assert_eq!(tools(json!({"tools": [tool("a")], "tool_choice": "none"})), Ok(Tools::default()));
        let of = |choice: Value| tools(json!({"tools": [tool("a"), tool("b")], "tool_choice": choice})).unwrap();
        assert_eq!((of(json!(null)).calls, of(json!(null)).form()), (Calls::Auto, None));
        assert_eq!((of(json!("required")).calls, of(json!("required")).names.len()), (Calls::Forced, 2));
        let one = of(json!({"type": "function", "function": {"name": "b"}}));
        assert_eq!((one.calls, &one.names[..], one.offered.len()), (Calls::Forced, &["b".to_owned()][..], 2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": vec![tool("a"); TOOLS_MAX + 1]}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{"type": "web"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [tool("a"), tool("")]}), "tools[1].function.name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tools": [tool("a")], "tool_choice": "a"}), "tool_choice"),
            (json!({"tools": [tool("a")], "tool_choice": {"function": {"name": "b"}}}), "tool_choice"),
            (json!({"tools": [tool("a")], "tool_choice": 1}), "tool_choice"),
        ] {
            assert_eq!(tools(body.clone()), Err(field.into()), "{body}");
        }
    }

    #[test]
    fn a_forced_call_has_a_schema_whose_references_hold() {
        let parameters = json!({"$defs": {"x": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/x"}}});
        let function = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
        let body = json!({"tools": [function, tool("g")], "tool_choice": "required"});
        let Form::JsonSchema(schema) = tools(body).unwrap().form().unwrap().form else { panic!() };
        let target = "/anyOf/0/properties/arguments/$defs/x";
        let reference = schema.pointer("/anyOf/0/properties/arguments/properties/a/$ref").unwrap();
        assert_eq!(
            (reference, schema.pointer(target)),
            (&json!(format!("#{target}")), Some(&json!({"type": "integer"})))
        );
        assert_eq!(schema.pointer("/anyOf/1/properties/name/const"), Some(&json!("g")));
    }
}
