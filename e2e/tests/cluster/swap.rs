//! On the same hardware a pod that lives is told to serve another variant: nothing is replaced, nothing is lost.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use quartermaster_e2e::load::saturate;
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::openai::OpenAi;
use quartermaster_e2e::stage::{DEMO, Stage};
use quartermaster_e2e::story::TEAM_KEY;
use quartermaster_e2e::trace::Arrival;
use std::time::Duration;

const NAME: &str = "ladder";
const CLASS: &str = "cpu-standard";
const SERVED_WITHIN: Duration = Duration::from_secs(120);
const TRAFFIC: Duration = Duration::from_secs(25);

/// What can be told of the model's one pod.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    uid: String,
    restarts: i32,
    /// The variant, in the pod's own words.
    variant: String,
}

pub(super) async fn replaces_no_pod_and_loses_no_request(stage: &Stage) -> Result<()> {
    let narrator = Narrator::default();
    let serves = |variant: &'static str| async move {
        let only = async || Ok(stage.model_named(NAME).await?.only_serves(variant, CLASS));
        stage.until(SERVED_WITHIN, &format!("{NAME} serves {variant} on {CLASS} alone"), only).await
    };
    stage.apply(&narrator, &manifest("0.99", "0.85")).await?;
    serves("q8-0").await?;
    let before = seen(stage).await?;
    ensure!(before.variant == "q8-0", "{before:?}");

    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    let traffic = tokio::spawn(async move {
        let shape = Arrival { at: Duration::ZERO, prompt_tokens: 16, output_tokens: 8 };
        saturate(&team, NAME, 1, TRAFFIC, shape).await
    });
    stage.apply(&narrator, &manifest("0.85", "0.99")).await?;
    let took = serves("q4-0").await?;
    let after = seen(stage).await?;
    ensure!(
        after == Seen { variant: "q4-0".into(), ..before },
        "the pod was replaced or serves something else: {after:?}"
    );
    let outcome = traffic.await.context("the traffic broke off")?;
    outcome.ensure_lossless()?;
    let answer = OpenAi::new(stage.gateway(), TEAM_KEY)?.chat(NAME, "Hello", 4).await?;
    ensure!(answer.variant.as_deref() == Some("q4-0"), "the gateway names {:?}: {}", answer.variant, answer.body);
    narrator.say(format_args!("swapped after {} s, {} requests answered meanwhile", took.as_secs(), outcome.sent));

    // A pod that starts anew reads what it is to serve.
    stage.kubectl(&["delete", "pod", "-n", DEMO, "-l", &selector(), "--wait=true", "--timeout=60s"]).await?;
    let anew = async || Ok(seen(stage).await.is_ok_and(|seen| seen.uid != after.uid));
    stage.until(SERVED_WITHIN, "another pod is Ready", anew).await?;
    let anew = seen(stage).await?;
    ensure!(anew.variant == "q4-0", "a new pod serves something else: {anew:?}");
    stage.kubectl(&["delete", "modeldeployment", "-n", DEMO, NAME, "--wait=true", "--timeout=60s"]).await?;
    Ok(())
}

fn selector() -> String {
    format!("quartermaster.dev/model={NAME}")
}

/// The model's one pod, once it is Ready.
async fn seen(stage: &Stage) -> Result<Seen> {
    let api: Api<Pod> = Api::namespaced(stage.client(), DEMO);
    let pods = api.list(&ListParams::default().labels(&selector())).await.context("could not list pods")?.items;
    let [pod] = pods.as_slice() else { anyhow::bail!("there are {} pods of {NAME}", pods.len()) };
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|each| each.type_ == "Ready" && each.status == "True");
    ensure!(ready && pod.metadata.deletion_timestamp.is_none(), "pod {} is not Ready", pod.name_any());
    let page = format!("/api/v1/namespaces/{DEMO}/pods/{}:8000/proxy/metrics", pod.name_any());
    let page = stage.kubectl(&["get", "--raw", &page]).await?;
    let info = page.lines().find(|line| line.starts_with("quartermaster_engine_info{")).context("no engine_info")?;
    let variant = info.split("variant=\"").nth(1).and_then(|rest| rest.split('"').next()).context("no variant")?;
    Ok(Seen {
        uid: pod.uid().unwrap_or_default(),
        restarts: status.container_statuses.iter().flatten().map(|each| each.restart_count).sum(),
        variant: variant.to_owned(),
    })
}

/// Two variants on the same hardware, which has room for both at once.
fn manifest(q8: &str, q4: &str) -> String {
    let variant = |name: &str, tag: &str, precision: &str, score: &str| {
        format!(
            "    - name: {name}\n      source: oci://quartermaster.dev/models/smollm2-135m:{tag}#/model.gguf\n      \
             format: GGUF\n      precision: {precision}\n      \
             quality: {{score: \"{score}\", metric: User}}\n      \
             hardware: [{{class: {CLASS}, devicesPerReplica: 2}}]\n"
        )
    };
    format!(
        "apiVersion: quartermaster.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {{name: {NAME}, namespace: {DEMO}}}\n\
         spec:\n  model: {NAME}\n  objective: {{type: MaximizeValue}}\n  \
         serving: {{contextTokens: 512, parallelRequests: 2}}\n  scaling: {{min: 1, max: 1}}\n  variants:\n{}{}",
        variant("q8-0", "q8_0", "Q8_0", q8),
        variant("q4-0", "q4_0", "Q4_0", q4),
    )
}
