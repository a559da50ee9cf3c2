//! How tokens are drawn, and what is told of them: the fields of OpenAI and vLLM.

use super::error::ApiError;
use super::fields::Fields;
use super::request::Kind;
use crate::limits::{COMPLETION_LOGPROBS_MAX, LOGIT_BIAS_MAX, TOP_LOGPROBS_MAX};
use crate::sampler::{Bias, Penalties, Report, Sampling, Token};
use serde::Deserialize;
use serde_json::Value;

/// What the answer tells of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tell {
    /// Log odds of each token, and so many of the likeliest.
    pub logprobs: Option<u32>,
    /// How sure the model was, all in all.
    pub confidence: bool,
}

impl Tell {
    /// # Errors
    /// Names the field that is wrong.
    pub(super) fn read(fields: Fields<'_>, kind: Kind) -> Result<Self, ApiError> {
        let logprobs = match kind {
            Kind::Text => fields.within("logprobs", 0, COMPLETION_LOGPROBS_MAX)?,
            Kind::Chat => {
                let top = fields.within("top_logprobs", 0, TOP_LOGPROBS_MAX)?;
                let wanted = fields.flag("logprobs")?;
                if top.is_some_and(|top| top > 0) && !wanted {
                    return Err(ApiError::field("top_logprobs", "needs logprobs: true"));
                }
                wanted.then(|| top.unwrap_or(0))
            }
        };
        Ok(Self { logprobs, confidence: fields.flag("confidence")? })
    }

    fn report(self) -> Report {
        Report {
            logprob: self.logprobs.is_some() || self.confidence,
            top: usize::try_from(self.logprobs.unwrap_or(0)).unwrap_or(0),
            entropy: self.confidence,
        }
    }
}

/// Reads the fields; `seed` is taken where the request has none.
///
/// # Errors
/// Names the first field that is wrong.
pub(super) fn read(fields: Fields<'_>, tell: Tell, seed: u64) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.0),
        seed: fields.integer("seed")?.map_or(seed, i64::cast_unsigned),
        penalties: Penalties {
            presence: fields.single("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            frequency: fields.single("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            repetition: repetition(fields)?,
        },
        bias: bias(fields)?,
        report: tell.report(),
    })
}

/// As vLLM has it: -1 and 0 are all tokens.
fn top_k(fields: Fields<'_>) -> Result<usize, ApiError> {
    match fields.integer("top_k")? {
        None | Some(-1) => Ok(0),
        Some(count) => usize::try_from(count).map_err(|_| fields.wrong("top_k", "at least -1")),
    }
}

fn repetition(fields: Fields<'_>) -> Result<f32, ApiError> {
    match fields.single("repetition_penalty", 0.0, 2.0)? {
        Some(penalty) if penalty <= 0.0 => Err(fields.wrong("repetition_penalty", "more than 0")),
        penalty => Ok(penalty.unwrap_or(1.0)),
    }
}

fn bias(fields: Fields<'_>) -> Result<Bias, ApiError> {
    let map = match fields.get("logit_bias") {
        None => return Ok(Bias::default()),
        Some(Value::Object(map)) if map.len() <= LOGIT_BIAS_MAX => map,
        Some(_) => {
            let wanted = format!("an object of at most {LOGIT_BIAS_MAX} tokens, such as {{\"42\": -100}}");
            return Err(fields.wrong("logit_bias", &wanted));
        }
    };
    let one = |(key, value): (&String, &Value)| {
        let token = key.parse::<Token>().ok().filter(|token| *token >= 0);
        let bias = f32::deserialize(value).ok().filter(|bias| (-100.0..=100.0).contains(bias));
        let wrong = || fields.wrong(&format!("logit_bias.{key}"), "a number from -100 to 100, for a token's number");
        token.zip(bias).ok_or_else(wrong)
    };
    Ok(Bias(map.iter().map(one).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sampling(body: Value) -> Result<Sampling, String> {
        let map = body.as_object().unwrap();
        read(Fields::new(map), Tell::default(), 9).map_err(|error| error.param.unwrap())
    }

    fn tell(body: Value, kind: Kind) -> Result<Tell, String> {
        Tell::read(Fields::new(body.as_object().unwrap()), kind).map_err(|error| error.param.unwrap())
    }

    #[test]
    fn defaults_change_nothing() {
        assert_eq!(sampling(json!({})), Ok(Sampling::plain(1.0, 1.0, 9)));
        let all = json!({"top_k": -1, "repetition_penalty": 1, "presence_penalty": 0, "logit_bias": {}, "min_p": 0});
        assert_eq!(sampling(all), Ok(Sampling::plain(1.0, 1.0, 9)));
    }

    #[test]
    fn every_field_arrives() {
        let body = json!({"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": -1,
            "presence_penalty": -2, "frequency_penalty": 0.5, "repetition_penalty": 1.25, "logit_bias": {"7": -100, "8": 0.5}});
        let wanted = Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.1,
            seed: u64::MAX,
            penalties: Penalties { presence: -2.0, frequency: 0.5, repetition: 1.25 },
            bias: Bias(std::sync::Arc::from([(7, -100.0), (8, 0.5)])),
            report: Report::default(),
        };
        assert_eq!(sampling(body), Ok(wanted));
    }

    #[test]
    fn wrong_ones_are_named() {
        for (body, field) in [
            (json!({"temperature": 3}), "temperature"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"top_k": 1.5}), "top_k"),
            (json!({"min_p": 1.1}), "min_p"),
            (json!({"presence_penalty": 2.5}), "presence_penalty"),
            (json!({"frequency_penalty": "0"}), "frequency_penalty"),
            (json!({"repetition_penalty": 0}), "repetition_penalty"),
            (json!({"repetition_penalty": 2.1}), "repetition_penalty"),
            (json!({"logit_bias": [1]}), "logit_bias"),
            (json!({"logit_bias": {"x": 1}}), "logit_bias.x"),
            (json!({"logit_bias": {"-1": 1}}), "logit_bias.-1"),
            (json!({"logit_bias": {"1": 101}}), "logit_bias.1"),
        ] {
            assert_eq!(sampling(body.clone()), Err(field.into()), "{body}");
        }
        let many: serde_json::Map<_, _> = (0..=LOGIT_BIAS_MAX).map(|token| (token.to_string(), json!(1))).collect();
        assert_eq!(sampling(json!({"logit_bias": many})), Err("logit_bias".into()));
    }

    #[test]
    fn chat_and_completions_ask_for_log_odds_in_their_own_way() {
        let told = |logprobs| Ok(Tell { logprobs, confidence: false });
        assert_eq!(tell(json!({"logprobs": true}), Kind::Chat), told(Some(0)));
        assert_eq!(tell(json!({"logprobs": true, "top_logprobs": 20}), Kind::Chat), told(Some(20)));
        assert_eq!(tell(json!({"logprobs": false, "top_logprobs": 0}), Kind::Chat), told(None));
        assert_eq!(tell(json!({"logprobs": 0}), Kind::Text), told(Some(0)));
        assert_eq!(tell(json!({"logprobs": null}), Kind::Text), told(None));
        assert_eq!(tell(json!({"top_logprobs": 2}), Kind::Chat), Err("top_logprobs".into()));
        assert_eq!(tell(json!({"logprobs": true, "top_logprobs": 21}), Kind::Chat), Err("top_logprobs".into()));
        assert_eq!(tell(json!({"logprobs": 2}), Kind::Chat), Err("logprobs".into()));
        assert_eq!(tell(json!({"logprobs": 6}), Kind::Text), Err("logprobs".into()));
        assert_eq!(tell(json!({"logprobs": true}), Kind::Text), Err("logprobs".into()));
        let sure = tell(json!({"confidence": true}), Kind::Text).unwrap();
        assert_eq!(sure.report(), Report { logprob: true, top: 0, entropy: true });
    }
}
