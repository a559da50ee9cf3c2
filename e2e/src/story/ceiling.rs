//! (e) a lower ceiling changes the served variant and class, without a lost request, and says why.

use super::{MODEL, NAMESPACE};
use crate::load::saturate;
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use crate::trace::Arrival;
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// Room above what is spent: more than a small replica projects to in half an hour (0.10), less than a standard one (0.50).
const ROOM: &str = "0.30";
const SWITCHED_WITHIN: Duration = Duration::from_secs(180);
const TRAFFIC: Duration = Duration::from_secs(90);

pub(super) async fn a_lower_ceiling_changes_the_variant(
    stage: &Stage,
    team: &OpenAi,
    narrator: &Narrator,
) -> Result<()> {
    narrator.chapter("(e) Finance lowers the ceiling");
    let settled = stage.spent().await?;
    let room: quartermaster_core::units::NanoUsd = ROOM.parse()?;
    let amount = settled.saturating_add(room);
    narrator.say(format_args!(
        "{settled} USD are spent. In the next half hour a cpu-standard replica costs 0.50, a cpu-small one 0.10: the new ceiling is {amount}"
    ));
    let before = stage.model().await?;
    ensure!(
        before.serves("q8-0", "cpu-standard"),
        "q8-0 on cpu-standard was not served before: {}",
        before.plan_message()
    );
    let traffic = tokio::spawn({
        let team = team.clone();
        let shape = Arrival { at: Duration::ZERO, prompt_tokens: 24, output_tokens: 12 };
        async move { saturate(&team, MODEL, 1, TRAFFIC, shape).await }
    });
    let lowered_at = Timestamp::now();
    stage.apply(narrator, &policy(&amount.to_string())).await?;
    let switched = async || Ok(stage.model().await?.only_serves("q4-0", "cpu-small"));
    let waited = stage.until(SWITCHED_WITHIN, "q4-0 on cpu-small alone is served", switched).await?;
    let outcome = traffic.await.context("the traffic broke off")?;
    narrator.say(format_args!(
        "switched after {} s; {} of {} requests answered meanwhile",
        waited.as_secs(),
        outcome.answered,
        outcome.sent
    ));
    ensure!(
        outcome.failures.is_empty(),
        "{} requests were lost: {:?}",
        outcome.failures.len(),
        outcome.failures.first()
    );
    let after = stage.model().await?;
    let why = after.verdict("q8-0").context("status.considered does not name q8-0")?;
    ensure!(why.contains("ceiling"), "status does not say why q8-0 is not served: {why}");
    narrator.say(format_args!("status: {why}"));
    let events = stage.events_since(lowered_at).await?;
    let event = events.iter().find(|note| note.contains("q4-0") && note.contains("ceiling"));
    narrator.say(format_args!("event: {}", event.context("no Event says why the variant was switched")?));
    stage.show(narrator, &["get", "modeldeployment,costpolicy", "-n", NAMESPACE]).await
}

fn policy(amount: &str) -> String {
    format!(
        "apiVersion: quartermaster.dev/v1alpha1\nkind: CostPolicy\nmetadata: {{name: demo, namespace: {NAMESPACE}}}\n\
         spec:\n  ceilings:\n    - {{period: Month, amount: \"{amount}\"}}\n"
    )
}
