//! What the API server does with an object before it stores it, as far as our schemas need: defaults, the structural
//! schema (types, enums, patterns, bounds, unique lists, unknown fields), then CEL. Offline; e2e tries the real one.

#![expect(unreachable_pub, reason = "shared by test binaries, each of which has it as a private module")]

use kube::core::cel::Validator;
use quartermaster_crds::all;
use serde_json::Value;
use std::collections::BTreeMap;

/// The schemas of all kinds, by kind.
pub struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    pub fn load() -> Self {
        let schema =
            |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
                serde_json::to_value(&crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema).unwrap()
            };
        Self(all().iter().map(|crd| (crd.spec.names.kind.clone(), schema(crd))).collect())
    }

    pub fn of(&self, object: &Value) -> &Value {
        let kind = object["kind"].as_str().expect("an object has a kind");
        self.0.get(kind).unwrap_or_else(|| panic!("no kind {kind}"))
    }

    #[allow(dead_code, reason = "only one of the test binaries walks the schemas")]
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// What is wrong with `object`; empty when it would be stored.
    pub fn errors(&self, object: &Value, before: Option<&Value>) -> Vec<String> {
        let schema = self.of(object);
        let mut errors = vec![];
        for part in ["spec", "status"] {
            if let Some(value) = object.get(part) {
                structural(&schema["properties"][part], value, part, &mut errors);
            }
        }
        if errors.is_empty()
            && let Err(refused) = Validator::new().validate(schema, object, before)
        {
            errors.extend(refused.into_iter().map(|e| format!("{}: {}", e.field_path, e.message)));
        }
        errors
    }
}

/// Checks `value` against a structural schema.
fn structural(schema: &Value, value: &Value, path: &str, errors: &mut Vec<String>) {
    let mut bad = |what: String| errors.push(format!("{path}: {what}"));
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_i64() && !value.is_string() {
            return bad("must be an integer or a string".into());
        }
    } else {
        let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{path} has no type in the schema"));
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "boolean" => value.is_boolean(),
            other => panic!("{path} has type {other}, which no field of ours should have"),
        };
        if !fits {
            return bad(format!("must be of type {kind}"));
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        bad("unsupported value".into());
    }
    match value {
        Value::String(text) => string(schema, text, &mut bad),
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            if schema["minimum"].as_f64().is_some_and(|min| number < min)
                || schema["maximum"].as_f64().is_some_and(|max| number > max)
            {
                bad("out of range".into());
            }
        }
        Value::Array(items) => list(schema, items, path, errors),
        Value::Object(fields) => object(schema, fields, path, errors),
        _ => {}
    }
}

fn string(schema: &Value, text: &str, bad: &mut impl FnMut(String)) {
    let length = u64::try_from(text.chars().count()).unwrap();
    if schema["maxLength"].as_u64().is_some_and(|max| length > max)
        || schema["minLength"].as_u64().is_some_and(|min| length < min)
    {
        bad("wrong length".into());
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        bad(format!("should match {pattern}"));
    }
}

fn list(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<String>) {
    let length = u64::try_from(items.len()).unwrap();
    if schema["maxItems"].as_u64().is_some_and(|max| length > max)
        || schema["minItems"].as_u64().is_some_and(|min| length < min)
    {
        errors.push(format!("{path}: wrong number of items"));
    }
    let keys: Vec<_> = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().collect();
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.to_string()),
        Some("map") => Some(keys.iter().map(|key| item[key.as_str().unwrap()].to_string()).collect()),
        _ => None,
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if identity(item).is_some_and(|id| items[..index].iter().any(|other| identity(other).as_ref() == Some(&id))) {
            errors.push(format!("{path}: duplicate value"));
        }
        structural(&schema["items"], item, &path, errors);
    }
}

fn object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, errors: &mut Vec<String>) {
    let length = u64::try_from(fields.len()).unwrap();
    if schema["maxProperties"].as_u64().is_some_and(|max| length > max)
        || schema["minProperties"].as_u64().is_some_and(|min| length < min)
    {
        errors.push(format!("{path}: wrong number of entries"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        if !fields.contains_key(name) && schema["properties"][name].get("default").is_none() {
            errors.push(format!("{path}.{name}: required value"));
        }
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(field), _) => structural(field, value, &path, errors),
            (None, Some(values)) => structural(values, value, &path, errors),
            (None, None) => errors.push(format!("unknown field \"{path}\"")),
        }
    }
}
