//! Goldens: what a spec becomes.

use super::*;
use crate::args::Scrapers;
use crate::state::fixtures::{class, gpu_class, model, placement};
use quartermaster_core::wire::serve::ServeConfig;

fn held(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

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
    let (placement, files) = (placement("q4", "cpu-small", 2), held(&["q4"]));
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    insta::assert_yaml_snapshot!("cpu_deployment", deployment(&shape, 3).unwrap());
    insta::assert_yaml_snapshot!("cpu_config_map", config_map(&shape).unwrap());
}

#[test]
fn a_group_on_gpu() {
    let (model, class, settings) = (model("demo", "chat"), gpu_class("h200"), settings());
    let (placement, files) = (placement("local", "h200", 1), held(&["local"]));
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    insta::assert_yaml_snapshot!("gpu_deployment", deployment(&shape, 1).unwrap());
    assert_eq!(serve_config(&shape).unwrap().memory_limit_bytes, None);
}

#[test]
fn every_container_requests_cpu_and_memory_on_every_kind_of_device() {
    let (model, settings) = (model("demo", "chat"), settings());
    for (class, variant) in [(class("cpu-small"), "q4"), (gpu_class("h200"), "local")] {
        let (placement, files) = (placement(variant, &class.name_any(), 2), held(&[variant]));
        let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
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
    let (placement, files) = (placement("q4", "cpu-small", 1), held(&["q4"]));
    let settings = Settings { pull_secrets: vec!["registry".into(), "models".into()], ..settings() };
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    let pod = deployment(&shape, 1).unwrap().spec.unwrap().template.spec.unwrap();
    let names: Vec<String> = pod.image_pull_secrets.unwrap().into_iter().map(|secret| secret.name).collect();
    assert_eq!(names, ["registry", "models"]);
}

#[test]
fn the_hash_follows_what_pods_are_and_serve_from_and_nothing_else() {
    let (base, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let (placement, files) = (placement("q4", "cpu-small", 1), held(&["q4"]));
    let hash = |model: &ModelDeployment, settings: &Settings| {
        config_hash(&Shape { model, class: &class, placement: &placement, files: &files, settings }).unwrap()
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
    let shape = Shape { model: &base, class: &elsewhere, placement: &placement, files: &files, settings: &settings };
    assert_ne!(config_hash(&shape).unwrap(), same, "other nodes are other pods");
}

#[test]
fn the_variant_is_handed_to_pods_that_hold_its_file_and_rolls_none() {
    let (model, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let files = held(&["q8", "q4"]);
    let built = |variant: &str, files: &[String]| {
        let placement = placement(variant, "cpu-small", 1);
        let shape = Shape { model: &model, class: &class, placement: &placement, files, settings: &settings };
        let data = config_map(&shape).unwrap().data.unwrap()["serve.json"].clone();
        (deployment(&shape, 1).unwrap(), serde_json::from_str::<ServeConfig>(&data).unwrap())
    };
    let ((q8, serves_q8), (q4, serves_q4)) = (built("q8", &files), built("q4", &files));
    assert_eq!(q8.spec, q4.spec, "the same pods");
    assert_ne!(q8.metadata.annotations, q4.metadata.annotations);
    assert_eq!((serves_q8.variant.as_str(), serves_q4.variant.as_str()), ("q8", "q4"));
    assert_eq!(
        serves_q8.variants.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
        ["/models/q8.gguf", "/models/q4.gguf"]
    );
    let template = q8.spec.unwrap().template;
    assert_eq!(template.metadata.unwrap().annotations.unwrap()[names::FILES], "q8,q4");
    let copied: Vec<_> =
        template.spec.unwrap().init_containers.unwrap().into_iter().map(|each| (each.name, each.image)).collect();
    let image = |tag: &str| Some(format!("example/models:{tag}"));
    assert_eq!(copied[1..], [("model-0".to_owned(), image("q8")), ("model-1".to_owned(), image("q4"))]);
    assert_ne!(built("q4", &files).0.spec, built("q4", &held(&["q4"])).0.spec, "other files are other pods");
}

#[test]
fn pods_know_the_operator_by_a_digest_and_not_by_its_token() {
    let (model, class) = (model("demo", "chat"), class("cpu-small"));
    let (placement, files) = (placement("q4", "cpu-small", 1), held(&["q4"]));
    let settings = Settings { admin_secret: b"secret".to_vec(), ..settings() };
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    let written = serde_json::to_string(&deployment(&shape, 1).unwrap()).unwrap();
    let token = admin::token(b"secret", &model);
    assert!(written.contains(&admin::recognised_by(&token)) && !written.contains(&token));
}

#[test]
fn models_elsewhere_are_fetched_or_mounted() {
    let (mut model, class) = (model("demo", "chat"), class("cpu-small"));
    model.spec.variants[0].source = "s3://bucket/chat/q8.gguf".into();
    model.spec.variants[1].source = "pvc://team.models/q4.gguf".into();
    let (placement, files) = (placement("q8", "cpu-small", 1), held(&["q8", "q4"]));
    let settings = Settings { sources_secret: "sources".into(), ..settings() };
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    let paths: Vec<String> = serve_config(&shape).unwrap().variants.into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["/models/q8.gguf", "/mnt/pvc/team.models/q4.gguf"]);
    let pod = deployment(&shape, 1).unwrap().spec.unwrap().template.spec.unwrap();
    insta::assert_yaml_snapshot!("elsewhere", (&pod.init_containers, &pod.containers[0].volume_mounts, &pod.volumes));
}

#[test]
fn no_source_reads_a_variable_of_the_secret() {
    let (mut model, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    model.spec.variants[0].source = "https://example.com/$(HF_TOKEN)/q8.gguf".into();
    model.spec.variants[1].source = "oci://example/models:q4#/$(PATH).gguf".into();
    let (placement, files) = (placement("q8", "cpu-small", 1), held(&["q8", "q4"]));
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    let pod = deployment(&shape, 1).unwrap().spec.unwrap().template.spec.unwrap();
    let arguments: Vec<String> = pod.init_containers.unwrap().into_iter().flat_map(|each| each.args.unwrap()).collect();
    assert!(arguments.contains(&"https://example.com/$$(HF_TOKEN)/q8.gguf".to_owned()), "{arguments:?}");
    assert!(arguments.contains(&"/$$(PATH).gguf".to_owned()), "{arguments:?}");
}

#[test]
fn what_cannot_be_built_says_why() {
    let (mut model, class, settings) = (model("demo", "chat"), class("cpu-small"), settings());
    let (gone, files) = (placement("gone", "cpu-small", 1), held(&["q4"]));
    let shape = Shape { model: &model, class: &class, placement: &gone, files: &files, settings: &settings };
    assert!(deployment(&shape, 1).unwrap_err().to_string().contains("no variant gone"));
    model.spec.variants[1].source = "ftp://org/model".into();
    let placement = placement("q4", "cpu-small", 1);
    let shape = Shape { model: &model, class: &class, placement: &placement, files: &files, settings: &settings };
    let error = crate::error::chain(&deployment(&shape, 1).unwrap_err());
    assert!(error.contains("ftp://org/model"), "{error}");
}
