//! For gateways, with our components' bearer token: `GET /v1/gateway-snapshot?after=VERSION` (long poll) and
//! `POST /v1/wake/{namespace}/{model}`. A replica that does not lead answers 503.

use crate::gateway::Published;
use crate::names;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, watch};

/// What the routes are made of.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The token to show.
    pub token: Arc<str>,
    /// The snapshot in force.
    pub published: watch::Receiver<Published>,
    /// Where wakes go: `namespace/model`.
    pub wakes: mpsc::Sender<String>,
    /// How long a poll waits for something new.
    pub patience: Duration,
}

/// Query of a poll.
#[derive(Debug, Deserialize)]
struct Poll {
    after: Option<u64>,
}

/// The routes.
pub fn router(desk: Desk) -> Router {
    Router::new()
        .route("/v1/gateway-snapshot", get(snapshot))
        .route("/v1/wake/{namespace}/{model}", post(wake))
        .layer(from_fn_with_state(desk.clone(), authorized))
        .with_state(desk)
}

async fn authorized(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let shown =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let known = shown.is_some_and(|shown| bool::from(shown.ct_eq(desk.token.as_bytes())));
    if known {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "show the internal bearer token\n").into_response()
    }
}

/// The snapshot, at once when it is not the one that the gateway has; else the next, or 304 after a while.
async fn snapshot(State(mut desk): State<Desk>, Query(poll): Query<Poll>) -> Response {
    let newer = desk
        .published
        .wait_for(|published| published.as_ref().is_none_or(|snapshot| poll.after != Some(snapshot.version)));
    let answer = match tokio::time::timeout(desk.patience, newer).await {
        Ok(Ok(published)) => Some(published.clone()),
        Ok(Err(_)) => None,
        Err(_) => return StatusCode::NOT_MODIFIED.into_response(),
    };
    match answer.flatten() {
        Some(snapshot) => Json(&*snapshot).into_response(),
        None => not_leading("this replica does not lead, or has not decided yet\n"),
    }
}

async fn wake(State(desk): State<Desk>, Path((namespace, model)): Path<(String, String)>) -> Response {
    let key = names::key(&namespace, &model);
    let known = {
        let published = desk.published.borrow();
        published.as_ref().map(|snapshot| snapshot.models.contains_key(&key))
    };
    match known {
        None => not_leading("this replica does not lead\n"),
        Some(false) => (StatusCode::NOT_FOUND, format!("there is no ModelDeployment {key}\n")).into_response(),
        Some(true) => match desk.wakes.try_send(key) {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            Err(_) => (StatusCode::TOO_MANY_REQUESTS, "too many wakes wait for the next tick\n").into_response(),
        },
    }
}

/// Ends the connection as well: behind a Service, a connection that is kept would stay with this replica for ever.
fn not_leading(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")], why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Publisher;
    use axum::body::Body;
    use http_body_util::BodyExt;
    use quartermaster_core::units::{Millis, Tokens};
    use quartermaster_core::wire::gateway::{GatewaySnapshot, ModelRoute, TokenLimits};
    use tower::ServiceExt;

    struct World {
        publisher: Publisher,
        router: Router,
        wakes: mpsc::Receiver<String>,
    }

    impl World {
        fn new() -> Self {
            let publisher = Publisher::default();
            let (sender, wakes) = mpsc::channel(1);
            let desk = Desk {
                token: "secret".into(),
                published: publisher.subscribe(),
                wakes: sender,
                patience: Duration::from_millis(300),
            };
            Self { publisher, router: router(desk), wakes }
        }

        async fn ask(&self, method: &str, path: &str, token: &str) -> (u16, String) {
            let request =
                Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
            let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    fn of(model: &str) -> GatewaySnapshot {
        let route = ModelRoute {
            namespace: "demo".into(),
            name: model.into(),
            public_name: model.into(),
            limits: TokenLimits { max_prompt: None, max_completion: None, max_context: Tokens(64) },
            tokenizer: None,
            endpoints: vec![],
            wake_deadline: Millis(1),
            unavailable_because: None,
        };
        GatewaySnapshot { epoch: 1, models: [(format!("demo/{model}"), route)].into(), ..GatewaySnapshot::default() }
    }

    #[tokio::test]
    async fn a_snapshot_is_given_once_and_then_waited_for() {
        let world = World::new();
        assert_eq!(world.ask("GET", "/v1/gateway-snapshot", "secret").await.0, 503);
        world.publisher.publish(of("chat"), Millis(1_000));
        let (status, body) = world.ask("GET", "/v1/gateway-snapshot?after=0", "secret").await;
        assert_eq!((status, body.contains("\"version\":1000")), (200, true), "{body}");
        let next = world.ask("GET", "/v1/gateway-snapshot?after=1000", "secret");
        let change = async {
            tokio::task::yield_now().await;
            world.publisher.publish(of("other"), Millis(2_000));
        };
        let ((status, body), ()) = tokio::join!(next, change);
        assert_eq!((status, body.contains("\"version\":2000")), (200, true), "{body}");
        // A gateway that knows a version of another life gets ours at once.
        assert_eq!(world.ask("GET", "/v1/gateway-snapshot?after=99999", "secret").await.0, 200);
    }

    #[tokio::test]
    async fn nothing_new_is_a_304() {
        let world = World::new();
        world.publisher.publish(of("chat"), Millis(1_000));
        assert_eq!(world.ask("GET", "/v1/gateway-snapshot?after=1000", "secret").await.0, 304);
    }

    #[tokio::test]
    async fn without_the_token_there_is_nothing() {
        let world = World::new();
        world.publisher.publish(of("chat"), Millis(1_000));
        for token in ["", "secre", "secret2"] {
            assert_eq!(world.ask("GET", "/v1/gateway-snapshot", token).await.0, 401, "{token}");
            assert_eq!(world.ask("POST", "/v1/wake/demo/chat", token).await.0, 401, "{token}");
        }
    }

    #[test]
    fn who_does_not_lead_keeps_no_connection() {
        let response = not_leading("no");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::CONNECTION], "close");
    }

    #[tokio::test]
    async fn a_wake_reaches_the_next_tick() {
        let mut world = World::new();
        assert_eq!(world.ask("POST", "/v1/wake/demo/chat", "secret").await.0, 503);
        world.publisher.publish(of("chat"), Millis(1_000));
        assert_eq!(world.ask("POST", "/v1/wake/demo/none", "secret").await.0, 404);
        assert_eq!(world.ask("POST", "/v1/wake/demo/chat", "secret").await.0, 202);
        assert_eq!(world.ask("POST", "/v1/wake/demo/chat", "secret").await.0, 429, "the queue is bounded");
        assert_eq!(world.wakes.recv().await.as_deref(), Some("demo/chat"));
    }
}
