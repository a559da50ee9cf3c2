//! Answers that must be of a form: a JSON schema, a grammar, a regular expression. The library `llguidance` says which
//! tokens may come next.

use crate::engine::Vocabulary;
use crate::limits::{GRAMMAR_BYTES_MAX, GRAMMAR_ITEMS_MAX};
use crate::sampler::Token;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A JSON object of any kind.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Value),
    /// A grammar in Lark's notation.
    Grammar(String),
    /// A text that this regular expression matches whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// A form that can't be used, or an answer that left it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(pub String);

/// Makes constraints for one vocabulary.
pub struct Constraints {
    factory: ParserFactory,
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

impl Constraints {
    /// For a vocabulary of so many tokens.
    ///
    /// # Errors
    /// Where the vocabulary has no end.
    pub fn new(vocabulary: &dyn Vocabulary, tokens: usize) -> Result<Self, ConstraintError> {
        let failed = |why: String| ConstraintError(format!("this vocabulary takes no grammar: {why}"));
        let size = u32::try_from(tokens).map_err(|error| failed(error.to_string()))?;
        let tokens = (0..).take(tokens);
        let end = tokens.clone().find(|token| vocabulary.ends(*token)).ok_or_else(|| failed("it has no end".into()))?;
        let end = u32::try_from(end).map_err(|error| failed(error.to_string()))?;
        // A special token stands for no text; 0xFF marks it, as the library has it.
        let words: Vec<Vec<u8>> = tokens
            .map(|token| match vocabulary.piece(token) {
                piece if piece.is_empty() => [&[0xFF], format!("[{token}]").as_bytes()].concat(),
                piece => piece,
            })
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|error| failed(error.to_string()))?;
        factory.quiet();
        Ok(Self { factory })
    }

    /// A constraint at its beginning.
    ///
    /// # Errors
    /// Says what is wrong with the form.
    pub fn of(&self, form: &Form) -> Result<Constraint, ConstraintError> {
        let grammar = grammar(form)?;
        let parser = self.factory.create_parser(grammar).map_err(|error| ConstraintError(error.to_string()))?;
        Ok(Constraint(Matcher::new(Ok(parser))))
    }
}

fn grammar(form: &Form) -> Result<TopLevelGrammar, ConstraintError> {
    let text = |text: &String| match text.len() {
        length if length > GRAMMAR_BYTES_MAX => {
            Err(ConstraintError(format!("it has {length} bytes; at most {GRAMMAR_BYTES_MAX} are taken")))
        }
        _ => Ok(text.clone()),
    };
    match form {
        Form::JsonObject => Ok(json(serde_json::json!({"type": "object"}))),
        Form::JsonSchema(schema) => {
            text(&schema.to_string())?;
            Ok(json(schema.clone()))
        }
        Form::Grammar(grammar) => Ok(TopLevelGrammar::from_lark(text(grammar)?)),
        Form::Regex(regex) => Ok(TopLevelGrammar::from_regex(&text(regex)?)),
        Form::Choice(texts) if texts.is_empty() || texts.len() > GRAMMAR_ITEMS_MAX => {
            Err(ConstraintError(format!("it must hold 1 to {GRAMMAR_ITEMS_MAX} texts")))
        }
        Form::Choice(texts) => {
            let quoted: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
            Ok(TopLevelGrammar::from_lark(text(&format!("start: {}", quoted.join(" | ")))?))
        }
    }
}

/// One space after a comma or colon and no other: where any whitespace may come, some models write nothing else.
fn json(mut schema: Value) -> TopLevelGrammar {
    let spaces = serde_json::json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    if let Value::Object(schema) = &mut schema {
        schema.entry("x-guidance").or_insert(spaces);
    }
    TopLevelGrammar::from_json_schema(schema)
}

/// One answer's way through its form.
pub struct Constraint(Matcher);

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("complete", &self.is_complete()).finish()
    }
}

impl Constraint {
    /// Takes the odds of each token that may not come next.
    ///
    /// # Errors
    /// Where no token may.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let allowed = self.0.compute_mask_or_eos().map_err(|error| ConstraintError(error.to_string()))?;
        for (at, logit) in logits.iter_mut().enumerate() {
            if !allowed.get(at) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// A token was drawn.
    ///
    /// # Errors
    /// Where it leaves the form.
    pub fn take(&mut self, token: Token) -> Result<(), ConstraintError> {
        let token = u32::try_from(token).map_err(|error| ConstraintError(error.to_string()))?;
        self.0.consume_token(token).map_err(|error| ConstraintError(error.to_string()))
    }

    /// Whether nothing may follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Specials;

    /// Bytes as tokens; 0 ends.
    struct Bytes;

    impl Vocabulary for Bytes {
        fn tokenize(&self, text: &str) -> Vec<Token> {
            text.bytes().map(Token::from).collect()
        }
        fn piece(&self, token: Token) -> Vec<u8> {
            if token == 0 { Vec::new() } else { vec![u8::try_from(token).unwrap()] }
        }
        fn ends(&self, token: Token) -> bool {
            token == 0
        }
        fn specials(&self) -> Specials {
            Specials { eos: Some(0), ..Specials::default() }
        }
        fn longest_token_bytes(&self) -> usize {
            1
        }
        fn tokens(&self) -> usize {
            256
        }
    }

    /// What comes out where the model likes the bytes of `wish` best, in turn, and then the end.
    fn forced(form: Form, wish: &str) -> Result<String, ConstraintError> {
        let mut constraint = Constraints::new(&Bytes, 256).unwrap().of(&form)?;
        let mut out = Vec::new();
        let mut wishes = wish.bytes();
        while out.len() < 200 {
            let mut logits: Vec<f32> = (0_u8..=255).map(|byte| f32::from(byte) / 1000.0).collect();
            logits[usize::from(wishes.next().unwrap_or(0))] = 10.0;
            constraint.mask(&mut logits)?;
            let best = (0..256).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            constraint.take(Token::try_from(best).unwrap())?;
            if best == 0 {
                break;
            }
            out.push(u8::try_from(best).unwrap());
            if constraint.is_complete() {
                break;
            }
        }
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_schema_is_kept_whatever_the_model_wishes() {
        let schema = serde_json::json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
            "additionalProperties": false});
        let said = forced(Form::JsonSchema(schema.clone()), "{\"n\": 42}").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), serde_json::json!({"n": 42}));
        assert_eq!(forced(Form::JsonObject, &"\t\n  ".repeat(40)).unwrap().find(char::is_whitespace), None);
        let said = forced(Form::JsonSchema(schema), "no, I will not! 7}").unwrap();
        assert!(serde_json::from_str::<Value>(&said).unwrap()["n"].is_i64(), "{said}");
    }

    #[test]
    fn a_regex_a_choice_and_a_grammar() {
        assert_eq!(forced(Form::Regex("[0-9]{3}".into()), "a1b2c3").unwrap().len(), 3);
        assert_eq!(forced(Form::Choice(vec!["yes".into(), "no".into()]), "noway").unwrap(), "no");
        assert_eq!(forced(Form::Grammar("start: \"a\" \"b\"".into()), "zz").unwrap(), "ab");
    }

    #[test]
    fn a_form_that_is_none_says_why() {
        let wrong = [Form::Grammar("start: missing".into()), Form::Regex("(".into()), Form::Choice(Vec::new())];
        for form in wrong {
            let error = forced(form.clone(), "").unwrap_err();
            assert!(!error.0.is_empty(), "{form:?}");
        }
        let huge = Form::Regex("a".repeat(GRAMMAR_BYTES_MAX + 1));
        assert!(forced(huge, "").unwrap_err().0.contains("bytes"));
    }
}
