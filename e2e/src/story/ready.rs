//! (a) the model's pods are Ready, (b) a chat is answered.

use super::{MODEL, NAMESPACE};
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use anyhow::{Result, ensure};
use std::time::Duration;

/// From `kubectl apply` to Ready: copy of the model, load and warm-up on a slice of a CPU.
const READY_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn pods_become_ready(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.chapter("(a) The model becomes Ready");
    let ready = async || {
        let model = stage.model().await?;
        Ok(model.ready() && model.only_serves("q8-0", "cpu-standard"))
    };
    let waited = stage.until(READY_WITHIN, "the ModelDeployment is Ready with q8-0 on cpu-standard", ready).await?;
    narrator.say(format_args!("Ready after {} s", waited.as_secs()));
    stage.show(narrator, &["get", "modeldeployment,pods", "-n", NAMESPACE]).await?;
    let model = stage.model().await?;
    for considered in &model.status().considered {
        narrator.say(format_args!("{} on {}: {}", considered.variant, considered.class, considered.message));
    }
    ensure!(
        model.verdict("f16").is_some_and(|message| message.contains("dominated")),
        "status.considered does not say that f16 is dominated"
    );
    Ok(())
}

pub(super) async fn a_chat_is_answered(team: &OpenAi, narrator: &Narrator) -> Result<()> {
    narrator.chapter("(b) A chat through the gateway");
    let question = "What is the capital of France? Answer in one sentence.";
    let answer = team.chat(MODEL, question, 48).await?;
    ensure!(answer.status.is_success(), "the gateway answered {}: {}", answer.status, answer.body);
    ensure!(answer.text().contains("Paris"), "`{}` does not answer `{question}`", answer.text());
    narrator.say(format_args!("> {question}"));
    narrator.say(format_args!("< {}", answer.text().trim()));
    narrator.say(format_args!("served by {}, usage {}", answer.variant.unwrap_or_default(), answer.body["usage"]));
    Ok(())
}
