//! Kubernetes quantities (`300m`, `2Gi`): a schema with a pattern and no forty-line description, and exact parsing.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Why a quantity was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a number with a known suffix.
    #[error("parsing quantity {0:?}: write a number with an optional suffix, such as \"300m\" or \"2Gi\"")]
    Syntax(String),
    /// Does not fit in 64 bits, or is below zero.
    #[error("parsing quantity {0:?}: out of range")]
    OutOfRange(String),
}

/// The schema of a quantity: an integer or a string.
#[must_use]
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 24,
        "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
    })
}

/// Whole bytes, rounded up.
pub fn bytes(quantity: &Quantity) -> Result<u64, Error> {
    scaled(quantity, 1)
}

/// Thousandths (of a core), rounded up.
pub fn millis(quantity: &Quantity) -> Result<u64, Error> {
    scaled(quantity, 1_000)
}

/// The quantity times `factor`, rounded up as Kubernetes does.
fn scaled(quantity: &Quantity, factor: u128) -> Result<u64, Error> {
    let syntax = || Error::Syntax(quantity.0.clone());
    let out_of_range = || Error::OutOfRange(quantity.0.clone());
    let split = quantity.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.0.len());
    let (number, suffix) = quantity.0.split_at(split);
    let (multiplier, divisor) = suffix_factor(suffix).ok_or_else(syntax)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(syntax());
    }
    let places = u32::try_from(fraction.len()).map_err(|_| syntax())?;
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| out_of_range())?;
    let unit = 10_u128.checked_pow(places).and_then(|p| p.checked_mul(divisor)).ok_or_else(out_of_range)?;
    let value = digits.checked_mul(multiplier).and_then(|v| v.checked_mul(factor)).ok_or_else(out_of_range)?;
    u64::try_from(value.div_ceil(unit)).map_err(|_| out_of_range())
}

/// Multiplier and divisor of a suffix.
fn suffix_factor(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn bytes_and_millis() {
        assert_eq!(bytes(&quantity("2Gi")), Ok(2_147_483_648));
        assert_eq!(bytes(&quantity("1.5Gi")), Ok(1_610_612_736));
        assert_eq!(bytes(&quantity("300M")), Ok(300_000_000));
        assert_eq!(bytes(&quantity("1500m")), Ok(2), "rounded up");
        assert_eq!(millis(&quantity("300m")), Ok(300));
        assert_eq!(millis(&quantity("2")), Ok(2_000));
        assert_eq!(millis(&quantity("0.1")), Ok(100));
    }

    #[test]
    fn refusals_name_the_text() {
        for text in ["", "Gi", "1.", ".5", "-1", "1e3", "2gb", "1..2", "1.2.3"] {
            let error = bytes(&quantity(text)).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert!(matches!(bytes(&quantity("99999999999Pi")), Err(Error::OutOfRange(_))));
    }
}
