//! `docs/metrics.md` is what the programs register.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;
use std::path::Path;

use quartermaster_reference::{Process, families, metrics};

const PATH: &str = "docs/metrics.md";

/// A page without series of some family says nothing of it, so each that is registered must be there.
fn whole(registered: &impl Debug, page: String) -> String {
    let registered = format!("{registered:?}").matches("Descriptor {").count();
    assert!(registered > 0, "how the registry shows itself has changed: count otherwise");
    assert_eq!(families(&page).len(), registered, "a family lacks a series in sample(): all there are\n{page}");
    page
}

fn processes() -> [Process; 4] {
    let operator = quartermaster_operator::metrics::Metrics::sample();
    let gateway = quartermaster_gateway::metrics::Metrics::sample();
    let ledger = quartermaster_ledger::metrics::Metrics::sample();
    let pod = quartermaster_inference_pod::metrics::Metrics::sample();
    [
        Process { name: "Operator", place: "Port 8080.", page: whole(&operator, operator.page().unwrap()) },
        Process { name: "Gateway", place: "Port 9090.", page: whole(&gateway, gateway.page(None, 0).unwrap()) },
        Process { name: "Ledger", place: "Port 9090.", page: whole(&ledger, ledger.page()) },
        Process {
            name: "Inference pod",
            place: "Port 8000. Names that begin with `vllm:` are vLLM's.",
            page: whole(&pod, pod.render()),
        },
    ]
}

/// Writes what differs and fails, so that a second run passes; with `CI=true` it only fails.
#[test]
fn the_committed_page_is_what_the_programs_register() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PATH);
    let page = metrics(&processes());
    if std::fs::read_to_string(&path).is_ok_and(|present| present == page) {
        return;
    }
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        panic!("{PATH} is stale: run `cargo xtask gen`, commit the diff");
    }
    std::fs::write(&path, page).unwrap();
    panic!("{PATH} was stale; re-run; commit the diff");
}
