//! The dimensions that memory depends on.

use super::{Gguf, GgufError, Value};

/// Most layers that are believed.
const LAYERS_MAX: u64 = 4096;

/// A model's dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `general.architecture`.
    pub architecture: String,
    /// Blocks.
    pub layers: u64,
    /// Width of the residual stream.
    pub embedding: u64,
    /// Width inside the feed-forward net.
    pub feed_forward: u64,
    /// Attention heads.
    pub heads: u64,
    /// Elements that one token adds to the KV cache, over all layers.
    pub kv_elements_per_token: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Context that the model was trained for.
    pub context: u64,
}

impl Shape {
    /// Reads the dimensions from the metadata.
    ///
    /// # Errors
    /// Names the key that is missing or senseless.
    pub fn of(gguf: &Gguf) -> Result<Self, GgufError> {
        let architecture =
            gguf.text("general.architecture").ok_or_else(|| gguf.corrupt("general.architecture is missing"))?;
        let key = |name: &str| format!("{architecture}.{name}");
        let needed = |name: &str| {
            let found = gguf.number(&key(name)).filter(|number| (1..=u64::from(u32::MAX)).contains(number));
            found.ok_or_else(|| gguf.corrupt(format!("{} is missing or no positive number", key(name))))
        };
        let layers = needed("block_count")?;
        if layers > LAYERS_MAX {
            return Err(gguf.corrupt(format!("{} is {layers}; at most {LAYERS_MAX}", key("block_count"))));
        }
        let embedding = needed("embedding_length")?;
        let heads = largest(gguf, &key("attention.head_count"))
            .ok_or_else(|| gguf.corrupt(format!("{} is missing or no positive number", key("attention.head_count"))))?;
        let head = embedding / heads;
        let key_length = gguf.number(&key("attention.key_length")).unwrap_or(head);
        let value_length = gguf.number(&key("attention.value_length")).unwrap_or(head);
        let kv_heads = sum_over_layers(gguf, &key("attention.head_count_kv"), layers).unwrap_or(heads * layers);
        let tokens = gguf.list("tokenizer.ggml.tokens").map_or(0, <[Value]>::len);
        Ok(Self {
            layers,
            embedding,
            feed_forward: largest(gguf, &key("feed_forward_length")).unwrap_or(embedding.saturating_mul(4)),
            heads,
            kv_elements_per_token: kv_heads.saturating_mul(key_length.saturating_add(value_length)),
            vocabulary: u64::try_from(tokens).unwrap_or(u64::MAX),
            context: needed("context_length")?,
            architecture: architecture.to_owned(),
        })
    }
}

fn positive(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u32::try_from(*number).ok().map(u64::from),
        _ => None,
    }
}

/// Some models give one number for all layers, others a list with one per layer.
fn largest(gguf: &Gguf, key: &str) -> Option<u64> {
    let found = match gguf.metadata.get(key)? {
        Value::List(items) => items.iter().filter_map(positive).max(),
        single => positive(single),
    };
    found.filter(|number| *number > 0)
}

fn sum_over_layers(gguf: &Gguf, key: &str, layers: u64) -> Option<u64> {
    match gguf.metadata.get(key)? {
        Value::List(items) => Some(items.iter().filter_map(positive).fold(0, u64::saturating_add)),
        single => positive(single).map(|heads| heads.saturating_mul(layers)),
    }
}
