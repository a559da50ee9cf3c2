//! What tokens cost: dollars for a million, by variant.

use anyhow::{Context, Result};
use quartermaster_core::units::NanoUsd;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Prices of variants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBook {
    variants: BTreeMap<String, Written>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    prompt_per_million: String,
    completion_per_million: String,
}

/// Price of a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    prompt: NanoUsd,
    completion: NanoUsd,
}

impl PriceBook {
    /// Reads a price book.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("could not read price book {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("price book {}", path.display()))
    }

    /// The price of a variant.
    pub(super) fn price(&self, variant: &str) -> Result<Price> {
        let written = self.variants.get(variant).with_context(|| format!("the price book has no variant {variant}"))?;
        let dollars = |text: &str| text.parse().with_context(|| format!("price of variant {variant}: {text}"));
        Ok(Price {
            prompt: dollars(&written.prompt_per_million)?,
            completion: dollars(&written.completion_per_million)?,
        })
    }
}

impl Price {
    /// What so many tokens cost, rounded up to the nano-dollar.
    pub(super) fn of(self, prompt_tokens: u64, completion_tokens: u64) -> Result<NanoUsd> {
        let of =
            |price: NanoUsd, tokens: u64| i64::try_from(tokens).ok().and_then(|tokens| price.0.checked_mul(tokens));
        let both = of(self.prompt, prompt_tokens).zip(of(self.completion, completion_tokens));
        let millionths = both.and_then(|(prompt, completion)| prompt.checked_add(completion));
        let millionths = millionths.context("a cost beyond measure")?;
        Ok(NanoUsd(millionths.div_euclid(1_000_000) + i64::from(millionths.rem_euclid(1_000_000) > 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cost_what_the_book_says_rounded_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let book = r#"{"variants": {"q8-0": {"promptPerMillion": "0.02", "completionPerMillion": "0.10"}}}"#;
        fs::write(file.path(), book).unwrap();
        let book = PriceBook::read(file.path()).unwrap();
        let price = book.price("q8-0").unwrap();
        // 20 and 100 nano-dollars a token.
        assert_eq!(price.of(10, 3).unwrap(), NanoUsd(500));
        assert_eq!(Price { completion: NanoUsd(1), ..price }.of(0, 1).unwrap(), NanoUsd(1));
        assert!(price.of(u64::MAX, 1).is_err());
        assert!(book.price("q2").unwrap_err().to_string().contains("no variant q2"));
        fs::write(file.path(), r#"{"prices": {}}"#).unwrap();
        assert!(PriceBook::read(file.path()).is_err());
    }
}
