//! Events: the same reason and sentence as in the status.

use crate::limits::EVENT_NOTE_BYTES_MAX;
use crate::names;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Something to tell about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A person should look.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// What was done, or looked at.
    pub action: &'static str,
}

/// Tells.
#[derive(Clone)]
pub struct Announcer(Recorder);

impl Announcer {
    /// For this replica.
    #[must_use]
    pub fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter { controller: names::FIELD_MANAGER.to_owned(), instance: Some(identity) };
        Self(Recorder::new(client, reporter))
    }

    /// Tells about `object`. A lost Event is logged and no more.
    pub async fn announce(&self, object: &ObjectReference, note: &Note) {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.clone(),
            note: Some(cut(&note.message).to_owned()),
            action: note.action.to_owned(),
            secondary: None,
        };
        let call = tokio::time::timeout(crate::limits::API_TIMEOUT, self.0.publish(&event, object));
        match call.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %crate::error::chain(&error), "an Event was lost"),
            Err(_) => tracing::warn!("an Event was lost: no answer in time"),
        }
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(EVENT_NOTE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        let long = "é".repeat(EVENT_NOTE_BYTES_MAX);
        assert!(cut(&long).len() <= EVENT_NOTE_BYTES_MAX && long.starts_with(cut(&long)));
        assert_eq!(cut("short"), "short");
    }
}
