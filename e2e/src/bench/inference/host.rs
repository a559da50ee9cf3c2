//! The servers, ours and llama.cpp's, as processes of the host.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use quartermaster_core::wire::serve::{ServeConfig, VariantFile};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::grid::Tuning;
use crate::bench::process::Program;

/// The model's name in every request.
pub(crate) const MODEL: &str = "bench";
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 5;

/// How much is served at once, the same for both servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Requests side by side.
    pub(crate) slots: u32,
    /// Tokens of one request.
    pub(crate) context: u32,
}

/// A variant of the model that an inference pod knows.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) file: PathBuf,
}

/// Our server, with what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Pod<'a> {
    pub(crate) program: &'a Path,
    /// The first one is served.
    pub(crate) variants: &'a [Variant],
    pub(crate) room: Room,
    pub(crate) threads: u32,
    /// Folder in which it keeps what it measures at its first start.
    pub(crate) profiles: Option<&'a Path>,
    /// Token of the admin calls.
    pub(crate) admin_token: Option<&'a str>,
}

/// llama.cpp's server, with what it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    pub(super) program: &'a Path,
    pub(super) file: &'a Path,
    pub(super) room: Room,
    pub(super) threads: u32,
    pub(super) tuning: Tuning,
}

/// A server that is ready. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    base: String,
    ready_after: Duration,
    /// Holds its configuration and its log.
    _folder: TempDir,
}

impl Server {
    /// Starts an inference pod.
    pub(crate) async fn pod(pod: &Pod<'_>) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let config = folder.path().join("serve.json");
        fs::write(&config, serde_json::to_vec(&serve(pod)?)?).context("could not write serve.json")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(pod.program);
        command.args(["serve", "--listen", &address, "--config"]).arg(&config);
        command.arg("--termination-log").arg(folder.path().join("termination"));
        if let Some(profiles) = pod.profiles {
            command.arg("--profile-folder").arg(profiles);
        }
        if let Some(token) = pod.admin_token {
            command.env("QM_ADMIN_TOKEN_SHA256", hex::encode(Sha256::digest(token)));
        }
        Self::start(command, &address, "readyz", folder).await
    }

    /// Starts `llama-server`.
    pub(super) async fn peer(peer: &Peer<'_>) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let port = free_port()?;
        let Room { slots, context } = peer.room;
        let mut command = Command::new(peer.program);
        command.arg("--model").arg(peer.file).args(["--alias", MODEL, "--host", "127.0.0.1", "--no-ui"]);
        let cells = slots.checked_mul(context).context("too large a context")?;
        for (flag, value) in [
            ("--port", port.into()),
            ("--parallel", slots),
            ("--ctx-size", cells),
            ("--threads", peer.threads),
            ("--threads-batch", peer.threads),
            // Errors alone: a line for every request would cost it time.
            ("--log-verbosity", 1),
        ] {
            command.arg(flag).arg(value.to_string());
        }
        command.args(peer.tuning.arguments());
        Self::start(command, &format!("127.0.0.1:{port}"), "health", folder).await
    }

    async fn start(mut command: Command, address: &str, ready_path: &str, folder: TempDir) -> Result<Self> {
        let log = folder.path().join("log");
        let errors = File::create(&log)?;
        command.stdout(errors.try_clone()?).stderr(errors).kill_on_drop(true);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let client = reqwest::Client::new();
        let begin = Instant::now();
        let mut child = command.spawn().with_context(|| format!("could not start {program}"))?;
        let base = format!("http://{address}");
        let ready = ready(&mut child, &client, &format!("{base}/{ready_path}"), begin).await;
        ready.with_context(|| format!("{program} does not serve: {}", tail(&log)))?;
        Ok(Self { child, base, ready_after: begin.elapsed(), _folder: folder })
    }

    /// Where it serves.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// From its start to its readiness.
    pub(super) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its process.
    pub(in crate::bench) fn process(&self) -> Result<Program> {
        let pid = self.child.id().context("the server has ended")?;
        Ok(Program::of(i32::try_from(pid)?))
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.base);
        Ok(reqwest::get(&url).await?.error_for_status()?.text().await?)
    }

    /// The value of the first sample whose line begins so.
    pub(crate) async fn counter(&self, name: &str) -> Result<u64> {
        counter(&self.metrics().await?, name).with_context(|| format!("/metrics has no {name}…"))
    }

    /// Stops it where it is, until [`Server::resume`].
    pub(super) fn pause(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub(super) fn resume(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    /// Ends it at once.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("could not end the server")
    }
}

fn counter(metrics: &str, name: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn serve(pod: &Pod<'_>) -> Result<ServeConfig> {
    let variants = pod.variants.iter().map(variant_file).collect::<Result<Vec<_>>>()?;
    Ok(ServeConfig {
        model: MODEL.into(),
        namespace: MODEL.into(),
        variant: variants.first().context("no variant to serve")?.name.clone(),
        draft: None,
        variants,
        context_tokens: pod.room.context,
        slots: pod.room.slots,
        memory_limit_bytes: None,
        hardware_class: "host".into(),
        devices: 1,
        threads: Some(pod.threads),
    })
}

fn variant_file(variant: &Variant) -> Result<VariantFile> {
    let path = fs::canonicalize(&variant.file).with_context(|| format!("no model file {}", variant.file.display()))?;
    Ok(VariantFile {
        name: variant.name.into(),
        path: path.display().to_string(),
        precision: variant.name.to_uppercase(),
    })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

async fn ready(child: &mut Child, client: &reqwest::Client, url: &str, begin: Instant) -> Result<()> {
    while begin.elapsed() < READY_WITHIN {
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        if client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("not ready within {} s", READY_WITHIN.as_secs())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found() {
        let metrics = "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{model_name=\"m\"} 42\n";
        assert_eq!(counter(metrics, "vllm:generation_tokens_total{"), Some(42));
        assert_eq!(counter(metrics, "vllm:other"), None);
    }

    #[test]
    fn the_first_variant_is_served() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let variant = |name| Variant { name, file: file.path().to_owned() };
        let variants = [variant("q4_1"), variant("q8_0")];
        let room = Room { slots: 2, context: 256 };
        let pod =
            Pod { program: Path::new("x"), variants: &variants, room, threads: 2, profiles: None, admin_token: None };
        let config = serve(&pod).unwrap();
        assert_eq!((config.variant.as_str(), config.variants.len(), config.threads), ("q4_1", 2, Some(2)));
        assert!(serve(&Pod { variants: &[], ..pod }).is_err());
    }
}
