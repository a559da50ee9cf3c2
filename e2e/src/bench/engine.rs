//! The engine alone: the inference server as a process of the host, with all its cores.

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
const LENGTH: Duration = Duration::from_secs(20);
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
    let outcome = saturate(&OpenAi::new(&base, "")?, MODEL, STREAMS, LENGTH, SHAPE).await;
    child.kill().await.context("could not end the inference server")?;
    outcome.ensure_lossless()?;
    ensure!(outcome.generated > 0, "not a token was generated");
    let speed = outcome.generated_per_second();
    narrator.say(format_args!(
        "{} tokens generated in {} answers within {:.1} s: {speed:.1} tokens/s",
        outcome.generated,
        outcome.answered,
        outcome.took.as_secs_f64()
    ));
    Ok(speed)
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
