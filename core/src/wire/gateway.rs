//! Operator → gateway: everything the data plane may know, as one versioned value.
//!
//! The gateway serves from the last snapshot it got, and goes on serving from it when the operator is away.

use crate::units::{Millis, Tokens};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole catalogue of models, keys and endpoints. A model without endpoints is asleep, not unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySnapshot {
    /// Fencing epoch of the leader that wrote it; a lower one is from a deposed leader and is ignored.
    pub epoch: u64,
    /// Grows with each change within an epoch.
    pub version: u64,
    /// Hex salt of the key hashes.
    pub key_salt: String,
    /// Models, by `namespace/name`.
    pub models: BTreeMap<String, ModelRoute>,
    /// API keys, by the hex of HMAC-SHA256(key = the salt's bytes, message = the API key).
    pub keys: BTreeMap<String, ApiKey>,
}

/// One model as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRoute {
    /// Namespace of the ModelDeployment.
    pub namespace: String,
    /// Name of the ModelDeployment.
    pub name: String,
    /// `spec.model`: a further name that clients of the namespace may use, and the engine's own name for it.
    pub public_name: String,
    /// Limits of one request.
    pub limits: TokenLimits,
    /// Tokenizer and chat template; absent until a replica has told the operator.
    pub tokenizer: Option<TokenizerRef>,
    /// Where it is served now.
    pub endpoints: Vec<Endpoint>,
    /// How long a request may wait for the first replica, from the measured or declared start-up time.
    pub wake_deadline: Millis,
    /// One sentence for clients while nothing serves: starting, asleep, or why it can't.
    pub unavailable_because: Option<String>,
}

/// Token limits of one request; absent means bounded by the context alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenLimits {
    /// Most prompt tokens.
    pub max_prompt: Option<Tokens>,
    /// Most completion tokens.
    pub max_completion: Option<Tokens>,
    /// Most tokens in all: the context that each request has in the engine.
    pub max_context: Tokens,
}

/// A tokenizer bundle (`wire::serve::TokenizerBundle`) by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenizerRef {
    /// SHA-256 of the bundle: the name under which the gateway caches it.
    pub hash: String,
    /// Where it can be fetched now; none while no replica is up.
    pub urls: Vec<String>,
}

/// One replica that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `ip:port`.
    pub address: String,
    /// Pod name.
    pub pod: String,
    /// Variant it serves.
    pub variant: String,
    /// Hardware class it runs on.
    pub hardware_class: String,
    /// Requests it can decode at the same time.
    pub slots: u32,
    /// A draining replica finishes what it has and gets nothing new.
    pub draining: bool,
}

/// Whom a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Namespace whose models the key sees.
    pub namespace: String,
    /// `namespace/secret`: the name of the subject in usage records. Never the key.
    pub subject: String,
    /// Budgets that pay, from the key's own to the root: every one must afford a request.
    pub budgets: Vec<String>,
}
