//! Conditions: types and reasons as enums, and the one way to set one.
//!
//! `Ready`, `Reconciling` and `Stalled` are read by kstatus (and so by `kubectl wait`, Flux, Argo CD): the last two are
//! abnormal when true.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::limits;

/// Declares an enum whose variants are written as they stand.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}

words! {
    /// The type of a condition.
    ConditionType {
        /// The object does what its spec asks.
        Ready,
        /// The operator is on its way to the spec.
        Reconciling,
        /// The operator cannot get on without a change by a person.
        Stalled,
        /// Telemetry is fresh enough to decide by.
        SignalsHealthy,
        /// Tokens or money are left in every window.
        WithinBudget,
        /// A cost ceiling holds the plan back.
        AtCeiling,
        /// The served quality is below the best declared.
        Degraded,
        /// Devices are missing for the plan.
        CapacityBlocked,
        /// Replicas finish their requests before they stop.
        Draining,
    }
}

words! {
    /// The status of a condition.
    Status {
        /// It holds.
        True,
        /// It does not hold.
        False,
        /// Not known.
        Unknown,
    }
}

words! {
    /// Why a condition has its status; machine-readable. Plans bring reasons of their own, hence [`set`] takes any word.
    Reason {
        /// Nothing is wrong; the condition is at its normal value.
        AsExpected,
        /// Replicas serve.
        Serving,
        /// At zero on purpose; the next request wakes it.
        ScaledToZero,
        /// Replicas start.
        Starting,
        /// The object is in force.
        InForce,
        /// On the way from the old plan to the new.
        Progressing,
        /// From one variant or pool to another, old before new.
        Switching,
        /// The number of replicas changes.
        Scaling,
        /// Pinned through the scale subresource.
        ReplicasPinned,
        /// A field is set which this version does not obey.
        NotImplemented,
        /// The spec says something that cannot be done.
        InvalidSpec,
        /// No candidate can be served.
        NoCandidate,
        /// Clients who ask for `spec.model` get another ModelDeployment of the namespace.
        DuplicateModel,
        /// A HardwareClass of that name does not exist.
        UnknownHardwareClass,
        /// Scope Cluster outside of the operator's own namespace.
        ScopeNotAllowed,
        /// The model's source cannot be fetched.
        SourceUnavailable,
        /// The model's file is no model.
        ModelCorrupt,
        /// The model does not fit the devices.
        ModelTooLarge,
        /// The engine ends again and again.
        EngineFailing,
        /// A Secret with a key is missing.
        SecretNotFound,
        /// The same key belongs to two budgets.
        SubjectConflict,
        /// The parent budget does not exist.
        ParentNotFound,
        /// The parents form a circle.
        ParentCycle,
        /// Signals arrive in time.
        SignalsFresh,
        /// A signal never came.
        SignalsMissing,
        /// A signal is too old.
        SignalsStale,
        /// Every window has something left.
        BudgetLeft,
        /// A window is spent; requests are refused until it resets.
        BudgetExhausted,
        /// Projected spend is below every ceiling.
        BelowCeiling,
        /// One more replica would cross a ceiling.
        CeilingReached,
        /// What runs already costs more than the ceiling allows.
        CommittedAboveCeiling,
        /// The period's amount is settled in full.
        PeriodSpent,
        /// The best declared quality is served.
        BestQuality,
        /// A lesser variant is served to stay below a ceiling.
        QualityLowered,
        /// Devices suffice.
        CapacityAvailable,
        /// The class's `maxDevices` are in use.
        MaxDevicesReached,
        /// Pods find no node.
        Unschedulable,
        /// Requests in flight are finished before the stop.
        RequestsInFlight,
        /// No node offers devices of the class.
        NoDevices,
    }
}

/// What [`set`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Which condition.
    pub kind: ConditionType,
    /// Its status.
    pub status: Status,
    /// One CamelCase word; see [`Reason`].
    pub reason: &'a str,
    /// A sentence for a person.
    pub message: &'a str,
    /// The `metadata.generation` that was looked at.
    pub generation: Option<i64>,
}

/// Writes one condition and says whether anything but the generation changed. `lastTransitionTime` moves only when the
/// status does; a message is cut to [`limits::MESSAGE`].
pub fn set(conditions: &mut Vec<Condition>, new: Observation<'_>, now: Time) -> bool {
    let message = cut(new.message, usize::try_from(limits::MESSAGE).unwrap_or(usize::MAX));
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.kind.as_str()) else {
        conditions.push(Condition {
            type_: new.kind.as_str().to_owned(),
            status: new.status.as_str().to_owned(),
            reason: new.reason.to_owned(),
            message: message.to_owned(),
            observed_generation: new.generation,
            last_transition_time: now,
        });
        return true;
    };
    let moved = old.status != new.status.as_str();
    let changed = moved || old.reason != new.reason || old.message != message;
    if moved {
        new.status.as_str().clone_into(&mut old.status);
        old.last_transition_time = now;
    }
    new.reason.clone_into(&mut old.reason);
    message.clone_into(&mut old.message);
    old.observed_generation = new.generation;
    changed
}

/// The condition of that type.
#[must_use]
pub fn get(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// At most `max` bytes of `text`, never half a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// The schema of a list of conditions: a map by type, bounded.
#[must_use]
pub fn list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": limits::CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "Type of the condition, in CamelCase." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown." },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": limits::MESSAGE,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "One CamelCase word for machines.",
                },
                "message": { "type": "string", "maxLength": limits::MESSAGE, "description": "A sentence for people." },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation that the condition speaks of.",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status last changed.",
                },
            },
        },
    })
}

/// The schema of a point in time.
#[must_use]
pub fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(status: Status, message: &str, generation: i64) -> Observation<'_> {
        let reason = Reason::Serving.as_str();
        Observation { kind: ConditionType::Ready, status, reason, message, generation: Some(generation) }
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let mut conditions = vec![];
        assert!(set(&mut conditions, ready(Status::True, "2 of 2", 1), at(1)));
        assert!(!set(&mut conditions, ready(Status::True, "2 of 2", 2), at(2)), "only the generation changed");
        assert_eq!(conditions[0].observed_generation, Some(2));
        assert!(set(&mut conditions, ready(Status::True, "3 of 3", 2), at(3)));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert!(set(&mut conditions, ready(Status::False, "0 of 3", 2), at(4)));
        assert_eq!(conditions[0].last_transition_time, at(4));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut conditions = vec![];
        let long = format!("x{}", "é".repeat(1024));
        set(&mut conditions, ready(Status::True, &long, 1), at(1));
        let message = &conditions[0].message;
        assert!(message.len() <= 1024 && message.len() > 1020 && long.starts_with(message.as_str()));
        assert!(!set(&mut conditions, ready(Status::True, &long, 1), at(2)), "the cut message is the same message");
    }

    #[test]
    fn every_word_is_camel_case() {
        for word in Reason::ALL.iter().map(|r| r.as_str()).chain(ConditionType::ALL.iter().map(|t| t.as_str())) {
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
        assert!(get(&[], ConditionType::Ready).is_none());
    }
}
