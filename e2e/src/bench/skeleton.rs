//! The figures that need the cluster.

use super::float;
use super::process::Program;
use crate::load::{repeat, saturate};
use crate::narrator::Narrator;
use crate::openai::OpenAi;
use crate::stage::Stage;
use crate::story::{self, MODEL, NAMESPACE, TEAM_KEY};
use crate::trace::Arrival;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::time::Instant;

const GATEWAY: &str = "quartermaster-gateway";
const OPERATOR: &str = "quartermaster-operator";

/// The least that a request can be, so that little but the gateway's own work is in it.
const SHORT: Arrival = Arrival { at: Duration::ZERO, prompt_tokens: 4, output_tokens: 1 };
const SHORT_STREAMS: usize = 4;
/// Of each stream: enough that a tick of the process's clock is some 30 µs of a request.
const SHORT_ROUNDS: usize = 80;
const WARM_ROUNDS: usize = 2;

/// Short answers, so that what the last clients leave idle at the end is little.
const DECODE: Arrival = Arrival { at: Duration::ZERO, prompt_tokens: 24, output_tokens: 12 };
const DECODE_STREAMS: usize = 8;
const DECODE_LENGTH: Duration = Duration::from_secs(25);

const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// From a replica's readiness to the gateway that knows of it.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Sets up the stage on the fresh cluster `name` and tells the whole story; returns how many seconds that took.
pub async fn demo(name: &str, narrator: &Narrator) -> Result<(Stage, f64)> {
    let start = Instant::now();
    let stage = Stage::set_up(name, narrator).await?;
    stage.apply_examples(narrator).await?;
    story::tell(&stage, narrator).await?;
    Ok((stage, start.elapsed().as_secs_f64()))
}

/// Resident memory of the operator in MB; of its largest replica, if there are several.
pub fn operator_memory(stage: &Stage) -> Result<f64> {
    let sizes = Program::all(stage.cluster(), OPERATOR)?.into_iter().map(Program::resident_kib);
    let largest = sizes.collect::<Result<Vec<_>>>()?.into_iter().max().context("no operator")?;
    Ok(float(largest)? * 1024.0 / 1e6)
}

/// CPU time of all of the gateway in µs, per short request; its idle work during the run is in it.
pub async fn gateway_cpu(stage: &Stage, narrator: &Narrator) -> Result<f64> {
    narrator.chapter("The gateway's CPU time per request");
    replicas(stage, narrator, 2).await?;
    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    repeat(&team, MODEL, SHORT_STREAMS, WARM_ROUNDS, SHORT).await.ensure_lossless()?;
    let gateways = Program::all(stage.cluster(), GATEWAY)?;
    let before = cpu(&gateways)?;
    let outcome = repeat(&team, MODEL, SHORT_STREAMS, SHORT_ROUNDS, SHORT).await;
    let spent = cpu(&gateways)?.checked_sub(before).context("CPU time ran backwards")?;
    outcome.ensure_lossless()?;
    ensure!(Program::all(stage.cluster(), GATEWAY)? == gateways, "a gateway was replaced meanwhile");
    ensure!(!spent.is_zero(), "the gateway's CPU time did not move: too few requests");
    narrator.say(format_args!(
        "{} requests in {:.1} s, {} ms of CPU",
        outcome.answered,
        outcome.took.as_secs_f64(),
        spent.as_millis()
    ));
    Ok(spent.as_secs_f64() * 1e6 / float(u64::try_from(outcome.answered)?)?)
}

/// Tokens a second of two replicas over those of one.
pub async fn two_replicas(stage: &Stage, narrator: &Narrator) -> Result<f64> {
    narrator.chapter("Two replicas against one");
    let two = speed(stage, narrator, 2).await?;
    let one = speed(stage, narrator, 1).await?;
    ensure!(one > 0.0, "one replica generated nothing");
    Ok(two / one)
}

async fn speed(stage: &Stage, narrator: &Narrator, count: i32) -> Result<f64> {
    replicas(stage, narrator, count).await?;
    let team = OpenAi::new(stage.gateway(), TEAM_KEY)?;
    let outcome = saturate(&team, MODEL, DECODE_STREAMS, DECODE_LENGTH, DECODE).await;
    outcome.ensure_lossless()?;
    let speed = outcome.tokens_per_second();
    narrator.say(format_args!(
        "{count} replicas: {} requests in {:.1} s, {speed:.1} tokens/s",
        outcome.answered,
        outcome.took.as_secs_f64()
    ));
    Ok(speed)
}

/// Brings the demo's objects back as they were written, pins the replicas, and waits until there are just so many.
async fn replicas(stage: &Stage, narrator: &Narrator, count: i32) -> Result<()> {
    stage.apply_examples(narrator).await?;
    let pin = format!("--replicas={count}");
    stage.show(narrator, &["scale", &format!("modeldeployment/{MODEL}"), "-n", NAMESPACE, &pin]).await?;
    let settled = async || {
        let model = stage.model().await?;
        let pools = &model.status().replicas_by_pool;
        let exact =
            pools.iter().filter(|pool| pool.replicas > 0).all(|pool| pool.ready == count && pool.replicas == count);
        Ok(exact && model.only_serves("q8-0", "cpu-standard"))
    };
    let waited = stage.until(SETTLED_WITHIN, &format!("{count} replicas of q8-0 are ready"), settled).await?;
    narrator.say(format_args!("settled after {} s", waited.as_secs()));
    tokio::time::sleep(KNOWN_WITHIN).await;
    Ok(())
}

fn cpu(programs: &[Program]) -> Result<Duration> {
    programs.iter().map(|program| program.cpu()).sum()
}
