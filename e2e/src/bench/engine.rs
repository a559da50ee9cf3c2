//! The engine alone: the inference server as a process of the host, with all its cores.

use super::float;
use crate::load::saturate;
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::trace::Arrival;
use anyhow::{Context, Result, bail, ensure};
use quartermaster_core::wire::serve::{ServeConfig, VariantFile};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const MODEL: &str = "bench";
const SLOTS: u32 = 8;
const STREAMS: usize = 8;
const CONTEXT_TOKENS: u32 = 512;
/// All streams are busy while it is counted: the clients begin before and end after.
const WARM: Duration = Duration::from_secs(3);
const COUNTED: Duration = Duration::from_secs(20);
/// The server counts each token as it is drawn.
const COUNTER: &str = "vllm:generation_tokens_total{";
/// Long answers to short prompts: it is decoding that is measured.
const SHAPE: Arrival = Arrival { at: Duration::ZERO, prompt_tokens: 8, output_tokens: 96 };
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// Tokens a second that `server` generates from the Q8_0 file `model` for eight clients at once.
pub async fn tokens_per_second(server: &Path, model: &Path, narrator: &Narrator) -> Result<f64> {
    narrator.chapter("The engine alone: Q8_0, eight streams, all cores");
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let config = folder.path().join("serve.json");
    fs::write(&config, serde_json::to_vec(&serve(model)?)?).context("could not write serve.json")?;
    let log = folder.path().join("log");
    let base = format!("127.0.0.1:{}", free_port()?);
    let mut child = Command::new(server)
        .args(["serve", "--listen", &base, "--config"])
        .arg(&config)
        .arg("--termination-log")
        .arg(folder.path().join("termination"))
        .stdout(File::create(folder.path().join("out"))?)
        .stderr(File::create(&log)?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start {}", server.display()))?;
    let base = format!("http://{base}");
    let ready = ready(&mut child, &base).await;
    ready.with_context(|| format!("{} does not serve: {}", server.display(), tail(&log)))?;
    let load = tokio::spawn({
        let client = OpenAi::new(&base, "")?;
        async move { saturate(&client, MODEL, STREAMS, WARM + COUNTED, SHAPE).await }
    });
    let (tokens, took) = count(&base).await?;
    let outcome = load.await.context("the load broke off")?;
    child.kill().await.context("could not end the inference server")?;
    outcome.ensure_lossless()?;
    ensure!(tokens > 0, "not a token was generated");
    let speed = float(tokens)? / took.as_secs_f64();
    narrator.say(format_args!("{tokens} tokens generated in {:.1} s: {speed:.1} tokens/s", took.as_secs_f64()));
    Ok(speed)
}

/// Tokens that the server draws in a while, and that while.
async fn count(base: &str) -> Result<(u64, Duration)> {
    tokio::time::sleep(WARM).await;
    let (start, before) = (Instant::now(), generated(base).await?);
    tokio::time::sleep(COUNTED).await;
    let (took, after) = (start.elapsed(), generated(base).await?);
    Ok((after.checked_sub(before).context("the server counted backwards")?, took))
}

async fn generated(base: &str) -> Result<u64> {
    let metrics = reqwest::get(format!("{base}/metrics")).await?.error_for_status()?.text().await?;
    counter(&metrics).with_context(|| format!("/metrics has no {COUNTER}…"))
}

fn counter(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| line.starts_with(COUNTER))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn serve(model: &Path) -> Result<ServeConfig> {
    let path = fs::canonicalize(model).with_context(|| format!("no model file {}", model.display()))?;
    let cores = std::thread::available_parallelism().context("could not count the cores")?;
    let file = VariantFile { name: "q8-0".into(), path: path.display().to_string(), precision: "Q8_0".into() };
    Ok(ServeConfig {
        model: MODEL.into(),
        namespace: MODEL.into(),
        variant: file.name.clone(),
        variants: vec![file],
        context_tokens: CONTEXT_TOKENS,
        slots: SLOTS,
        memory_limit_bytes: None,
        hardware_class: "host".into(),
        devices: 1,
        threads: Some(u32::try_from(cores.get())?),
    })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

async fn ready(child: &mut Child, base: &str) -> Result<()> {
    let start = Instant::now();
    let url = format!("{base}/readyz");
    while start.elapsed() < READY_WITHIN {
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("not ready within {} s", READY_WITHIN.as_secs())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found() {
        let metrics = "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{model_name=\"m\"} 42\n";
        assert_eq!(counter(metrics), Some(42));
        assert_eq!(counter("vllm:generation_tokens_total 1"), None);
    }
}
