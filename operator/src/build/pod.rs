//! The pod of a replica.

use super::config::Held;
use super::{Error, Shape, Source, admin, config};
use crate::{limits, names};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar,
    HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretEnvSource, SecretVolumeSource,
    SecurityContext, SleepAction, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quartermaster_crds::quantity;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// User of every container: nobody that exists on a node.
const UID: i64 = 65_532;
/// Folder of the copier that the engine's image brings along, for images that hold nothing but a model.
const TOOLS: &str = "/quartermaster";
const COPIER: &str = "/quartermaster/model-copy";
const ENGINE_COPIER: &str = "/usr/local/bin/model-copy";
const ENGINE: &str = "/usr/local/bin/quartermaster-inference-pod";
const CONFIG: &str = "/etc/quartermaster";
/// Where the Secret with credentials of sources is mounted, so that its variables can name its files.
const SOURCES: &str = "/etc/quartermaster/sources";
/// How long the engine finishes requests after SIGTERM; without it the engine cuts them off sooner than the kubelet.
const DRAIN: &str = "QM_DRAIN_SECONDS";
/// What the engine recognises the operator by.
const ADMIN: &str = "QM_ADMIN_TOKEN_SHA256";

/// Pod of one replica.
pub(super) fn spec(shape: &Shape<'_>) -> Result<PodSpec, Error> {
    let class = &shape.class.spec;
    let resources = resources(shape)?;
    let held = config::held(shape)?;
    let tolerations: Vec<Toleration> = class.tolerations.iter().map(Toleration::from).collect();
    let pull_secrets: Vec<LocalObjectReference> =
        shape.settings.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    Ok(PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        init_containers: init_containers(shape, &held, &resources),
        containers: vec![engine(shape, &held, resources)],
        node_selector: (!class.node_selector.is_empty()).then(|| class.node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UID),
            run_as_group: Some(UID),
            fs_group: Some(UID),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(limits::TERMINATION_SECONDS),
        volumes: Some(volumes(shape, &held)),
        ..PodSpec::default()
    })
}

fn engine(shape: &Shape<'_>, held: &[Held<'_>], resources: ResourceRequirements) -> Container {
    let port = ContainerPort {
        name: Some("http".to_owned()),
        container_port: i32::from(names::POD_PORT),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let sleep = SleepAction { seconds: limits::PRE_STOP_SECONDS };
    let token = admin::token(&shape.settings.admin_secret, shape.model);
    let environment =
        vec![variable(DRAIN, limits::DRAIN_SECONDS.to_string()), variable(ADMIN, admin::recognised_by(&token))];
    Container {
        ports: Some(vec![port]),
        args: Some(vec!["serve".to_owned(), "--config".to_owned(), format!("{CONFIG}/{}", config::SERVE_JSON)]),
        env: Some(environment),
        volume_mounts: Some(engine_mounts(held)),
        // Ready once the model is loaded; looked at often, so that a replica serves as soon as it can.
        startup_probe: Some(probe("/readyz", 1, limits::STARTUP_PROBE_SECONDS)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { sleep: Some(sleep), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        ..container(shape, names::ENGINE_CONTAINER, &shape.settings.inference_image, ENGINE, resources)
    }
}

fn engine_mounts(held: &[Held<'_>]) -> Vec<VolumeMount> {
    let mut mounts = vec![read_only("config", CONFIG), read_only("models", config::MODELS), mount("tmp", "/tmp")];
    let place = |claim: &str| format!("{}/{claim}", config::CLAIMS);
    mounts.extend(claims(held).into_iter().map(|claim| read_only(&claim_volume(claim), &place(claim))));
    mounts
}

/// The claims that hold files of the group, each once.
fn claims<'a>(held: &'a [Held<'_>]) -> BTreeSet<&'a str> {
    let claim = |held: &'a Held<'_>| match &held.source {
        Source::Claim { claim, .. } => Some(claim.as_str()),
        _ => None,
    };
    held.iter().filter_map(claim).collect()
}

/// A volume's name has no dots.
fn claim_volume(claim: &str) -> String {
    format!("claim-{}", &hex::encode(Sha256::digest(claim))[..16])
}

/// For models in images: one container that brings the copier, and one of each model's image that runs it. For those that
/// lie elsewhere: one each that fetches.
fn init_containers(shape: &Shape<'_>, held: &[Held<'_>], resources: &ResourceRequirements) -> Option<Vec<Container>> {
    let models = held.iter().enumerate().filter_map(|(place, held)| {
        let name = format!("{}{place}", names::MODEL_CONTAINER);
        match &held.source {
            Source::Image { image, path } => Some(Container {
                args: Some(vec![literal(path), held.path()]),
                volume_mounts: Some(vec![read_only("tools", TOOLS), mount("models", config::MODELS)]),
                ..container(shape, &name, image, COPIER, resources.clone())
            }),
            Source::Remote { uri } => Some(fetcher(shape, &name, uri, &held.path(), resources)),
            Source::File { .. } | Source::Claim { .. } => None,
        }
    });
    let models: Vec<Container> = models.collect();
    let copies = held.iter().any(|held| matches!(held.source, Source::Image { .. }));
    let copier = Container {
        args: Some(vec!["--install".to_owned(), COPIER.to_owned()]),
        volume_mounts: Some(vec![mount("tools", TOOLS)]),
        ..container(shape, names::COPIER_CONTAINER, &shape.settings.inference_image, ENGINE_COPIER, resources.clone())
    };
    let all: Vec<Container> = copies.then_some(copier).into_iter().chain(models).collect();
    (!all.is_empty()).then_some(all)
}

/// Brings a model's file into the pod.
fn fetcher(shape: &Shape<'_>, name: &str, uri: &str, path: &str, resources: &ResourceRequirements) -> Container {
    let arguments = ["fetch", "--source", &literal(uri), "--out", path];
    let secret = SecretEnvSource { name: shape.settings.sources_secret.clone(), optional: Some(true) };
    Container {
        args: Some(arguments.map(str::to_owned).to_vec()),
        // On the volume of the files themselves, so that they are linked and not copied.
        env: Some(vec![variable("QM_CACHE", format!("{}/.cache", config::MODELS))]),
        env_from: Some(vec![EnvFromSource { secret_ref: Some(secret), ..EnvFromSource::default() }]),
        volume_mounts: Some(vec![mount("models", config::MODELS), mount("tmp", "/tmp"), read_only("sources", SOURCES)]),
        ..container(shape, name, &shape.settings.inference_image, ENGINE, resources.clone())
    }
}

/// An argument as it is written: Kubernetes would put the value of a variable, out of a Secret, in the place of `$(NAME)`.
fn literal(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

/// What all containers share.
fn container(shape: &Shape<'_>, name: &str, image: &str, command: &str, resources: ResourceRequirements) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(shape.settings.pull_policy.clone()),
        command: Some(vec![command.to_owned()]),
        resources: Some(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        // Its last words say why it ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// Kind CPU: so much CPU and memory per device, request = limit. Other kinds: devices of the class's resource, and what the
/// host needs to feed them, requested so that the scheduler counts it.
fn resources(shape: &Shape<'_>) -> Result<ResourceRequirements, Error> {
    let class = &shape.class.spec;
    let devices = u64::from(shape.placement.devices);
    let mut amounts = BTreeMap::new();
    let mut requests = BTreeMap::new();
    if let Some(cpu) = &class.cpu_per_device {
        let millis = quantity::millis(cpu).map_err(|source| Error::Quantity {
            group: shape.name(),
            class: shape.class.name_any(),
            field: "spec.cpuPerDevice",
            source,
        })?;
        amounts.insert("cpu".to_owned(), Quantity(format!("{}m", millis.saturating_mul(devices))));
        amounts.insert("memory".to_owned(), Quantity(config::memory(shape)?.to_string()));
    } else {
        let cpu = limits::HOST_CPU_MILLIS.saturating_mul(devices);
        requests.insert("cpu".to_owned(), Quantity(format!("{cpu}m")));
        let memory = limits::HOST_MEMORY_BYTES.saturating_mul(devices);
        requests.insert("memory".to_owned(), Quantity(memory.to_string()));
    }
    if let Some(resource) = &class.resource_name {
        amounts.insert(resource.clone(), Quantity(devices.to_string()));
    }
    requests.extend(amounts.clone());
    Ok(ResourceRequirements { requests: Some(requests), limits: Some(amounts), claims: None })
}

fn volumes(shape: &Shape<'_>, held: &[Held<'_>]) -> Vec<Volume> {
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: shape.name(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let mut volumes = vec![config, empty("models"), empty("tmp"), empty("tools")];
    volumes.extend(claims(held).into_iter().map(|claim| Volume {
        name: claim_volume(claim),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: Some(true),
        }),
        ..Volume::default()
    }));
    if held.iter().any(|held| matches!(held.source, Source::Remote { .. })) {
        let name = Some(shape.settings.sources_secret.clone());
        let secret = SecretVolumeSource { secret_name: name, optional: Some(true), ..SecretVolumeSource::default() };
        volumes.push(Volume { name: "sources".to_owned(), secret: Some(secret), ..Volume::default() });
    }
    volumes
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(names::POD_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}
