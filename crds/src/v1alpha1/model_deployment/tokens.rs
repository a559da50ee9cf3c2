//! What a request may spend in tokens, and the ways to spend fewer: cascade, cache, sampling.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Score, limits};

/// Tokens of a request.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Hard limits of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TokenLimits>,
    /// How many tokens an answer gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
}

/// Hard limits of one request; what asks for more is refused.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.maxContextTokens) || !has(self.maxPromptTokens) || self.maxPromptTokens <= self.maxContextTokens"
    )
    .message("tokens.limits.maxPromptTokens is larger than maxContextTokens"),
    validation = Rule::new(
        "!has(self.maxContextTokens) || !has(self.maxCompletionTokens) || self.maxCompletionTokens <= self.maxContextTokens"
    )
    .message("tokens.limits.maxCompletionTokens is larger than maxContextTokens")
)]
pub struct TokenLimits {
    /// Most tokens of a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub max_prompt_tokens: Option<i64>,
    /// Most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub max_completion_tokens: Option<i64>,
    /// Most tokens of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub max_context_tokens: Option<i64>,
}

/// How many tokens an answer gets.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.minCompletionTokens) || !has(self.maxCompletionTokens) || self.minCompletionTokens <= self.maxCompletionTokens"
    )
    .message("tokens.allocation.minCompletionTokens is larger than maxCompletionTokens")
)]
pub struct Allocation {
    /// AsAsked: what the client asks, within the limits. ByWorth: where one more token is worth its price no longer.
    #[serde(default)]
    pub strategy: AllocationStrategy,
    /// Fewest tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub min_completion_tokens: Option<i64>,
    /// Most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub max_completion_tokens: Option<i64>,
}

/// Ways to allocate tokens.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[schemars(inline)]
pub enum AllocationStrategy {
    /// What the client asks, within the limits.
    #[default]
    AsAsked,
    /// By the quality curve, the value of a request and the price of a token.
    ByWorth,
}

/// Smaller variant first, larger when its confidence is low.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Cascade {
    /// Variants in the order in which they are asked.
    #[schemars(length(min = 2, max = limits::VARIANTS), inner(length(min = 1, max = limits::LABEL)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub order: Vec<String>,
    /// Confidence below which the next variant is asked.
    pub min_confidence: Score,
}

/// Which answers may be kept and reused.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Answers to the very same request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactCache>,
    /// Answers to a request that means the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticCache>,
    /// The engine's memory of a prompt's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<PrefixCache>,
}

/// Answers to the very same request.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExactCache {
    /// How long an answer is kept.
    pub ttl: Duration,
}

/// Answers to a request that means the same.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SemanticCache {
    /// How long an answer is kept.
    pub ttl: Duration,
    /// Similarity from which two requests mean the same.
    pub min_similarity: Score,
}

/// The engine's memory of a prompt's beginning.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PrefixCache {
    /// Whether prefixes are kept.
    pub enabled: bool,
}

/// Several samples a request, stopped early when they agree.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sampling {
    /// Most samples of one request.
    #[schemars(range(min = 1, max = 64))]
    pub max_samples: i32,
    /// Agreement at which the rest is cancelled.
    pub stop_at_agreement: Score,
}
