//! Forms that an answer must have: OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_…`.

use super::error::ApiError;
use super::fields::Fields;
use crate::constraint::{Constraint, ConstraintError, Constraints, Form};
use crate::engine::Vocabulary;
use crate::limits::GRAMMAR_ITEMS_MAX;
use serde_json::Value;
use std::sync::OnceLock;

/// A form and the field that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The form.
    pub form: Form,
    /// Named where the form turns out to be none.
    pub field: &'static str,
}

/// Makes constraints for one vocabulary; nothing is built before the first one.
#[derive(Debug, Default)]
pub struct Forms(OnceLock<Result<Constraints, ConstraintError>>);

impl Forms {
    /// A constraint at its beginning. The first call reads the whole vocabulary: not for the event loop.
    ///
    /// # Errors
    /// Says what is wrong with the form.
    pub fn of(&self, vocabulary: &dyn Vocabulary, form: &Form) -> Result<Constraint, ConstraintError> {
        let made = self.0.get_or_init(|| Constraints::new(vocabulary, vocabulary.tokens()));
        made.as_ref().map_err(Clone::clone)?.of(form)
    }
}

/// The form that the request asks for.
///
/// # Errors
/// Names the field that is wrong, or the second one where there is more than one form.
pub(super) fn read(fields: Fields<'_>) -> Result<Option<Wish>, ApiError> {
    let mut wishes: Vec<Wish> = response_format(fields)?.into_iter().collect();
    if let Some(inner) = fields.object("structured_outputs", "structured_outputs.")? {
        wishes.extend(kinds(
            inner,
            ["json", "regex", "choice", "grammar"],
            [
                "structured_outputs.json",
                "structured_outputs.regex",
                "structured_outputs.choice",
                "structured_outputs.grammar",
            ],
        )?);
        if inner.flag("json_object")? {
            wishes.push(Wish { form: Form::JsonObject, field: "structured_outputs.json_object" });
        }
    }
    let guided = ["guided_json", "guided_regex", "guided_choice", "guided_grammar"];
    wishes.extend(kinds(fields, guided, guided)?);
    match wishes.get(1) {
        Some(second) => Err(ApiError::field(second.field, "is a second form; an answer can have only one")),
        None => Ok(wishes.pop()),
    }
}

fn response_format(fields: Fields<'_>) -> Result<Option<Wish>, ApiError> {
    let Some(format) = fields.object("response_format", "response_format.")? else { return Ok(None) };
    let form = match format.text("type")? {
        Some("text") => return Ok(None),
        Some("json_object") => Form::JsonObject,
        Some("json_schema") => {
            let Some(inner) = format.object("json_schema", "response_format.json_schema.")? else {
                return Err(format.wrong("json_schema", "an object with a schema"));
            };
            inner.get("schema").map_or(Ok(Form::JsonObject), |value| schema(inner, "schema", value))?
        }
        _ => return Err(format.wrong("type", "text, json_object or json_schema")),
    };
    let field = match form {
        Form::JsonSchema(_) => "response_format.json_schema.schema",
        _ => "response_format",
    };
    Ok(Some(Wish { form, field }))
}

/// Schema, regular expression, choice and grammar, under these names.
fn kinds(fields: Fields<'_>, names: [&str; 4], paths: [&'static str; 4]) -> Result<Vec<Wish>, ApiError> {
    let [json, regex, choice, grammar] = names;
    let forms = [
        fields.get(json).map(|value| schema(fields, json, value)).transpose()?,
        fields.text(regex)?.map(|text| Form::Regex(text.to_owned())),
        fields.list(choice, GRAMMAR_ITEMS_MAX)?.map(|items| choices(fields, choice, items)).transpose()?,
        fields.text(grammar)?.map(|text| Form::Grammar(text.to_owned())),
    ];
    let wishes = forms.into_iter().zip(paths).filter_map(|(form, field)| form.map(|form| Wish { form, field }));
    Ok(wishes.collect())
}

/// A schema as an object, or as vLLM takes it too: as its JSON text.
fn schema(fields: Fields<'_>, name: &str, value: &Value) -> Result<Form, ApiError> {
    let parsed = match value {
        Value::Object(_) => Some(value.clone()),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
        _ => None,
    };
    parsed.map(Form::JsonSchema).ok_or_else(|| fields.wrong(name, "a JSON schema: an object"))
}

fn choices(fields: Fields<'_>, name: &str, items: &[Value]) -> Result<Form, ApiError> {
    let texts: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    let texts = texts.filter(|texts| !texts.is_empty());
    texts.map(Form::Choice).ok_or_else(|| fields.wrong(name, "a list of at least one text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(body: Value) -> Result<Option<Wish>, String> {
        let map = body.as_object().unwrap();
        read(Fields::new(map)).map_err(|error| error.param.unwrap())
    }

    fn form(body: Value) -> Form {
        of(body).unwrap().unwrap().form
    }

    #[test]
    fn each_way_to_ask_is_read() {
        let schema = json!({"type": "object"});
        assert_eq!(of(json!({})), Ok(None));
        assert_eq!(of(json!({"response_format": {"type": "text"}, "guided_json": null})), Ok(None));
        assert_eq!(form(json!({"response_format": {"type": "json_object"}})), Form::JsonObject);
        let wish =
            of(json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}));
        let field = "response_format.json_schema.schema";
        assert_eq!(wish, Ok(Some(Wish { form: Form::JsonSchema(schema.clone()), field })));
        assert_eq!(form(json!({"guided_json": schema})), Form::JsonSchema(schema.clone()));
        assert_eq!(form(json!({"guided_json": schema.to_string()})), Form::JsonSchema(schema.clone()));
        assert_eq!(form(json!({"structured_outputs": {"json": schema}})), Form::JsonSchema(schema));
        assert_eq!(form(json!({"structured_outputs": {"json_object": true}})), Form::JsonObject);
        assert_eq!(form(json!({"structured_outputs": {"regex": "a+"}})), Form::Regex("a+".into()));
        assert_eq!(form(json!({"guided_choice": ["a", "b"]})), Form::Choice(vec!["a".into(), "b".into()]));
        assert_eq!(form(json!({"guided_grammar": "start: \"a\""})), Form::Grammar("start: \"a\"".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}),
                "response_format.json_schema.schema",
            ),
            (json!({"structured_outputs": {"regex": 1}}), "structured_outputs.regex"),
            (json!({"structured_outputs": {"choice": []}}), "structured_outputs.choice"),
            (json!({"guided_choice": [1]}), "guided_choice"),
            (json!({"guided_choice": vec!["a"; GRAMMAR_ITEMS_MAX + 1]}), "guided_choice"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"guided_regex": "a", "guided_grammar": "b"}), "guided_grammar"),
        ] {
            assert_eq!(of(body.clone()), Err(field.into()), "{body}");
        }
    }
}
