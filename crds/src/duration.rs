//! Durations in the API: one number and one unit, such as `30s` or `5m`.

use crate::decimal::string_schema;
use serde::{Deserialize, Serialize};

/// A duration such as `500ms`, `30s`, `5m`, `24h`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct Duration(pub String);
string_schema!(Duration, "Duration", r"^(0|[1-9][0-9]{0,6})(ms|s|m|h)$", 9);

/// Why a duration was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing duration {0:?}: write a whole number and one of ms, s, m, h, such as \"30s\"")]
pub struct Error(String);

impl Duration {
    /// The duration in milliseconds.
    pub fn millis(&self) -> Result<u64, Error> {
        let error = || Error(self.0.clone());
        let split = self.0.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (number, unit) = self.0.split_at(split);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(factor).ok_or_else(error)
    }

    /// The duration as the standard library's.
    pub fn to_std(&self) -> Result<std::time::Duration, Error> {
        self.millis().map(std::time::Duration::from_millis)
    }

    /// The duration of `millis` in the largest unit that keeps it exact.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(match millis {
            0 => "0s".to_owned(),
            ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms => format!("{ms}ms"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit() {
        for (text, want) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(Duration::from(text).millis(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in ["", "5", "s", "5d", "1h30m", "-5s", "1.5h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(Duration::from(text).millis().is_err(), "{text}");
        }
    }

    #[test]
    fn from_millis_is_read_back() {
        for millis in [0, 1, 999, 1_000, 61_000, 300_000, 7_200_000] {
            assert_eq!(Duration::from_millis(millis).millis(), Ok(millis));
        }
        assert_eq!(Duration::from_millis(300_000).0, "5m");
    }
}
