//! Pods that live say what they serve, and are told to serve another variant: `GET` and `POST /admin/variant`. A swap takes
//! as long as a model takes to load, so it goes on beside the ticks; its end rings for the next one.

use crate::limits;
use crate::state::informers::Shared;
use crate::state::{Known, Refusal};
use crate::telemetry::scrape::body;
use quartermaster_core::snapshot::Placement;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Longest answer of a pod.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is asked of whom.
pub(super) struct Call<'a> {
    pub(super) model: &'a str,
    /// Of the spec that the plan was made of.
    pub(super) generation: i64,
    pub(super) uid: &'a str,
    pub(super) pod: &'a str,
    /// `ip:port`.
    pub(super) address: &'a str,
    pub(super) token: String,
    /// What it shall serve; none only asks.
    pub(super) placement: Option<&'a Placement>,
}

/// Why a pod's word could not be had.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer")]
    Http(#[source] reqwest::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("status {0}: {1}")]
    Status(StatusCode, String),
    #[error("the answer can't be read: {0}")]
    Answer(String),
}

#[derive(Deserialize)]
struct Serving {
    variant: Option<String>,
    /// It is about to be another one, by an order that somebody gave before.
    #[serde(default)]
    swapping: bool,
}

#[derive(Deserialize)]
struct Refused {
    error: Words,
}

#[derive(Deserialize)]
struct Words {
    message: String,
}

/// Talks to pods, to so many at a time.
#[derive(Clone, Debug)]
pub struct Teller {
    http: reqwest::Client,
    shared: Shared,
    refusals: mpsc::Sender<Refusal>,
    asking: Arc<Semaphore>,
    swapping: Arc<Semaphore>,
}

impl Teller {
    /// With the refusals that it hears.
    #[must_use]
    pub fn new(http: reqwest::Client, shared: Shared) -> (Self, mpsc::Receiver<Refusal>) {
        let (refusals, heard) = mpsc::channel(limits::TOLD_AT_ONCE);
        let [asking, swapping] =
            [limits::ASKED_AT_ONCE, limits::TOLD_AT_ONCE].map(|most| Arc::new(Semaphore::new(most)));
        (Self { http, shared, refusals, asking, swapping }, heard)
    }

    /// Begins the call, and what the pod says is in the index when it ends. False where too many are under way: the next
    /// tick comes back to it.
    pub(super) fn tell(&self, call: &Call<'_>) -> bool {
        let free = if call.placement.is_some() { &self.swapping } else { &self.asking };
        let Ok(permit) = Arc::clone(free).try_acquire_owned() else { return false };
        self.shared.write(|index| index.told(call.uid, Known::Asked, None));
        let (teller, model, uid, pod) = (self.clone(), call.model.to_owned(), call.uid.to_owned(), call.pod.to_owned());
        let generation = call.generation;
        let (address, token, placement) = (call.address.to_owned(), call.token.clone(), call.placement.cloned());
        tokio::spawn(async move {
            let url = format!("http://{address}/admin/variant");
            let said = match &placement {
                None => teller.ask(&url, &token).await,
                Some(placement) => teller.order(&url, &token, (&model, &pod), (placement, generation)).await,
            };
            let (known, variant) = match &said {
                Ok(Some(variant)) => (Known::Said, Some(variant.as_str())),
                // Between two variants: it is asked again.
                Ok(None) => (Known::Assumed, None),
                Err(error) => {
                    tracing::warn!(model, pod, error = %crate::error::chain(error), "what a replica serves is not known");
                    (Known::Assumed, None)
                }
            };
            if teller.shared.write(|index| index.told(&uid, known, variant)) {
                teller.shared.endpoints.notify_one();
            }
            drop(permit);
            // The next one of its group may be told. Whoever was only asked waits for the next tick.
            if placement.is_some() && said.is_ok() {
                teller.shared.replicas.notify_one();
            }
        });
        true
    }

    async fn ask(&self, url: &str, token: &str) -> Result<Option<String>, Error> {
        let (status, text) = self.call(Method::GET, url, token, None, limits::SCRAPE_TIMEOUT).await?;
        serving(status, &text)
    }

    async fn order(
        &self,
        url: &str,
        token: &str,
        (model, pod): (&str, &str),
        (placement, generation): (&Placement, i64),
    ) -> Result<Option<String>, Error> {
        let variant = &placement.variant;
        tracing::info!(model, pod, variant, "a replica is told to serve it");
        let order = serde_json::json!({"variant": variant}).to_string();
        let (status, text) = self.call(Method::POST, url, token, Some(order), limits::SWAP_TIMEOUT).await?;
        // It tried, and serves on what it served; what that is it may say itself.
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let message = words(&text);
            tracing::warn!(model, pod, variant, message, "a replica can't serve it");
            let refusal = Refusal { model: model.to_owned(), placement: placement.clone(), generation, message };
            // One that is not heard is refused again.
            drop(self.refusals.try_send(refusal));
            return self.ask(url, token).await;
        }
        serving(status, &text)
    }

    async fn call(
        &self,
        method: Method,
        url: &str,
        token: &str,
        order: Option<String>,
        patience: Duration,
    ) -> Result<(StatusCode, String), Error> {
        let call = async {
            let request = self.http.request(method, url).bearer_auth(token);
            let request = match order {
                Some(order) => request.header(reqwest::header::CONTENT_TYPE, "application/json").body(order),
                None => request,
            };
            let response = request.send().await.map_err(|error| Error::Http(error.without_url()))?;
            let status = response.status();
            let text = body(response, ANSWER_BYTES_MAX).await.map_err(|error| Error::Http(error.without_url()))?;
            let text = text.ok_or_else(|| Error::Answer(format!("more than {ANSWER_BYTES_MAX} bytes")))?;
            Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        tokio::time::timeout(patience, call).await.unwrap_or(Err(Error::Timeout(patience)))
    }
}

/// What the pod says that it serves; none while it serves nothing, or is about to serve another.
fn serving(status: StatusCode, text: &str) -> Result<Option<String>, Error> {
    if !status.is_success() {
        return Err(Error::Status(status, words(text)));
    }
    let serving: Serving = serde_json::from_str(text).map_err(|error| Error::Answer(error.to_string()))?;
    Ok(serving.variant.filter(|_| !serving.swapping))
}

fn words(text: &str) -> String {
    serde_json::from_str(text).map_or_else(|_| text.to_owned(), |refused: Refused| refused.error.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::{placement, ready_pod};
    use crate::state::{Kind, Object, PodView};
    use axum::http::HeaderMap;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    const TOKEN: &str = "t";
    /// Of a pod that is about to serve another variant.
    const BUSY: &str = "b";

    /// A pod that serves q8, can be told to serve q4, and nothing else.
    async fn pod() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ask = |headers: HeaderMap| async move {
            let shown = |token: &str| headers["authorization"] == format!("Bearer {token}");
            let (known, swapping) = (shown(TOKEN) || shown(BUSY), shown(BUSY));
            let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            (status, Json(json!({"variant": "q8", "swapping": swapping, "error": {"message": "wrong token"}})))
        };
        let order = |Json(order): Json<Value>| async move {
            match order["variant"].as_str() {
                Some("q4") => (StatusCode::OK, Json(json!({"variant": "q4", "seconds": 0.1}))),
                Some("q2") => {
                    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": {"message": "CorruptModel: x"}})))
                }
                _ => (StatusCode::CONFLICT, Json(json!({"error": {"message": "busy"}}))),
            }
        };
        let router = Router::new().route("/admin/variant", get(ask).post(order));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// What is known of a pod after it was told, and what it refused.
    async fn told(variant: Option<&str>, token: &str) -> (String, Known, Option<String>) {
        let shared = Shared::default();
        let listed = PodView { known: Known::Assumed, ..ready_pod("demo", "chat", "q1", "cpu", 1) };
        shared.write(|index| index.apply(Kind::Pod, "demo/p".into(), Object::Pod(listed.clone())));
        let (teller, mut refusals) = Teller::new(reqwest::Client::new(), shared.clone());
        let address = pod().await;
        let placement = variant.map(|variant| placement(variant, "cpu", 1));
        let (uid, pod, token) = (&listed.uid, &listed.name, token.to_owned());
        let call = Call {
            model: "demo/chat",
            generation: 3,
            uid,
            pod,
            address: &address,
            token,
            placement: placement.as_ref(),
        };
        assert!(teller.tell(&call));
        let look = |shared: &Shared| {
            shared.with(|index| {
                let pod = index.pods_of("demo", "chat").next().unwrap();
                (pod.placement.variant.clone(), pod.known)
            })
        };
        assert_eq!(look(&shared), ("q1".into(), Known::Asked));
        tokio::time::timeout(Duration::from_secs(10), async {
            while look(&shared).1 == Known::Asked {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let (serves, known) = look(&shared);
        (serves, known, refusals.try_recv().ok().map(|refusal| refusal.message))
    }

    #[tokio::test]
    async fn a_pod_that_is_asked_or_told_is_known_by_its_word() {
        assert_eq!(told(None, TOKEN).await, ("q8".into(), Known::Said, None));
        assert_eq!(told(Some("q4"), TOKEN).await, ("q4".into(), Known::Said, None));
    }

    #[tokio::test]
    async fn a_refusal_is_heard_and_the_old_variant_known() {
        assert_eq!(told(Some("q2"), TOKEN).await, ("q8".into(), Known::Said, Some("CorruptModel: x".into())));
    }

    #[tokio::test]
    async fn a_pod_that_is_busy_or_knows_us_not_is_asked_again_later() {
        assert_eq!(told(Some("q1"), TOKEN).await, ("q1".into(), Known::Assumed, None));
        assert_eq!(told(None, "wrong").await, ("q1".into(), Known::Assumed, None));
        assert_eq!(told(None, BUSY).await, ("q1".into(), Known::Assumed, None));
    }

    #[tokio::test]
    async fn so_many_are_told_at_a_time() {
        let (teller, _refusals) = Teller::new(reqwest::Client::new(), Shared::default());
        let (model, uid, pod, address) = ("m", "u", "p", "127.0.0.1:1");
        let call = || Call { model, generation: 1, uid, pod, address, token: String::new(), placement: None };
        let begun = (0..=limits::ASKED_AT_ONCE).filter(|_| teller.tell(&call())).count();
        assert_eq!(begun, limits::ASKED_AT_ONCE);
        let placement = placement("q4", "cpu", 1);
        assert!(
            teller.tell(&Call { placement: Some(&placement), ..call() }),
            "who is asked keeps nobody from being told"
        );
    }
}
