//! The charts are clean, what they render is what is committed, and wrong values are refused by name.

use std::collections::BTreeSet;
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
fn both_charts_ask_for_the_same_kubernetes() {
    let asked = charts::CHARTS.map(|chart| {
        let text = fs::read_to_string(workspace::root().join(chart).join("Chart.yaml")).unwrap();
        text.lines().find(|line| line.starts_with("kubeVersion: ")).map(str::to_owned).unwrap()
    });
    assert_eq!(asked[0], asked[1]);
}

/// The table of the operator's documentation and the rules of its roles, as sets of (group, resource, verb).
#[test]
fn the_operator_may_do_what_its_table_says_and_no_more() {
    let text = fs::read_to_string(workspace::root().join("operator/src/lib.rs")).unwrap();
    let mut listed = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("//! | ")).skip(1) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let group = cells[0].trim_matches('`').replace("core", "");
        for resource in cells[1].split(", ").map(|cell| cell.split('`').nth(1).unwrap()) {
            listed.extend(cells[2].split(", ").map(|verb| (group.clone(), resource.to_owned(), verb.to_owned())));
        }
    }
    let rendered = charts::render(&["--show-only", "templates/operator/rbac.yaml"]).unwrap();
    let lines: Vec<&str> = rendered.lines().collect();
    let rules = lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups: "));
    let mut granted = BTreeSet::new();
    for (at, line) in rules {
        let field = |name: &str| lines[at..].iter().find_map(|line| line.trim_start().strip_prefix(name)).unwrap();
        let items = |list: &str| -> Vec<String> {
            list.trim_matches(['[', ']']).split(", ").map(|item| item.trim_matches('"').to_owned()).collect()
        };
        let group = items(line.strip_prefix("  - apiGroups: ").unwrap()).remove(0);
        for resource in items(field("resources: ")) {
            granted.extend(items(field("verbs: ")).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
        }
    }
    assert!(listed.len() > 30, "{listed:?}");
    assert_eq!(listed, granted);
}

/// What a component is told in its environment it must know: a misspelt name would be ignored in silence.
#[test]
fn every_variable_of_the_chart_is_one_of_the_component() {
    for (component, file) in [("operator", "operator/src"), ("gateway", "gateway/src"), ("ledger", "ledger/src")] {
        let code =
            ["args.rs", "main.rs"].map(|name| fs::read_to_string(workspace::root().join(file).join(name)).unwrap());
        let kind = if component == "ledger" { "statefulset" } else { "deployment" };
        let template = format!("templates/{component}/{kind}.yaml");
        let values = format!("{}/ha.yaml", charts::VALUES);
        let rendered = charts::render(&["--values", &values, "--show-only", &template]).unwrap();
        for name in
            rendered.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|name| name.starts_with("QM_"))
        {
            assert!(code.iter().any(|code| code.contains(&format!("\"{name}\""))), "{component} knows no {name}");
        }
    }
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
