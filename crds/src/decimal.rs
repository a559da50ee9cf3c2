//! Decimal strings: how the API writes a number that is no integer. A float would lose a cent; a string keeps it.

/// Why a decimal string was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not digits with at most one point.
    #[error("parsing {what} {text:?}: write digits with at most one point, such as \"12.50\"")]
    Syntax {
        /// What was parsed.
        what: &'static str,
        /// The text as written.
        text: String,
    },
    /// More digits after the point than can be kept exactly.
    #[error("parsing {what} {text:?}: at most {max} digits after the point")]
    TooPrecise {
        /// What was parsed.
        what: &'static str,
        /// The text as written.
        text: String,
        /// Digits that are kept.
        max: usize,
    },
    /// Outside of the range of the type.
    #[error("parsing {what} {text:?}: out of range, {range}")]
    OutOfRange {
        /// What was parsed.
        what: &'static str,
        /// The text as written.
        text: String,
        /// The range in words.
        range: &'static str,
    },
}

/// Parses `text` to an integer of `10^-places` units: `scaled("1.5", 3)` is 1500.
pub(crate) fn scaled(what: &'static str, text: &str, places: usize) -> Result<i64, Error> {
    let syntax = || Error::Syntax { what, text: text.to_owned() };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(syntax());
    }
    if fraction.len() > places {
        return Err(Error::TooPrecise { what, text: text.to_owned(), max: places });
    }
    let padded = format!("{whole}{fraction:0<places$}");
    let value: i64 = padded.parse().map_err(|_| Error::OutOfRange {
        what,
        text: text.to_owned(),
        range: "it does not fit in 64 bits",
    })?;
    Ok(if negative { -value } else { value })
}

/// Writes `value` of `10^-places` units, with at least `keep` digits after the point.
pub(crate) fn write(value: i64, places: usize, keep: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let trimmed = fraction.trim_end_matches('0');
    let shown = fraction.get(..trimmed.len().max(keep)).unwrap_or(fraction);
    if shown.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{shown}") }
}

/// Implements a schema of a bounded, patterned string for a newtype.
macro_rules! string_schema {
    ($type:ty, $name:literal, $pattern:literal, $max:literal) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "maxLength": $max, "pattern": $pattern })
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}
pub(crate) use string_schema;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_keeps_every_digit() {
        for (text, want) in [("0", 0), ("1", 1_000), ("1.5", 1_500), ("0.001", 1), ("-2.25", -2_250)] {
            assert_eq!(scaled("test", text, 3), Ok(want), "{text}");
        }
    }

    #[test]
    fn scaled_names_the_text_it_refuses() {
        for text in ["", ".", "1.", ".5", "1,5", "1e3", "+1", "--1", "1.2.3", " 1", "١"] {
            let error = scaled("test", text, 3).unwrap_err();
            assert!(matches!(error, Error::Syntax { .. }), "{text}: {error}");
        }
        assert!(matches!(scaled("test", "0.0001", 3), Err(Error::TooPrecise { max: 3, .. })));
        assert!(matches!(scaled("test", "99999999999999999999", 3), Err(Error::OutOfRange { .. })));
    }

    #[test]
    fn write_is_the_inverse_of_scaled() {
        for (value, keep, want) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (1_500, 0, "1.5"),
            (1_500, 2, "1.50"),
            (-1, 0, "-0.001"),
            (12_000, 2, "12.00"),
        ] {
            let text = write(value, 3, keep);
            assert_eq!(text, want);
            assert_eq!(scaled("test", &text, 3), Ok(value));
        }
    }
}
