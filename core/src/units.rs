//! Units as types: tokens, money and time can't be mixed up, and their arithmetic never wraps.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Nanodollars in a dollar.
const NANO_PER_USD: i64 = 1_000_000_000;
/// Digits after the point that a nanodollar needs.
const MONEY_DECIMALS: usize = 9;

/// The nearest float. Above 2⁵³ it is not exact: for what is weighed, not for what is counted.
#[must_use]
pub fn float(number: impl Into<i128>) -> f64 {
    const PART: f64 = 4_294_967_296.0;
    let number = number.into();
    let part =
        |shift: u32| f64::from(u32::try_from((number.unsigned_abs() >> shift) & 0xFFFF_FFFF).unwrap_or(u32::MAX));
    let size = [96, 64, 32, 0].into_iter().fold(0.0, |size, shift| size * PART + part(shift));
    if number < 0 { -size } else { size }
}

/// A count of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub u64);

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);

    /// The sum, at most `u64::MAX`.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An amount of money in nano-USD. Signed, because a debt is carried and never clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// The sum; at the ends of the range it stays there, so a ceiling can't be passed by wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; at the ends of the range it stays there.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self` × `count`.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self(self.0.saturating_mul(i64::from(count)))
    }

    /// What `duration` costs at this price per hour, rounded up: rounding never hides spend.
    #[must_use]
    pub fn per_hour_for(self, duration: Millis) -> Self {
        let exact = i128::from(self.0) * i128::from(duration.0.max(0));
        let hour = i128::from(Millis::HOUR.0);
        let rounded = exact.div_euclid(hour) + i128::from(exact.rem_euclid(hour) != 0);
        Self(i64::try_from(rounded).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nano = self.0.unsigned_abs();
        let unit = NANO_PER_USD.unsigned_abs();
        let fraction = format!("{:0MONEY_DECIMALS$}", nano % unit);
        // Cents always, more digits only where they say something.
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{}.{}", nano / unit, fraction.get(..kept).unwrap_or(&fraction))
    }
}

/// Why a text is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of money: write dollars as a decimal of at most nine places, such as \"12.50\"")]
pub struct MoneyError(String);

impl FromStr for NanoUsd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let error = || MoneyError(text.to_owned());
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !numeric(whole) || !numeric(fraction) || fraction.len() > MONEY_DECIMALS {
            return Err(error());
        }
        let whole: i64 = whole.parse().map_err(|_| error())?;
        let nano: i64 = format!("{fraction:0<MONEY_DECIMALS$}").parse().map_err(|_| error())?;
        let value = whole.checked_mul(NANO_PER_USD).and_then(|w| w.checked_add(nano)).ok_or_else(error)?;
        Ok(Self(if negative { -value } else { value }))
    }
}

/// A duration in milliseconds, or an instant as milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// One second.
    pub const SECOND: Self = Self(1_000);
    /// One minute.
    pub const MINUTE: Self = Self(60_000);
    /// One hour.
    pub const HOUR: Self = Self(3_600_000);

    /// That many seconds.
    #[must_use]
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// The later instant or longer duration.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The time from `earlier` to `self`; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

/// A quality score in parts per million of 1, so that scores compare exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QualityPpm(pub u32);

impl fmt::Display for QualityPpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floats_are_the_nearest_ones() {
        for number in [0_i64, 1, -1, 1 << 52, -(1 << 53), i64::MAX, i64::MIN] {
            assert_eq!(float(number), number.to_string().parse::<f64>().unwrap());
        }
        assert_eq!(float(i128::from(i64::MAX) * 4), 4.0 * float(i64::MAX));
    }

    #[test]
    fn money_reads_and_writes_decimals() {
        for (text, nano) in
            [("0", 0), ("12.50", 12_500_000_000), ("-0.000000001", -1), ("9223372036.854775807", i64::MAX)]
        {
            assert_eq!(text.parse::<NanoUsd>(), Ok(NanoUsd(nano)), "{text}");
        }
        assert_eq!(NanoUsd(12_500_000_000).to_string(), "12.50");
        assert_eq!(NanoUsd(-1).to_string(), "-0.000000001");
    }

    #[test]
    fn money_refuses_what_is_no_decimal() {
        for text in ["", ".", "1.", ".5", "1e3", "1,0", "+1", "--1", "0.0000000001", "9223372037"] {
            assert!(text.parse::<NanoUsd>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn an_hour_costs_the_price_and_a_part_rounds_up() {
        let price = NanoUsd(1_000_000_001);
        assert_eq!(price.per_hour_for(Millis::HOUR), price);
        assert_eq!(NanoUsd(1).per_hour_for(Millis(1)), NanoUsd(1));
        assert_eq!(price.per_hour_for(Millis(-5)), NanoUsd::ZERO);
    }

    #[test]
    fn quality_is_written_shortly() {
        assert_eq!(QualityPpm(987_000).to_string(), "0.987");
        assert_eq!(QualityPpm(1_000_000).to_string(), "1");
    }

    proptest! {
        #[test]
        fn money_survives_a_round_trip(nano in any::<i64>().prop_filter("symmetric", |n| *n != i64::MIN)) {
            prop_assert_eq!(NanoUsd(nano).to_string().parse(), Ok(NanoUsd(nano)));
        }
    }
}
