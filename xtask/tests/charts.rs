//! The charts are clean, what they render is what is committed, and wrong values are refused by name.

use std::fs;

use xtask::{charts, workspace};

#[test]
fn helm_finds_no_fault() {
    for chart in charts::CHARTS {
        charts::lint(chart).unwrap();
    }
}

/// Writes what differs and fails, so that a second run passes; with `CI=true` it only fails.
#[test]
fn rendered_charts_are_the_committed_ones() {
    let mut stale = Vec::new();
    let goldens = charts::goldens().unwrap();
    assert_eq!(goldens.len(), 3);
    for golden in goldens {
        let path = workspace::root().join(&golden.path);
        if fs::read_to_string(&path).is_ok_and(|present| present == golden.content) {
            continue;
        }
        if !workspace::in_ci() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &golden.content).unwrap();
        }
        stale.push(golden.path);
    }
    assert!(stale.is_empty(), "these files were stale: {stale:?}; re-run; commit the diff");
}

#[test]
fn wrong_values_are_refused_by_name() {
    let cases = [
        ("gateway.replica=2", "replica"),
        ("gateway.replicas=0", "/gateway/replicas"),
        ("operator.replicas=3", "/operator/replicas"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("ledger.storage.size=plenty", "/ledger/storage/size"),
        ("operator.prometheusUrl=prometheus:9090", "/operator/prometheusUrl"),
    ];
    for (set, named) in cases {
        let error = charts::render(&["--set", set]).unwrap_err().to_string();
        assert!(error.contains(named), "{set}: {error}");
    }
}

#[test]
fn every_value_has_a_description_or_a_type_that_has_one() {
    let text = fs::read_to_string(workspace::root().join(charts::CHARTS[0]).join("values.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    check(&schema, &schema["properties"], "");
}

#[expect(clippy::unwrap_used, reason = "part of the test above")]
fn check(schema: &serde_json::Value, properties: &serde_json::Value, path: &str) {
    for (name, property) in properties.as_object().unwrap() {
        let path = format!("{path}/{name}");
        let referred = property["$ref"].as_str().map(|it| &schema["definitions"][it.rsplit('/').next().unwrap()]);
        let described = property["description"].is_string() || referred.is_some_and(|it| it["description"].is_string());
        assert!(described, "{path} has no description");
        if property["properties"].is_object() {
            assert_eq!(property["additionalProperties"], false, "{path} takes unknown fields");
            check(schema, &property["properties"], &path);
        }
    }
}
