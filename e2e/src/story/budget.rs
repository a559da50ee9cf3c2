//! (d) a TokenBudget runs out: 429 with the reason, and never a token more than the budget.

use super::{MODEL, NAMESPACE, TRIAL_KEY};
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Tokens that the trial budget has left at the start, whatever earlier runs of the demo have used today.
const BUDGET: u64 = 300;
/// More than the budget can pay for.
const ROUNDS: usize = 12;
const AT_ONCE: usize = 3;
const STATUS_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn the_budget_runs_out(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.chapter(format_args!("(d) A TokenBudget of {BUDGET} tokens a day runs out"));
    let used = grant(stage, narrator).await?;
    let trial = OpenAi::new(stage.gateway(), TRIAL_KEY)?;
    let (mut served, mut refused) = (0, None);
    for round in 0..ROUNDS {
        let ask = |n: usize| {
            let (trial, text) = (trial.clone(), format!("Tell me fact number {n} about the sea."));
            async move { trial.chat(MODEL, &text, 60).await }
        };
        for answer in futures::future::try_join_all((0..AT_ONCE).map(|n| ask(round * AT_ONCE + n))).await? {
            match answer.status.as_u16() {
                200 => served += answer.total_tokens(),
                429 => refused = Some(answer),
                status => anyhow::bail!("status {status}: {}", answer.body),
            }
        }
        narrator.say(format_args!("{served} tokens served"));
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.context("the budget never ran out")?;
    narrator.say(format_args!("429, Retry-After {} s: {}", refused.retry_after.unwrap_or(0), refused.error()));
    ensure!(served > 0 && served <= BUDGET, "{served} tokens were served of a budget of {BUDGET}");
    ensure!(refused.retry_after.is_some(), "429 without Retry-After");
    ensure!(refused.error().contains("trial"), "the refusal does not name the budget: {}", refused.body);
    let counted = async || Ok(stage.settled("trial").await?.is_some_and(|(settled, _)| settled == used + served));
    stage.until(STATUS_WITHIN, "status.windows of TokenBudget trial counts what was served", counted).await?;
    stage.show(narrator, &["get", "tokenbudget", "-n", NAMESPACE]).await
}

/// Sets the limit [`BUDGET`] above what is used: a changed limit does not reset usage. Returns what was used before.
async fn grant(stage: &Stage, narrator: &Narrator) -> Result<u64> {
    let (used, _) = stage.settled("trial").await?.context("TokenBudget trial has no status")?;
    let limit = used + BUDGET;
    stage.apply(narrator, &manifest(limit)).await?;
    let granted = async || Ok(stage.settled("trial").await?.is_some_and(|(_, now)| now == limit));
    stage.until(STATUS_WITHIN, "the new limit of TokenBudget trial is in force", granted).await?;
    Ok(used)
}

fn manifest(tokens: u64) -> String {
    format!(
        "apiVersion: quartermaster.dev/v1alpha1\nkind: TokenBudget\nmetadata: {{name: trial, namespace: {NAMESPACE}}}\n\
         spec:\n  subjects: [{{apiKeySecret: {{name: trial-key}}}}]\n  parent: {{name: team}}\n  \
         windows:\n    - {{name: daily, period: Day, tokens: {tokens}}}\n"
    )
}
