//! What the operator says about the objects: status and conditions, and the Events that go with a change.

pub mod budget;
pub mod class;
pub mod model;
mod needs_write;
pub mod policy;
mod write;

pub use needs_write::needs_write;
pub use write::{Draft, StatusWriter, Wrote};

use crate::actuate::Note;
use crate::clock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use quartermaster_core::units::Millis;
use quartermaster_crds::FieldPath;
use quartermaster_crds::condition::{ConditionType, Observation, Reason, Status, get, set};

/// Conditions while they are being set, beginning with the old ones so that transition times stay.
#[derive(Clone, Debug)]
pub struct Conditions {
    old: Vec<Condition>,
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Millis,
}

impl Conditions {
    /// Begins with what stands in the cluster.
    #[must_use]
    pub fn new(old: &[Condition], generation: Option<i64>, now: Millis) -> Self {
        Self { old: old.to_vec(), list: old.to_vec(), generation, now }
    }

    /// Sets one.
    pub fn set(&mut self, kind: ConditionType, status: Status, reason: Reason, message: &str) {
        let (reason, generation) = (reason.as_str(), self.generation);
        set(&mut self.list, Observation { kind, status, reason, message, generation }, clock::time(self.now));
    }

    /// Sets one that is abnormal when true: to the fault, or to normal when there is none.
    pub fn fault(&mut self, kind: ConditionType, fault: Option<(Reason, String)>, normal: Reason) {
        match fault {
            Some((reason, message)) => self.set(kind, Status::True, reason, &message),
            None => self.set(kind, Status::False, normal, ""),
        }
    }

    /// The list, and a note for each of `tell` whose status or reason changed to something that a person should know.
    #[must_use]
    pub fn finish(self, tell: &[ConditionType], action: &'static str) -> (Vec<Condition>, Vec<Note>) {
        let notes = tell.iter().filter_map(|kind| {
            let new = get(&self.list, *kind)?;
            let old = get(&self.old, *kind);
            let same = old.is_some_and(|old| old.status == new.status && old.reason == new.reason);
            let abnormal = (new.status == "True") == abnormal_when_true(*kind) && new.status != "Unknown";
            // What was never abnormal is no news when it is normal.
            let news = !same && (abnormal || old.is_some());
            news.then(|| Note {
                warning: abnormal,
                reason: new.reason.clone(),
                message: if new.message.is_empty() { format!("{kind} is {}", new.status) } else { new.message.clone() },
                action,
            })
        });
        let notes = notes.collect();
        (self.list, notes)
    }
}

fn abnormal_when_true(kind: ConditionType) -> bool {
    !matches!(kind, ConditionType::Ready | ConditionType::SignalsHealthy | ConditionType::WithinBudget)
}

/// The fault of fields that this version does not obey.
#[must_use]
pub fn not_implemented(fields: &[FieldPath]) -> Option<(Reason, String)> {
    if fields.is_empty() {
        return None;
    }
    let names: Vec<String> = fields.iter().map(ToString::to_string).collect();
    let message = format!("not implemented in this version, remove: {}", names.join(", "));
    Some((Reason::NotImplemented, message))
}

/// A count for the API.
pub(crate) fn whole(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_makes_an_event() {
        let mut first = Conditions::new(&[], Some(1), Millis(1_000));
        first.fault(ConditionType::Stalled, None, Reason::AsExpected);
        let (list, notes) = first.finish(&[ConditionType::Stalled], "Reconcile");
        assert!(notes.is_empty(), "never was abnormal");
        let mut second = Conditions::new(&list, Some(1), Millis(2_000));
        second.fault(ConditionType::Stalled, Some((Reason::NotImplemented, "spec.slo".into())), Reason::AsExpected);
        let (list, notes) = second.finish(&[ConditionType::Stalled], "Reconcile");
        assert_eq!((notes[0].warning, notes[0].reason.as_str()), (true, "NotImplemented"));
        let mut third = Conditions::new(&list, Some(1), Millis(3_000));
        third.fault(ConditionType::Stalled, Some((Reason::NotImplemented, "spec.slo".into())), Reason::AsExpected);
        let (list, notes) = third.finish(&[ConditionType::Stalled], "Reconcile");
        assert!(notes.is_empty(), "nothing changed");
        let mut fourth = Conditions::new(&list, Some(2), Millis(4_000));
        fourth.fault(ConditionType::Stalled, None, Reason::AsExpected);
        let (_, notes) = fourth.finish(&[ConditionType::Stalled], "Reconcile");
        assert_eq!((notes[0].warning, notes[0].message.as_str()), (false, "Stalled is False"));
    }
}
