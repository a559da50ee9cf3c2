//! Cancelling one choice of an answer while its siblings go on: self-consistency stops what can't change the vote any
//! more.

use super::error::ApiError;
use super::state::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// Answers under way, by id. Each holds a place, so there are never more than places.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashMap<String, Vec<Weak<Notify>>>>);

/// An answer's entry; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    running: Arc<Running>,
    id: String,
}

impl Running {
    /// An answer begins. Who is told to stop hears it by `choices`; who is done drops its own.
    pub(super) fn enter(self: &Arc<Self>, id: &str, choices: &[Arc<Notify>]) -> Entry {
        let choices = choices.iter().map(Arc::downgrade).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), choices);
        Entry { running: Arc::clone(self), id: id.to_owned() }
    }

    /// Tells a choice to stop. Whether it was still going on; `None` where there is no such choice.
    fn cancel(&self, id: &str, index: usize) -> Option<bool> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let choice = answers.get(id)?.get(index)?.upgrade();
        if let Some(choice) = &choice {
            choice.notify_one();
        }
        Some(choice.is_some())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// `DELETE /v1/requests/{id}/choices/{index}`: that choice ends with the finish reason `cancelled`.
pub(super) async fn choice(
    State(app): State<Arc<App>>,
    Path((id, index)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let index: usize = index.parse().map_err(|_| ApiError::field("index", "must be the number of a choice"))?;
    let gone = || {
        let message = format!("there is no choice {index} of an answer {id:?} under way");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_choice", message)
    };
    let cancelled = app.running.cancel(&id, index).ok_or_else(gone)?;
    Ok(Json(json!({"id": id, "index": index, "cancelled": cancelled})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_can_be_cancelled_and_nothing_is_left() {
        let running = Arc::new(Running::default());
        let choices = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let entry = running.enter("a", &choices);
        let [first, second] = choices;
        drop(second);
        assert_eq!([0, 1, 2].map(|index| running.cancel("a", index)), [Some(true), Some(false), None]);
        assert_eq!(running.cancel("b", 0), None);
        drop((entry, first));
        assert!(running.0.lock().unwrap().is_empty());
    }
}
