//! Requests that are wrong end in a 4xx of OpenAI's shape that names the fault.

use anyhow::{Result, ensure};
use quartermaster_e2e::openai::OpenAi;
use quartermaster_e2e::stage::Stage;
use quartermaster_e2e::story::{MODEL, TEAM_KEY};
use serde_json::json;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

const SERVED_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn each_gets_its_status(stage: &Stage) -> Result<()> {
    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    let served = async || Ok(team.chat(MODEL, "Are you there?", 4).await?.status.is_success());
    stage.until(SERVED_WITHIN, "a good request is answered", served).await?;
    let good = |model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}).to_string()
    };
    let long = json!({"model": MODEL, "messages": [{"role": "user", "content": "word ".repeat(900)}]}).to_string();
    let mistyped =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": "many"}).to_string();
    let huge = format!("{{\"model\": \"{MODEL}\", \"x\": \"{}\"}}", "a".repeat(50 * 1024 * 1024));
    let cases = [
        ("no key", "", good(MODEL), 401, "key"),
        ("an unknown key", "qm-nobody", good(MODEL), 401, "key"),
        ("malformed JSON", TEAM_KEY, "{\"model\": ".to_owned(), 400, "JSON"),
        ("a wrong type", TEAM_KEY, mistyped, 400, "max_tokens"),
        ("no messages", TEAM_KEY, json!({"model": MODEL}).to_string(), 400, "messages"),
        ("an unknown model", TEAM_KEY, good("nothing"), 404, "nothing"),
        ("a prompt above the limit", TEAM_KEY, long, 400, "768"),
        ("50 MB", TEAM_KEY, huge, 413, "body"),
    ];
    for (what, key, body, status, named) in cases {
        let answer = OpenAi::new(stage.gateway(), key)?.post(CHAT, body).await?;
        ensure!(answer.status.as_u16() == status, "{what}: {} instead of {status}: {}", answer.status, answer.body);
        ensure!(answer.error().contains(named), "{what}: `{}` does not name `{named}`", answer.error());
        println!("{what}: {status} {}", answer.error());
    }
    let answer = team.chat(MODEL, "Still there?", 4).await?;
    ensure!(answer.status.is_success(), "after all that, a good request got {}: {}", answer.status, answer.body);
    Ok(())
}
