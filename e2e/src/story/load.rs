//! (c) a recorded load: replicas go from one to two or more and back, and no request is lost.

use super::{MODEL, NAMESPACE};
use crate::load::replay;
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use crate::trace::{Scale, azure_conversations};
use anyhow::{Result, ensure};
use std::time::Duration;

/// A production service's traffic, for two cores.
const SCALE: Scale = Scale { keep_every: 8, prompt_divisor: 16, output_divisor: 8 };
/// At most so much of the trace.
const LENGTH: Duration = Duration::from_secs(150);
/// The quiet window of the example and the draining of pods.
const BACK_WITHIN: Duration = Duration::from_secs(180);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn replicas_follow_a_recorded_load(stage: &Stage, team: &OpenAi, narrator: &Narrator) -> Result<()> {
    let mut arrivals = azure_conversations(SCALE)?;
    arrivals.retain(|arrival| arrival.at <= LENGTH);
    narrator.chapter(format_args!(
        "(c) Recorded load: {} seconds of a real conversation service (Azure, 2023)",
        LENGTH.as_secs()
    ));
    let one = async || Ok(stage.model().await?.runs_one());
    stage.until(BACK_WITHIN, "the model runs one replica before the load", one).await?;
    narrator.say(format_args!(
        "scaled to this machine: every {}th request, prompts ÷ {}, answers ÷ {}: {} requests in {} s",
        SCALE.keep_every,
        SCALE.prompt_divisor,
        SCALE.output_divisor,
        arrivals.len(),
        LENGTH.as_secs()
    ));
    let load = tokio::spawn({
        let team = team.clone();
        async move { replay(&team, MODEL, &arrivals).await }
    });
    let mut most = 0;
    let mut shown = String::new();
    while !load.is_finished() {
        most = most.max(report(stage, narrator, &mut shown).await?);
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    let outcome = load.await?;
    narrator.say(format_args!(
        "{} of {} requests answered, {:.0} tokens/s, median {:.1} s, p95 {:.1} s; most replicas ready: {most}",
        outcome.answered,
        outcome.sent,
        outcome.tokens_per_second(),
        outcome.percentile(50).as_secs_f64(),
        outcome.percentile(95).as_secs_f64(),
    ));
    ensure!(
        outcome.failures.is_empty(),
        "{} requests were lost: {:?}",
        outcome.failures.len(),
        outcome.failures.first()
    );
    ensure!(most >= 2, "the load never brought a second replica");
    let back = async || Ok(report(stage, narrator, &mut String::new()).await? == 1);
    let waited = stage.until(BACK_WITHIN, "one replica is left", back).await?;
    narrator.say(format_args!("back at one replica {} s after the last answer", waited.as_secs()));
    stage
        .show(narrator, &["get", "events", "-n", NAMESPACE, "--field-selector", "involvedObject.kind=ModelDeployment"])
        .await
}

/// Ready replicas; says so when the plan's sentence changes.
async fn report(stage: &Stage, narrator: &Narrator, shown: &mut String) -> Result<i32> {
    let model = stage.model().await?;
    let ready = model.status().ready_replicas;
    let line = format!("{ready} ready: {}", model.plan_message());
    if *shown != line && !shown.is_empty() {
        narrator.say(&line);
    }
    *shown = line;
    Ok(ready)
}
