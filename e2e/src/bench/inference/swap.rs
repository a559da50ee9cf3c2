//! `engine.swap_failed`, `engine.swap_stall_ms`: Q4_1 to Q8_0 in a running pod, under load.

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

use super::Measured;
use super::host::{Pod, Server};
use super::setting::{Bench, Precision};
use super::streams::{Load, Running};

const STREAMS: u32 = 8;
const TOKEN: &str = "bench-admin-token";
const PATH: &str = "/admin/variant";
const SWAPPED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Load goes on for so long after the swap: its first answers count, too.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Both figures. A failed request is counted, any other failure is an error.
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    bench.narrator.chapter("Hot swap from Q4_1 to Q8_0 under eight streams");
    let (load, variants) = (Load::fixed("swap", STREAMS), bench.variants(&[Precision::Q4, Precision::Q8]));
    let pod = Pod { admin_token: Some(TOKEN), ..bench.pod(&variants, load.room()) };
    let server = Server::pod(&pod).await?;
    let running = Running::start(server.base(), &load).await?;
    let swap = running.during(swap(&server, Precision::Q8.name())).await?;
    server.stop().await?;
    bench.narrator.say(format_args!(
        "swapped in {:.1} s, longest gap {:.0} ms, {} failed",
        swap.result.as_secs_f64(),
        swap.longest_ms,
        swap.failed
    ));
    Ok(vec![("engine.swap_failed".into(), f64::from(swap.failed)), ("engine.swap_stall_ms".into(), swap.longest_ms)])
}

/// Asks for the variant, and waits until it is what the pod says it serves; how long that took.
async fn swap(server: &Server, variant: &str) -> Result<Duration> {
    let begin = Instant::now();
    let url = format!("{}{PATH}", server.base());
    let request = reqwest::Client::new().post(&url).bearer_auth(TOKEN).header("content-type", "application/json");
    let answer = request.body(json!({"variant": variant}).to_string()).send().await.context("no answer to the swap")?;
    let status = answer.status();
    if status == StatusCode::NOT_FOUND {
        bail!("the inference server has no POST {PATH}: it answers 404, so no swap can be measured");
    }
    ensure!(status.is_success(), "POST {PATH}: status {status}: {}", answer.text().await.unwrap_or_default());
    while !serves(&server.metrics().await?, variant) {
        ensure!(begin.elapsed() < SWAPPED_WITHIN, "not swapped within {} s", SWAPPED_WITHIN.as_secs());
        tokio::time::sleep(POLL).await;
    }
    let took = begin.elapsed();
    tokio::time::sleep(AFTERWARDS).await;
    Ok(took)
}

fn serves(metrics: &str, variant: &str) -> bool {
    let mut infos = metrics.lines().filter(|line| line.starts_with("quartermaster_engine_info{"));
    infos.any(|line| line.contains(&format!("variant=\"{variant}\"")) && line.ends_with(" 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_served_variant_is_read_from_the_metrics() {
        let metrics = "quartermaster_engine_info{model_name=\"m\",variant=\"q4_1\",hardware_class=\"c\"} 0\n\
             quartermaster_engine_info{model_name=\"m\",variant=\"q8_0\",hardware_class=\"c\"} 1\n";
        assert!(serves(metrics, "q8_0") && !serves(metrics, "q4_1"));
    }
}
