//! Money in the API: a decimal string of the currency's unit, at most nine digits after the point, so that it is an
//! integer of nano-units inside.

use crate::decimal::{self, Error, string_schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Digits after the point that are kept: nano-USD.
const PLACES: usize = 9;

/// The currency of every amount of an object. v1alpha1 knows one.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum Currency {
    /// United States dollar.
    #[default]
    USD,
}

/// An amount of zero or more, such as `"12.50"`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct Money(pub String);
string_schema!(Money, "Money", r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$", 19);

impl Money {
    /// The amount in nano-units. The API server checks the pattern, so this fails only for what never passed it.
    pub fn nanos(&self) -> Result<i64, Error> {
        match decimal::scaled("money", &self.0, PLACES)? {
            nanos if nanos >= 0 => Ok(nanos),
            _ => Err(Error::OutOfRange { what: "money", text: self.0.clone(), range: "zero or more" }),
        }
    }

    /// The amount of `nanos`; below zero it is zero, for an amount has no sign (see [`Balance`]).
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Self {
        Self(decimal::write(nanos.max(0), PLACES, 2))
    }
}

/// An amount with a sign, in a status only: a debt is shown, never cut to zero.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct Balance(pub String);
string_schema!(Balance, "Balance", r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$", 21);

impl Balance {
    /// The balance in nano-units.
    pub fn nanos(&self) -> Result<i64, Error> {
        decimal::scaled("balance", &self.0, PLACES)
    }

    /// The balance of `nanos`.
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Self {
        Self(decimal::write(nanos, PLACES, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_to_the_nano() {
        for (text, nanos) in
            [("0", 0), ("12.50", 12_500_000_000), ("0.000000001", 1), ("999999999.999999999", 999_999_999_999_999_999)]
        {
            assert_eq!(Money::from(text).nanos(), Ok(nanos), "{text}");
        }
        assert!(Money::from("-1").nanos().is_err());
        assert!(Money::from("0.0000000001").nanos().is_err());
    }

    #[test]
    fn nanos_come_back_with_cents() {
        assert_eq!(Money::from_nanos(12_500_000_000).0, "12.50");
        assert_eq!(Money::from_nanos(1).0, "0.000000001");
        assert_eq!(Money::from_nanos(-5).0, "0.00");
        assert_eq!(Balance::from_nanos(-1_250_000_000).0, "-1.25");
        assert_eq!(Balance::from_nanos(-1_250_000_000).nanos(), Ok(-1_250_000_000));
    }
}
