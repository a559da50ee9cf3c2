//! Whether a status is worth a write. Live figures are metrics; a status is written when what a person reads changes.

use quartermaster_core::units::Millis;
use serde_json::Value;

/// A figure that moved by more than this share has changed.
const TENTH: f64 = 0.1;
/// Fields that follow others and are not worth a write of their own.
const FOLLOWING: [&str; 6] = ["message", "held", "free", "headroom", "exhaustedAt", "burnRateTokensPerHour"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Small,
    Large,
}

/// Compares what stands in the cluster with what should. `written` is when we last wrote it, if we did; `every` is how
/// often a small change is worth a write.
#[must_use]
pub fn needs_write(old: &Value, new: &Value, written: Option<Millis>, every: Millis, now: Millis) -> bool {
    match compare("", old, new) {
        Change::None => false,
        Change::Large => true,
        Change::Small => written.is_none_or(|at| now.since(at) >= every),
    }
}

fn compare(field: &str, old: &Value, new: &Value) -> Change {
    if old == new {
        return Change::None;
    }
    if FOLLOWING.contains(&field) {
        return Change::Small;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let fields = before.keys().chain(after.keys());
            let of = |map: &serde_json::Map<String, Value>, field: &str| map.get(field).cloned().unwrap_or(Value::Null);
            fields.map(|field| compare(field, &of(before, field), &of(after, field))).max().unwrap_or(Change::None)
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).map(|(old, new)| compare(field, old, new)).max().unwrap_or(Change::None)
        }
        _ => match (figure(field, old), figure(field, new)) {
            (Some(before), Some(after)) if (after - before).abs() <= TENTH * before.abs().max(after.abs()) => {
                Change::Small
            }
            _ => Change::Large,
        },
    }
}

/// A figure that may move a little. Counts of replicas and keys, generations and times are exact.
fn figure(field: &str, value: &Value) -> Option<f64> {
    const FIGURES: [&str; 12] = [
        "settled",
        "projected",
        "limit",
        "perHour",
        "costPerHour",
        "p50",
        "p95",
        "samples",
        "amount",
        "quality",
        "tokensPerSecond",
        "readyAfterSeconds",
    ];
    if !FIGURES.contains(&field) {
        return None;
    }
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches('$').parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STATUS_EVERY;
    use serde_json::json;

    const NOW: Millis = Millis(10_000_000);

    fn writes(old: Value, new: Value, age: i64) -> bool {
        needs_write(&old, &new, Some(Millis(NOW.0 - age)), STATUS_EVERY, NOW)
    }

    #[test]
    fn the_same_is_never_written() {
        assert!(!writes(json!({"a": 1}), json!({"a": 1}), i64::MAX / 2));
    }

    #[test]
    fn a_condition_or_plan_is_written_at_once() {
        let of = |status: &str, replicas: i32| json!({"conditions": [{"type": "Ready", "status": status}], "plan": {"replicas": replicas}});
        assert!(writes(of("True", 1), of("False", 1), 0));
        assert!(writes(of("True", 1), of("True", 2), 0));
        assert!(writes(json!({}), of("True", 1), 0));
    }

    #[test]
    fn a_figure_is_written_when_it_moved_by_more_than_a_tenth_or_is_old() {
        for (field, before, small, large) in [
            ("settled", json!(1000), json!(1090), json!(1200)),
            ("settled", json!("1.00"), json!("1.05"), json!("2.00")),
            ("p50", json!("10s"), json!("10500ms"), json!("30s")),
        ] {
            let of = |value: &Value| json!({ field: value });
            if before != json!("10s") {
                assert!(!writes(of(&before), of(&small), 0), "{field} {small}");
                assert!(writes(of(&before), of(&small), STATUS_EVERY.0), "{field} {small}, old");
            }
            assert!(writes(of(&before), of(&large), 0), "{field} {large}");
        }
        assert!(writes(json!({"settled": 0}), json!({"settled": 1}), 0), "the first token spent");
    }

    #[test]
    fn what_follows_other_fields_waits() {
        let of = |held: i32, message: &str| json!({"held": held, "conditions": [{"message": message}]});
        assert!(!writes(of(0, "needs 1"), of(500, "needs 2"), 0));
        assert!(writes(of(0, "needs 1"), of(500, "needs 2"), STATUS_EVERY.0));
    }

    #[test]
    fn our_first_write_after_a_restart_is_not_held_back() {
        assert!(needs_write(&json!({"held": 0}), &json!({"held": 1}), None, STATUS_EVERY, NOW));
    }
}
