//! The examples are what we promise, the demo's among them: each parses, passes every rule, and all but the full ones are
//! obeyed to the letter.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use quartermaster_crds::v1alpha1::{CostPolicy, HardwareClass, ModelDeployment, TokenBudget};
use quartermaster_crds::{FieldPath, all};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use support::Schemas;

/// Every object of our kinds in a folder, with the name of its file.
fn objects(folder: &str) -> Vec<(String, Value)> {
    let mut objects = vec![];
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ours = documents.into_iter().filter(|document| document["apiVersion"] == "quartermaster.dev/v1alpha1");
        objects.extend(ours.map(|object| (name.clone(), object)));
    }
    objects.sort_by(|a, b| a.0.cmp(&b.0));
    objects
}

fn examples() -> Vec<(String, Value)> {
    objects("examples")
}

/// Parses as the kind says, checks that nothing is lost on the way, and gives what is not obeyed.
fn not_implemented(name: &str, object: &Value) -> Vec<FieldPath> {
    macro_rules! parse {
        ($($kind:ident),+) => {
            match object["kind"].as_str().unwrap() {
                $(stringify!($kind) => {
                    let parsed: $kind = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
                    let again = serde_json::to_value(&parsed).unwrap();
                    assert_kept(name, "", object, &again);
                    parsed.spec.not_implemented()
                })+
                other => panic!("{name}: no kind {other}"),
            }
        };
    }
    parse!(HardwareClass, ModelDeployment, TokenBudget, CostPolicy)
}

/// Everything in `before` is in `after`; `after` may have defaults beyond.
fn assert_kept(name: &str, path: &str, before: &Value, after: &Value) {
    match before {
        Value::Object(fields) => {
            for (key, value) in fields {
                assert_kept(name, &format!("{path}.{key}"), value, &after[key.as_str()]);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                assert_kept(name, &format!("{path}[{index}]"), item, &after[index]);
            }
        }
        _ if before.is_i64() && after.is_string() => {
            assert_eq!(before.to_string(), after.as_str().unwrap(), "{name}{path}: a quantity")
        }
        _ => assert_eq!(before, after, "{name}{path}"),
    }
}

#[test]
fn every_example_passes_and_loses_nothing() {
    let schemas = Schemas::load();
    for (name, object) in examples() {
        assert_eq!(schemas.errors(&object, None), Vec::<String>::new(), "{name}");
        let ignored = not_implemented(&name, &object);
        if !name.contains("full") {
            assert_eq!(ignored, vec![], "{name}: only a full example asks for what is not obeyed");
        }
    }
}

#[test]
fn the_demo_asks_for_nothing_that_is_not_obeyed() {
    let (schemas, demo) = (Schemas::load(), objects("../examples/demo"));
    for (name, object) in &demo {
        assert_eq!(schemas.errors(object, None), Vec::<String>::new(), "{name}");
        assert_eq!(not_implemented(name, object), vec![], "{name}");
    }
    let kinds: BTreeSet<_> = demo.iter().map(|(_, object)| object["kind"].to_string()).collect();
    assert_eq!(kinds.len(), all().len(), "the demo shows every kind: {kinds:?}");
}

#[test]
fn the_family_asks_for_nothing_but_its_curves_that_is_not_obeyed() {
    let (schemas, family) = (Schemas::load(), objects("../examples/family"));
    assert!(!family.is_empty());
    for (name, object) in &family {
        assert_eq!(schemas.errors(object, None), Vec::<String>::new(), "{name}");
        let ignored = not_implemented(name, object);
        assert!(ignored.iter().all(|path| path.to_string().ends_with(".quality.curve")), "{name}: {ignored:?}");
    }
}

#[test]
fn every_kind_has_a_minimal_and_a_full_example() {
    let names: Vec<_> = examples().into_iter().map(|(name, _)| name).collect();
    for crd in all() {
        for size in ["minimal", "full"] {
            let wanted = format!("{}-{size}.yaml", crd.spec.names.singular.clone().unwrap());
            assert!(names.contains(&wanted), "{wanted} is missing");
        }
    }
}

#[test]
fn a_full_example_names_every_field_that_is_not_obeyed() {
    let wanted: &[(&str, &[&str])] = &[
        (
            "hardwareclass-full.yaml",
            &["spec.accelerator.kind", "spec.topology", "spec.precisions", "spec.price.spotPerHour", "spec.watts"],
        ),
        (
            "modeldeployment-full.yaml",
            &[
                "spec.variants[bf16].format",
                "spec.variants[bf16].quality.curve",
                "spec.variants[bf16].hardware[gpu-h100].profile",
                "spec.engine.kind",
                "spec.objective.valuePerRequest",
                "spec.slo",
                "spec.scaling.warmPool",
                "spec.tokens.allocation",
                "spec.cascade",
                "spec.cache",
                "spec.sampling",
                "spec.degradeOrder",
            ],
        ),
        (
            "tokenbudget-full.yaml",
            &[
                "spec.subjects[2].serviceAccount",
                "spec.subjects[3].jwtClaim",
                "spec.windows[monthly].amount",
                "spec.rateLimits",
                "spec.onExhausted[Degrade]",
                "spec.onExhausted[Queue]",
                "spec.rollover",
            ],
        ),
        (
            "costpolicy-full.yaml",
            &["spec.whenExhausted.action", "spec.alerts", "spec.breaker", "spec.protectPriority", "spec.chargeback"],
        ),
    ];
    let examples = examples();
    for (name, fields) in wanted {
        let (_, object) = examples.iter().find(|(n, _)| n == name).unwrap();
        let got: Vec<_> = not_implemented(name, object).into_iter().map(|f| f.0).collect();
        assert_eq!(got, *fields, "{name}");
    }
}
