//! `/livez`, `/readyz`, `/metrics`, `/debug/snapshot`, `/debug/plan`.

use crate::leader::Claim;
use crate::metrics::Metrics;
use crate::state::informers::Shared;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use quartermaster_core::plan::Plan;
use quartermaster_core::snapshot::Snapshot;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A leader that has not ticked for so many ticks is not alive.
const TICKS_LATE: u32 = 24;

/// The last decision, for people.
#[derive(Clone, Debug, Default)]
pub struct Debug(Arc<Mutex<Option<Decided>>>);

#[derive(Clone, Debug)]
struct Decided {
    snapshot: Arc<Snapshot>,
    plan: Arc<Plan>,
    at: Instant,
}

impl Debug {
    /// A tick decided.
    pub fn decided(&self, snapshot: Snapshot, plan: Plan) {
        let decided = Decided { snapshot: Arc::new(snapshot), plan: Arc::new(plan), at: Instant::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(decided);
    }

    fn last(&self) -> Option<Decided> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the pages are made of.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Whether we lead.
    pub claim: Claim,
    /// Whether we are synced.
    pub shared: Shared,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// The last decision.
    pub debug: Debug,
    /// Time between two ticks.
    pub tick: Duration,
}

/// The routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/debug/snapshot", get(snapshot))
        .route("/debug/plan", get(plan))
        .with_state(pages)
}

/// Alive, unless it leads and its loop stands still.
async fn livez(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    let late = pages.debug.last().is_some_and(|last| last.at.elapsed() > pages.tick * TICKS_LATE);
    if pages.claim.epoch().is_some() && late {
        return (StatusCode::SERVICE_UNAVAILABLE, "leading, but the last decision is long ago\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.shared.with(crate::state::Index::synced) {
        return (StatusCode::OK, "ok\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the watches are not complete yet\n")
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let (leads, (synced, invalid)) =
        (pages.claim.epoch().is_some(), pages.shared.with(|index| (index.synced(), index.invalid.len())));
    pages.metrics.state(leads, synced, invalid);
    match pages.metrics.page() {
        Ok(page) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], page).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn snapshot(State(pages): State<Pages>) -> Response {
    page(pages.debug.last().map(|last| last.snapshot))
}

async fn plan(State(pages): State<Pages>) -> Response {
    page(pages.debug.last().map(|last| last.plan))
}

fn page<T: Serialize>(value: Option<Arc<T>>) -> Response {
    match value {
        Some(value) => Json(&*value).into_response(),
        None => (StatusCode::NOT_FOUND, "nothing decided yet: this replica does not lead, or has just started\n")
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn get(pages: &Pages, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(pages.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn pages() -> Pages {
        Pages {
            claim: Claim::default(),
            shared: Shared::default(),
            metrics: Arc::default(),
            debug: Debug::default(),
            tick: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn ready_once_synced_and_alive_all_the_time() {
        let pages = pages();
        assert_eq!(get(&pages, "/livez").await.0, 200);
        assert_eq!(get(&pages, "/readyz").await.0, 503);
        for kind in crate::state::Kind::ALL {
            pages.shared.write(|index| {
                index.begin(kind);
                index.done(kind);
            });
        }
        assert_eq!(get(&pages, "/readyz").await.0, 200);
        let (status, page) = get(&pages, "/metrics").await;
        assert!(status == 200 && page.contains("quartermaster_operator_synced 1"), "{page}");
    }

    #[tokio::test]
    async fn the_last_decision_is_there_to_be_saved() {
        let pages = pages();
        assert_eq!(get(&pages, "/debug/plan").await.0, 404);
        pages.debug.decided(Snapshot::default(), Plan::default());
        let (_, saved) = get(&pages, "/debug/snapshot").await;
        let read: Snapshot = serde_json::from_str(&saved).unwrap();
        assert_eq!(read, Snapshot::default());
        assert_eq!(get(&pages, "/debug/plan").await, (200, r#"{"models":{},"ceilings":[]}"#.into()));
    }
}
