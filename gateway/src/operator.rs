//! The way from the operator: a long poll that survives its absence, and the last snapshot on disk.

use crate::app::App;
use crate::client;
use crate::disk;
use crate::limits;
use anyhow::Context;
use bytes::Bytes;
use http::StatusCode;
use quartermaster_core::wire::gateway::GatewaySnapshot;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn path(app: &App) -> PathBuf {
    app.state_dir.join("snapshot.json")
}

/// Takes the snapshot of the last run into use, so that a restart serves while the operator is away.
pub fn restore(app: &App) {
    let restored = std::fs::read(path(app)).map_err(anyhow::Error::from).and_then(|bytes| {
        let snapshot: GatewaySnapshot = serde_json::from_slice(&bytes)?;
        Ok(app.catalogue.apply(snapshot)?)
    });
    match restored {
        Ok(_) => tracing::info!("serving from the snapshot of the last run until the operator answers"),
        Err(error) => tracing::info!(%error, "no snapshot of a former run"),
    }
}

/// Asks for ever.
pub async fn follow(app: Arc<App>) {
    let mut backoff = limits::POLL_BACKOFF;
    loop {
        match poll(&app).await {
            Ok(()) => {
                backoff = limits::POLL_BACKOFF;
                tokio::time::sleep(limits::POLL_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "polling the operator failed; serving on from the last snapshot"
                );
                tokio::time::sleep(jittered(backoff)).await;
                backoff = backoff.saturating_mul(2).min(limits::POLL_BACKOFF_MAX);
            }
        }
    }
}

/// Between half and the whole of it, so that replicas do not ask in step.
fn jittered(backoff: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0) % 512;
    backoff.saturating_mul(512 + random) / 1024
}

async fn poll(app: &Arc<App>) -> anyhow::Result<()> {
    let view = app.catalogue.view();
    let (epoch, version) = view.map_or((0, 0), |view| (view.snapshot.epoch, view.snapshot.version));
    let url = format!("{}/v1/gateway-snapshot?after={version}&epoch={epoch}", app.operator_url);
    let request = client::get(&url, Some(&app.token))?;
    let answer = client::call(&app.http, request, limits::POLL_TIMEOUT, limits::SNAPSHOT_BYTES_MAX).await?;
    match answer.status {
        StatusCode::OK => take(app, answer.body).await?,
        StatusCode::NOT_MODIFIED => {}
        status => {
            if status == StatusCode::UNAUTHORIZED {
                app.token.refresh();
            }
            anyhow::bail!("the operator answered {status}");
        }
    }
    app.catalogue.heard();
    Ok(())
}

async fn take(app: &Arc<App>, body: Bytes) -> anyhow::Result<()> {
    let snapshot: GatewaySnapshot = serde_json::from_slice(&body).context("reading the operator's snapshot")?;
    let (epoch, version) = (snapshot.epoch, snapshot.version);
    if !app.catalogue.apply(snapshot)? {
        return Ok(());
    }
    tracing::info!(epoch, version, "new snapshot");
    forget_replicas(app);
    let path = path(app);
    let kept = tokio::task::spawn_blocking(move || disk::replace(&path, &body)).await?;
    if let Err(error) = kept {
        // It is in use all the same; only a restart without the operator would miss it.
        tracing::error!(%error, "keeping the snapshot on disk failed");
    }
    Ok(())
}

fn forget_replicas(app: &App) {
    if let Some(view) = app.catalogue.view() {
        let endpoints = view.snapshot.models.values().flat_map(|model| &model.endpoints);
        let known: HashSet<&str> = endpoints.map(|endpoint| endpoint.address.as_str()).collect();
        app.pool.keep(|address| known.contains(address));
    }
}
