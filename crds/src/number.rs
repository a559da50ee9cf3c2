//! Decimal strings that are no money: a score in [0, 1], a coefficient with a sign.

use crate::decimal::{self, Error, string_schema};
use serde::{Deserialize, Serialize};

/// Digits after the point of a score.
const SCORE_PLACES: usize = 6;
/// Digits after the point of a coefficient.
const COEFFICIENT_PLACES: usize = 9;
/// A score of one.
const ONE: i64 = 1_000_000;

/// A decimal string in [0, 1], such as `"0.87"`; higher is better.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct Score(pub String);
string_schema!(Score, "Score", r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$", 8);

impl Score {
    /// The score in millionths, 0 to 1,000,000.
    pub fn millionths(&self) -> Result<u32, Error> {
        let out_of_range = || Error::OutOfRange { what: "score", text: self.0.clone(), range: "from 0 to 1" };
        let value = decimal::scaled("score", &self.0, SCORE_PLACES)?;
        if value > ONE {
            return Err(out_of_range());
        }
        u32::try_from(value).map_err(|_| out_of_range())
    }

    /// The score of `millionths`, at most one.
    #[must_use]
    pub fn from_millionths(millionths: u32) -> Self {
        Self(decimal::write(i64::from(millionths).min(ONE), SCORE_PLACES, 0))
    }
}

/// A decimal string with a sign, such as `"-0.031"`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct Coefficient(pub String);
string_schema!(Coefficient, "Coefficient", r"^-?[0-9]{1,4}(\.[0-9]{1,9})?$", 15);

impl Coefficient {
    /// The coefficient in billionths.
    pub fn billionths(&self) -> Result<i64, Error> {
        decimal::scaled("coefficient", &self.0, COEFFICIENT_PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_stays_in_its_range() {
        for (text, want) in [("0", 0), ("1", 1_000_000), ("1.000", 1_000_000), ("0.87", 870_000), ("0.000001", 1)] {
            assert_eq!(Score::from(text).millionths(), Ok(want), "{text}");
        }
        for text in ["1.000001", "-0.1", "2", "0.0000001", "high"] {
            assert!(Score::from(text).millionths().is_err(), "{text}");
        }
        assert_eq!(Score::from_millionths(870_000).0, "0.87");
        assert_eq!(Score::from_millionths(2_000_000).0, "1");
    }

    #[test]
    fn coefficient_has_a_sign() {
        assert_eq!(Coefficient::from("-0.031").billionths(), Ok(-31_000_000));
    }
}
