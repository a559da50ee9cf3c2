//! What tokens cost: dollars for a million, by variant, from a book or from what a machine does in an hour.

use anyhow::{Context, Result};
use quartermaster_core::units::NanoUsd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SECONDS_PER_HOUR: f64 = 3600.0;
const MILLION: f64 = 1e6;

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

/// Price of a million tokens, in nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Of the question.
    pub prompt: NanoUsd,
    /// Of the answer.
    pub completion: NanoUsd,
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
    ///
    /// # Errors
    /// Where the book has none, or what it has is no amount of money.
    pub fn price(&self, variant: &str) -> Result<Price> {
        let written = self.variants.get(variant).with_context(|| format!("the price book has no variant {variant}"))?;
        let dollars = |text: &str| text.parse().with_context(|| format!("price of variant {variant}: {text}"));
        Ok(Price {
            prompt: dollars(&written.prompt_per_million)?,
            completion: dollars(&written.completion_per_million)?,
        })
    }
}

impl Price {
    /// The share of an hour's price that a token takes of a full machine, by what the inference server measured of itself at
    /// its start, as its `/metrics` say. A moment's measurement: good for how the two relate, see `Run::on_machine`.
    pub(super) fn of_machine(metrics: &str, per_hour: NanoUsd) -> Result<Self> {
        let sample = |name: &str, label: &str| {
            let of = |line: &&str| line.starts_with(name) && line.contains(label);
            let value = metrics.lines().find(of).and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            value.filter(|value| *value > 0.0).with_context(|| format!("/metrics say nothing of {name} {label}"))
        };
        let prompt_seconds = sample("quartermaster_engine_cost_seconds{", "part=\"prompt_token\"")?;
        let completion_speed = sample("quartermaster_engine_decode_tokens_per_second{", "")?;
        Ok(Self { prompt: million(prompt_seconds, per_hour)?, completion: million(1.0 / completion_speed, per_hour)? })
    }

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

/// A million times so many seconds, at so much an hour; as a decimal, because money has no other way from a float.
fn million(seconds: f64, per_hour: NanoUsd) -> Result<NanoUsd> {
    let per_hour: f64 = per_hour.to_string().parse()?;
    let dollars = seconds * MILLION / SECONDS_PER_HOUR * per_hour;
    format!("{dollars:.9}").parse().with_context(|| format!("${dollars} is no price"))
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

    #[test]
    fn a_machines_price_is_its_hour_over_its_tokens() {
        let metrics = "quartermaster_engine_cost_seconds{model_name=\"m\",part=\"step\"} 0.5\n\
                       quartermaster_engine_cost_seconds{model_name=\"m\",part=\"prompt_token\"} 0.0001\n\
                       quartermaster_engine_decode_tokens_per_second{model_name=\"m\"} 2000\n";
        // 36 million tokens of questions an hour, or 7.2 million of answers.
        let price = Price::of_machine(metrics, NanoUsd(72_000_000)).unwrap();
        assert_eq!(price, Price { prompt: NanoUsd(2_000_000), completion: NanoUsd(10_000_000) });
        let error = Price::of_machine("quartermaster_engine_decode_tokens_per_second{} 0", NanoUsd(1)).unwrap_err();
        assert!(error.to_string().contains("prompt_token"), "{error}");
    }
}
