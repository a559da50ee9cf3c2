//! The demo's story, step by step. `make demo` tells it; a test runs the same steps. Each step asserts what it shows.

mod budget;
mod ceiling;
mod load;
mod ready;

use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use anyhow::Result;

/// Namespace of the demo.
pub const NAMESPACE: &str = "demo";
/// The ModelDeployment of the demo.
pub const MODEL: &str = "chat";
/// API key with plenty of tokens, as `examples/demo/namespace.yaml` has it.
pub const TEAM_KEY: &str = "qm-demo-team-key-not-a-secret";
/// API key that runs out.
pub const TRIAL_KEY: &str = "qm-demo-trial-key-not-a-secret";

/// Tells the whole story; an error says which step broke, and how.
pub async fn tell(stage: &Stage, narrator: &Narrator) -> Result<()> {
    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    ready::pods_become_ready(stage, narrator).await?;
    ready::a_chat_is_answered(&team, narrator).await?;
    load::replicas_follow_a_recorded_load(stage, &team, narrator).await?;
    budget::the_budget_runs_out(stage, narrator).await?;
    ceiling::a_lower_ceiling_changes_the_variant(stage, &team, narrator).await
}
