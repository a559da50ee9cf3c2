//! The table of accepted and refused objects, one pair for each CEL rule and more that are malformed. Our own tests try
//! it offline; e2e tries the very same on a real API server.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The tables, one a kind.
const TABLES: [(&str, &str); 4] = [
    ("hardwareclass.yaml", include_str!("../tests/cel/hardwareclass.yaml")),
    ("modeldeployment.yaml", include_str!("../tests/cel/modeldeployment.yaml")),
    ("tokenbudget.yaml", include_str!("../tests/cel/tokenbudget.yaml")),
    ("costpolicy.yaml", include_str!("../tests/cel/costpolicy.yaml")),
];

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the table {file}: {source}")]
pub struct Error {
    file: &'static str,
    source: Box<serde_saphyr::Error>,
}

/// What the API server should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The object is stored.
    Accept,
    /// It is refused, and the answer contains this text.
    Refuse(String),
}

/// One object to try.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file of the table.
    pub file: &'static str,
    /// The message of the rule, or the malformed field.
    pub name: String,
    /// For a rule on updates: the object that is there before.
    pub before: Option<Value>,
    /// The object to try. Create it with strict field validation, as kubectl does.
    pub object: Value,
    /// What should come of it.
    pub expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base: Value,
    rules: Vec<RuleRow>,
    malformed: Vec<MalformedRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRow {
    rule: String,
    before: Option<Value>,
    accepted: Value,
    refused: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MalformedRow {
    field: String,
    refused: Value,
}

/// Every case of every table.
pub fn cases() -> Result<Vec<Case>, Error> {
    let mut cases = vec![];
    for (file, text) in TABLES {
        let table: Table = serde_saphyr::from_str(text).map_err(|source| Error { file, source: Box::new(source) })?;
        for row in table.rules {
            let before = row.before.map(|patch| merged(&table.base, &patch));
            for (patch, expect) in [(row.accepted, Expect::Accept), (row.refused, Expect::Refuse(row.rule.clone()))] {
                let object = merged(&table.base, &patch);
                cases.push(Case { file, name: row.rule.clone(), before: before.clone(), object, expect });
            }
        }
        for row in table.malformed {
            let object = merged(&table.base, &row.refused);
            cases.push(Case { file, name: row.field.clone(), before: None, object, expect: Expect::Refuse(row.field) });
        }
    }
    Ok(cases)
}

/// `base` with a JSON merge patch.
fn merged(base: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = base.as_object().cloned().unwrap_or_else(Map::new);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            let old = fields.get(name).cloned().unwrap_or(Value::Null);
            fields.insert(name.clone(), merged(&old, value));
        }
    }
    Value::Object(fields)
}
