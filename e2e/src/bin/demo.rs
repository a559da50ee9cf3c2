//! `make demo`: a real cluster, our chart, a real model; the story on the terminal; the cluster stays up.

use clap::Parser;
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::Stage;
use quartermaster_e2e::story;

/// Brings up a cluster, installs Quartermaster and shows it at work. Exits non-zero when a step fails.
#[derive(Debug, Parser)]
struct Args {
    /// Name of the cluster; several may stand side by side.
    #[arg(long, env = "QM_CLUSTER", default_value = "quartermaster")]
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let narrator = Narrator::default();
    let stage = Stage::set_up(&args.name, &narrator).await?;
    stage.apply_examples(&narrator).await?;
    story::tell(&stage, &narrator).await?;
    narrator.chapter("All of it worked. The cluster stays up. Try:");
    narrator.say(format_args!("export KUBECONFIG={}", stage.cluster().kubeconfig_path().display()));
    narrator.say("kubectl get modeldeployment,tokenbudget,costpolicy,hardwareclass -A");
    narrator.say("kubectl describe modeldeployment -n demo chat");
    narrator.say(format_args!(
        "curl {}/v1/chat/completions -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\",
        stage.gateway(),
        story::TEAM_KEY
    ));
    narrator.say("  -d '{\"model\": \"chat\", \"max_tokens\": 40, \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'");
    narrator.say("kubectl edit costpolicy -n demo demo     # raise the ceiling: the better variant comes back");
    narrator.say("make down                                # take the cluster away");
    Ok(())
}
