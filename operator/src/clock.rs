//! The only place that reads the wall clock; everything else takes the time as an argument.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quartermaster_core::units::Millis;

/// Now.
#[must_use]
pub fn now() -> Millis {
    Millis(Timestamp::now().as_millisecond())
}

/// An instant of the Kubernetes API.
#[must_use]
pub fn millis(time: &Time) -> Millis {
    Millis(time.0.as_millisecond())
}

/// An instant for the Kubernetes API, which keeps whole seconds.
#[must_use]
pub fn time(at: Millis) -> Time {
    Time(Timestamp::from_second(at.0.div_euclid(1_000)).unwrap_or(Timestamp::UNIX_EPOCH))
}
