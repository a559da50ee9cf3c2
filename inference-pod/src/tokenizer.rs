//! The tokenizer bundle: what a gateway needs to count as llama.cpp counts, built from the GGUF's own metadata.
//!
//! GGUF carries the vocabulary, the merges and the *name* of the pre-tokenizer; the patterns behind the names are
//! llama.cpp's. Here are those that we compared token by token; others are refused, since a wrong count is worse than none.

use crate::gguf::{Gguf, Value};
use quartermaster_core::wire::serve::TokenizerBundle;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Splits like GPT-2's: contractions, words, numbers, the rest.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's.
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: as Llama 3's, with single digits.
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GGUF's token types.
const UNKNOWN: i128 = 2;
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// What the engine says of its vocabulary; it knows better than the metadata, which leaves defaults out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// Number of the token that begins a sequence.
    pub bos: Option<i32>,
    /// Number of the token that ends one.
    pub eos: Option<i32>,
    /// Whether prompts begin with `bos`.
    pub add_bos: bool,
    /// Whether prompts end with `eos`.
    pub add_eos: bool,
}

/// Why there is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// We can't express this tokenizer.
    #[error("this model's tokenizer is not supported for exact counting outside the engine: {0}")]
    Unsupported(String),
    /// The metadata is broken.
    #[error("reading the tokenizer of the model file: {0}")]
    Broken(String),
}

/// Builds the bundle.
///
/// # Errors
/// Where the tokenizer is of a kind that we don't know, or its tables are broken.
pub fn bundle(gguf: &Gguf, specials: &Specials, context_tokens: u32) -> Result<TokenizerBundle, TokenizerError> {
    let model = gguf.text("tokenizer.ggml.model").unwrap_or("none");
    if model != "gpt2" {
        return Err(TokenizerError::Unsupported(format!("tokenizer.ggml.model is {model:?}; \"gpt2\" is supported")));
    }
    let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let splits = splits(pre)?;
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let merges = texts(gguf, "tokenizer.ggml.merges")?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(gguf, &tokens),
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(&splits),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": ignores_merges(pre), "vocab": vocabulary(&tokens)?, "merges": pairs(&merges)?,
        }
    });
    let text = |id: Option<i32>| id.and_then(|id| usize::try_from(id).ok()).and_then(|id| tokens.get(id));
    let mut bundle = TokenizerBundle {
        hash: String::new(),
        tokenizer_json: tokenizer.to_string(),
        chat_template: gguf.text("tokenizer.chat_template").map(str::to_owned),
        bos_token: text(specials.bos).map(|text| (*text).to_owned()),
        eos_token: text(specials.eos).map(|text| (*text).to_owned()),
        add_bos: specials.add_bos,
        add_eos: specials.add_eos,
        context_tokens,
    };
    bundle.hash = hex::encode(Sha256::digest(bundle.content()));
    Ok(bundle)
}

/// The patterns of a pre-tokenizer, applied one after the other.
fn splits(pre: &str) -> Result<Vec<&'static str>, TokenizerError> {
    match pre {
        "gpt-2" => Ok(vec![GPT2]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => Ok(vec![r"\p{N}", GPT2]),
        "llama-bpe" | "llama3" | "llama-v3" => Ok(vec![LLAMA3]),
        "qwen2" | "deepseek-r1-qwen" => Ok(vec![QWEN2]),
        "default" => Ok(vec![r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        other => Err(TokenizerError::Unsupported(format!(
            "tokenizer.ggml.pre is {other:?}; gpt-2, smollm, starcoder, llama-bpe, qwen2 and default are supported"
        ))),
    }
}

/// Llama 3's words that are tokens as a whole are never built by merges.
fn ignores_merges(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3")
}

fn pre_tokenizer(splits: &[&str]) -> serde_json::Value {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let steps: Vec<_> = splits.iter().map(split).chain([bytes]).collect();
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>, TokenizerError> {
    let items = gguf.list(key).ok_or_else(|| TokenizerError::Broken(format!("{key} is missing or no list")))?;
    let text = |item: &'a Value| match item {
        Value::Text(text) => Ok(text.as_str()),
        _ => Err(TokenizerError::Broken(format!("{key} holds something that is no text"))),
    };
    items.iter().map(text).collect()
}

fn vocabulary(tokens: &[&str]) -> Result<Map<String, serde_json::Value>, TokenizerError> {
    let mut vocabulary = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if vocabulary.insert((*token).to_owned(), id.into()).is_some() {
            return Err(TokenizerError::Broken(format!("token {token:?} stands twice in the vocabulary")));
        }
    }
    Ok(vocabulary)
}

fn pairs(merges: &[&str]) -> Result<Vec<[String; 2]>, TokenizerError> {
    // As llama.cpp does: the space that parts them is not the first character.
    let pair = |merge: &&str| {
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        let (left, right) = at.and_then(|at| merge.split_at_checked(at))?;
        Some([left.to_owned(), right.strip_prefix(' ')?.to_owned()])
    };
    let read = |merge: &&str| pair(merge).ok_or_else(|| TokenizerError::Broken(format!("merge {merge:?} is no pair")));
    merges.iter().map(read).collect()
}

/// Tokens that are found in the text as they stand, before anything is split.
fn added_tokens(gguf: &Gguf, tokens: &[&str]) -> Vec<serde_json::Value> {
    let kinds = gguf.list("tokenizer.ggml.token_type").unwrap_or_default();
    let mut seen = HashSet::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        let special = match kind {
            Value::Int(CONTROL | UNKNOWN) => true,
            Value::Int(USER_DEFINED) => false,
            _ => continue,
        };
        if !token.is_empty() && seen.insert(*token) {
            added.push(json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special}));
        }
    }
    added
}
