//! Holds a request while no replica serves its model, and wakes the model.

use crate::app::App;
use crate::catalogue::Model;
use crate::client;
use crate::ledger::millis;
use crate::limits;
use crate::metrics::Held;
use crate::respond::Refusal;
use quartermaster_core::units::Millis;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time that a client is told to stay away while a model starts.
const RETRY_AFTER_MAX: Millis = Millis::MINUTE;

/// When each model was last woken, so that a thousand requests make one call.
#[derive(Debug, Default)]
pub struct Wakes(Mutex<HashMap<String, Instant>>);

impl Wakes {
    /// Whether it is this caller's turn to wake the model.
    fn claim(&self, model: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.duration_since(*at) < limits::WAKE_REPEAT;
        if last.get(model).is_some_and(recent) {
            return false;
        }
        last.retain(|_, at| recent(at));
        last.insert(model.to_owned(), now);
        true
    }
}

/// Whether the model can take requests now: a replica that does not drain, and a tokenizer to count with.
fn serves(model: &Model) -> bool {
    model.route.endpoints.iter().any(|endpoint| !endpoint.draining) && model.route.tokenizer.is_some()
}

/// The model as the newest snapshot has it, once it serves. Waits for that at most the model's wake deadline.
pub async fn served(app: &App, model: Arc<Model>) -> Result<Arc<Model>, Refusal> {
    if serves(&model) {
        return Ok(model);
    }
    let waiting = Held::new(&model.metrics.waiting, 1);
    if usize::try_from(model.metrics.waiting.get()).unwrap_or(usize::MAX) > limits::HELD_PER_MODEL_MAX {
        let message = format!("{} requests wait for {} already.", limits::HELD_PER_MODEL_MAX, model.route.name);
        return Err(Refusal::unavailable("too_many_waiting", message, retry_after(&model)));
    }
    let served = wait(app, &model).await;
    drop(waiting);
    served
}

async fn wait(app: &App, asked: &Model) -> Result<Arc<Model>, Refusal> {
    let started = Instant::now();
    let mut changes = app.catalogue.changes();
    loop {
        changes.mark_unchanged();
        let model =
            app.catalogue.view().and_then(|view| view.model(&asked.route.namespace, &asked.route.name).cloned());
        let Some(model) = model else { return Err(Refusal::no_model(&asked.route.name)) };
        if serves(&model) {
            return Ok(model);
        }
        let left = duration(model.route.wake_deadline).saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(unavailable(&model));
        }
        if app.wakes.claim(&model.id, Instant::now()) {
            wake(app, &model).await;
        }
        let patience = left.min(limits::WAKE_REPEAT);
        // Changed, or time to look again: both start over.
        let _either = tokio::time::timeout(patience, changes.changed()).await;
    }
}

async fn wake(app: &App, model: &Model) {
    let url = format!("{}/v1/wake/{}/{}", app.operator_url, model.route.namespace, model.route.name);
    let called = async {
        let request = client::post(&url, Some(&app.token), &serde_json::json!({}))?;
        client::call(&app.http, request, limits::WAKE_TIMEOUT, limits::LEDGER_ANSWER_BYTES_MAX).await
    };
    match called.await {
        Ok(answer) if answer.status.is_success() => tracing::info!(model = model.id, "woke the model"),
        Ok(answer) => {
            tracing::warn!(model = model.id, status = %answer.status, "the operator refused to wake the model")
        }
        Err(error) => tracing::warn!(model = model.id, %error, "waking the model failed"),
    }
}

fn unavailable(model: &Model) -> Refusal {
    let waited = duration(model.route.wake_deadline).as_secs();
    let because = model.route.unavailable_because.as_deref().unwrap_or("no replica serves it yet");
    let message = format!("The model {} does not serve after {waited} s: {because}", model.route.name);
    Refusal::unavailable("model_unavailable", message, retry_after(model))
}

fn retry_after(model: &Model) -> Millis {
    model.route.wake_deadline.clamp(millis(limits::WAKE_REPEAT), RETRY_AFTER_MAX)
}

fn duration(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_make_one_wake() {
        let (wakes, now) = (Wakes::default(), Instant::now());
        assert!(wakes.claim("a/x", now));
        assert!(!wakes.claim("a/x", now));
        assert!(wakes.claim("a/y", now));
        assert!(wakes.claim("a/x", now + limits::WAKE_REPEAT));
    }
}
