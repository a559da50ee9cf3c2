//! The same signals as PromQL, as data. Each figure comes with the age of its sample: an instant query answers with
//! figures that are up to five minutes old and does not say so.

use super::readings::{HELD, IN_FLIGHT, RUNNING, SLOTS, SPEED, WAITING};

/// Figures of replicas; labels `namespace` and `pod` name the replica.
pub const PODS: [&str; 4] = [RUNNING, WAITING, SLOTS, SPEED];
/// Figures of gateways; labels `instance`, `namespace` (or `exported_namespace`) and `model` say of what.
pub const GATEWAYS: [&str; 2] = [HELD, IN_FLIGHT];

/// Values of a figure. `__name__` selects names with a colon as well.
#[must_use]
pub fn value(metric: &str) -> String {
    format!("{{__name__=\"{metric}\"}}")
}

/// Instants (in seconds) of the samples behind [`value`], with the same labels but the name.
#[must_use]
pub fn instant(metric: &str) -> String {
    format!("timestamp({{__name__=\"{metric}\"}})")
}

/// Every query, in the order in which they are sent.
#[must_use]
pub fn all() -> Vec<String> {
    PODS.iter().chain(&GATEWAYS).flat_map(|metric| [value(metric), instant(metric)]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries() {
        insta::assert_snapshot!(super::all().join("\n"));
    }
}
