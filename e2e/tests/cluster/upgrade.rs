//! `helm upgrade` with other values changes what runs, and neither the token between our components nor any client's key.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use quartermaster_e2e::openai::OpenAi;
use quartermaster_e2e::stage::{SYSTEM, Stage};
use quartermaster_e2e::story::{MODEL, TEAM_KEY};
use std::time::Duration;

/// Values that are random once and then kept.
const SECRETS: [&str; 2] = ["quartermaster-internal", "quartermaster-key-salt"];
/// A value that the demo does not have, and the variable of the operator that shows it.
const SET: (&str, &str, &str) = ("operator.tickSeconds=4", "QM_TICK_SECONDS", "4");
const SERVED_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn keeps_the_secrets_and_applies_the_values(stage: &Stage) -> Result<()> {
    let before = [stage.secret(SECRETS[0]).await?, stage.secret(SECRETS[1]).await?];
    let (setting, variable, value) = SET;
    ensure!(
        operators(stage, variable).await?.as_deref() != Some(value),
        "{setting} is set already: it would show nothing"
    );
    stage.upgrade(&[setting]).await?;
    let now = operators(stage, variable).await?;
    ensure!(now.as_deref() == Some(value), "{setting} did not reach the operator: {variable} is {now:?}");
    for (name, before) in SECRETS.into_iter().zip(before) {
        // Not printed: it is a secret.
        ensure!(stage.secret(name).await? == before, "the upgrade changed Secret {name}");
    }
    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    let served = async || Ok(team.chat(MODEL, "Are you still there?", 4).await?.status.is_success());
    stage.until(SERVED_WITHIN, "a request with the old API key is answered", served).await?;
    Ok(())
}

/// An environment variable of the operator.
async fn operators(stage: &Stage, variable: &str) -> Result<Option<String>> {
    let api: Api<Deployment> = Api::namespaced(stage.client(), SYSTEM);
    let deployment =
        api.get("quartermaster-operator").await.context("could not get Deployment quartermaster-operator")?;
    let pod = deployment.spec.and_then(|spec| spec.template.spec).context("the Deployment has no pod")?;
    let mut variables = pod.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    Ok(variables.find(|one| one.name == variable).and_then(|one| one.value))
}
