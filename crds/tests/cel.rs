//! Every CEL rule has an accepted and a refused object, and everything that a rule could loop over has a bound.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use quartermaster_crds::limits::{BUNDLED_CONTEXT_TOKENS, BUNDLED_PARALLEL_REQUESTS};
use quartermaster_crds::testing::{Expect, cases};
use serde_json::Value;
use std::collections::BTreeSet;
use support::Schemas;

#[test]
fn every_case_ends_as_the_table_says() {
    let schemas = Schemas::load();
    let mut wrong = vec![];
    for case in cases().unwrap() {
        let errors = schemas.errors(&case.object, case.before.as_ref());
        let as_expected = match &case.expect {
            Expect::Accept => errors.is_empty(),
            Expect::Refuse(text) => errors.len() == 1 && errors[0].contains(text.as_str()),
        };
        if !as_expected {
            wrong.push(format!("{} {:?}\n    expected {:?}\n    got {errors:?}", case.file, case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_pair_and_every_pair_has_a_rule() {
    let mut rules = BTreeSet::new();
    for (kind, schema) in Schemas::load().iter() {
        walk(schema, kind, &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_else(|| panic!("{path}: a rule without a message"));
                assert!(rules.insert(message.to_owned()), "{path}: two rules with the message {message:?}");
            }
        });
    }
    let pairs: BTreeSet<_> =
        cases().unwrap().into_iter().filter(|case| case.expect == Expect::Accept).map(|case| case.name).collect();
    assert_eq!(rules, pairs);
    assert!(rules.len() > 40, "only {} rules were found", rules.len());
}

/// The two crates know nothing of each other, so the figures are compared as text.
#[test]
fn the_bounds_of_the_bundled_engine_are_its_own() {
    let limits = std::fs::read_to_string("../inference-pod/src/limits.rs").unwrap();
    let own = |name: &str| {
        let (_, rest) = limits.split_once(&format!("pub const {name}: u32 = ")).unwrap();
        let text = rest.split_once(';').unwrap().0.replace('_', "");
        match text.split_once(" << ") {
            Some((one, shift)) => one.parse::<i64>().unwrap() << shift.parse::<u32>().unwrap(),
            None => text.parse().unwrap(),
        }
    };
    assert_eq!(own("CONTEXT_TOKENS_MAX"), BUNDLED_CONTEXT_TOKENS);
    assert_eq!(own("SLOTS_MAX"), i64::from(BUNDLED_PARALLEL_REQUESTS));
}

#[test]
fn everything_in_a_spec_has_a_bound() {
    let mut unbounded = vec![];
    for (kind, schema) in Schemas::load().iter() {
        walk(&schema["properties"]["spec"], &format!("{kind}.spec"), &mut |path, node| {
            let bounded = match node["type"].as_str() {
                Some("array") => node.get("maxItems").is_some(),
                Some("object") if node.get("additionalProperties").is_some() => node.get("maxProperties").is_some(),
                Some("string") => node.get("maxLength").is_some() || node.get("enum").is_some(),
                Some("integer") => node.get("minimum").is_some(),
                None => node.get("maxLength").is_some(),
                _ => true,
            };
            if !bounded {
                unbounded.push(path.to_owned());
            }
        });
        walk(&schema["properties"]["status"], &format!("{kind}.status"), &mut |path, node| {
            if node["type"] == "array" && node.get("maxItems").is_none() {
                unbounded.push(path.to_owned());
            }
        });
    }
    assert!(unbounded.is_empty(), "without a bound: {unbounded:#?}");
}

#[test]
fn no_float_and_no_null_anywhere() {
    for (kind, schema) in Schemas::load().iter() {
        walk(schema, kind, &mut |path, node| {
            assert_ne!(node["type"], "number", "{path} is a float: use an integer or a decimal string");
            assert!(node.get("nullable").is_none(), "{path} is nullable: has() would lie in a rule");
            assert!(node.get("x-kubernetes-preserve-unknown-fields").is_none(), "{path} takes anything");
        });
    }
}

/// Visits a schema and everything below it.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), visit);
    }
}
