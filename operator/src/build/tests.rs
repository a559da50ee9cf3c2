//! Goldens: what a spec becomes.

use super::*;
use crate::args::Scrapers;
use crate::state::fixtures::{class, gpu_class, model, placement};

fn settings() -> Settings {
    Settings {
        inference_image: "example/inference-pod:1".into(),
        pull_policy: "IfNotPresent".into(),
        ..Settings::default()
    }
}

#[test]
fn a_group_on_cpu() {
    let (model, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let placement = placement("q4", "cpu-small", 2);
    let shape = Shape { model: &model, class: &class, placement: &placement, settings: &settings };
    insta::assert_yaml_snapshot!("cpu_deployment", deployment(&shape, 3).unwrap());
    insta::assert_yaml_snapshot!("cpu_config_map", config_map(&shape).unwrap());
}

#[test]
fn a_group_on_gpu() {
    let (model, class, settings) = (model("demo", "chat"), gpu_class("h200"), settings());
    let placement = placement("local", "h200", 1);
    let shape = Shape { model: &model, class: &class, placement: &placement, settings: &settings };
    insta::assert_yaml_snapshot!("gpu_deployment", deployment(&shape, 1).unwrap());
    assert_eq!(serve_config(&shape).unwrap().memory_limit_bytes, None);
}

#[test]
fn every_container_requests_cpu_and_memory_on_every_kind_of_device() {
    let (model, settings) = (model("demo", "chat"), settings());
    for (class, variant) in [(class("cpu-small"), "q4"), (gpu_class("h200"), "local")] {
        let placement = placement(variant, &class.name_any(), 2);
        let shape = Shape { model: &model, class: &class, placement: &placement, settings: &settings };
        let pod = deployment(&shape, 1).unwrap().spec.unwrap().template.spec.unwrap();
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let requests = container.resources.as_ref().unwrap().requests.as_ref().unwrap();
            let requested = requests.contains_key("cpu") && requests.contains_key("memory");
            assert!(requested, "{} on {}: {requests:?}", container.name, placement.class);
        }
    }
}

#[test]
fn a_model_has_a_service_a_disruption_budget_and_a_network_policy() {
    insta::assert_yaml_snapshot!("service", service(&model("demo", "chat")));
    insta::assert_yaml_snapshot!("disruption_budget", disruption_budget(&model("demo", "chat")));
    let release = "quartermaster-system";
    let scrapers = r#"[
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
        {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    ]"#;
    let scrapers: Scrapers = scrapers.parse().unwrap();
    insta::assert_yaml_snapshot!("network_policy", network_policy(&model("demo", "chat"), release, &scrapers.0));
    let alone = network_policy(&model("demo", "chat"), release, &[]).spec.unwrap().ingress.unwrap();
    assert_eq!(alone[0].from.as_ref().unwrap().len(), 1, "nobody but our own");
}

#[test]
fn replicas_are_pulled_with_the_secrets_that_the_chart_names() {
    let (model, class) = (model("demo", "chat"), class("cpu-small"));
    let placement = placement("q4", "cpu-small", 1);
    let settings = Settings { pull_secrets: vec!["registry".into(), "models".into()], ..settings() };
    let shape = Shape { model: &model, class: &class, placement: &placement, settings: &settings };
    let pod = deployment(&shape, 1).unwrap().spec.unwrap().template.spec.unwrap();
    let names: Vec<String> = pod.image_pull_secrets.unwrap().into_iter().map(|secret| secret.name).collect();
    assert_eq!(names, ["registry", "models"]);
}

#[test]
fn the_hash_follows_what_pods_are_and_serve_from_and_nothing_else() {
    let (base, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let placement = placement("q4", "cpu-small", 1);
    let hash = |model: &ModelDeployment, settings: &Settings| {
        config_hash(&Shape { model, class: &class, placement: &placement, settings }).unwrap()
    };
    let same = hash(&base, &settings);
    let mut scaled = base.clone();
    scaled.spec.scaling.max = 9;
    assert_eq!(hash(&scaled, &settings), same, "scaling replaces no pod");
    let mut moved = base.clone();
    moved.spec.variants[1].source = "oci://example/models:other#/model.gguf".into();
    assert_ne!(hash(&moved, &settings), same);
    assert_ne!(hash(&base, &Settings { pull_secrets: vec!["new".into()], ..settings.clone() }), same);
    assert_ne!(hash(&base, &Settings { inference_image: "example/inference-pod:2".into(), ..settings.clone() }), same);
    let mut elsewhere = class.clone();
    elsewhere.spec.node_selector.insert("pool".into(), "other".into());
    let shape = Shape { model: &base, class: &elsewhere, placement: &placement, settings: &settings };
    assert_ne!(config_hash(&shape).unwrap(), same, "other nodes are other pods");
}

#[test]
fn what_cannot_be_built_says_why() {
    let (mut model, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let gone = placement("gone", "cpu-small", 1);
    let shape = Shape { model: &model, class: &class, placement: &gone, settings: &settings };
    assert!(deployment(&shape, 1).unwrap_err().to_string().contains("no variant gone"));
    model.spec.variants[1].source = "hf://org/model".into();
    let placement = placement("q4", "cpu-small", 1);
    let shape = Shape { model: &model, class: &class, placement: &placement, settings: &settings };
    let error = crate::error::chain(&deployment(&shape, 1).unwrap_err());
    assert!(error.contains("hf://org/model"), "{error}");
}
