//! Variants: one form of the model each, where it comes from, how good it is and where it may run.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Coefficient, Score, limits};

/// One form of the model.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Unique within the model, such as q8-0.
    #[schemars(length(min = 1, max = limits::LABEL), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Where the weights are: hf://, oci://IMAGE#/path, s3://, gs://, pvc://, https:// or file:///path.
    #[schemars(length(min = 1, max = limits::URL))]
    #[x_kube(
        validation = Rule::new(r"self.matches('^(hf|oci|s3|gs|pvc|https|file)://[^ ]+$')")
            .message("source begins with hf://, oci://, s3://, gs://, pvc://, https:// or file:// and has no space"),
        validation = Rule::new(r"!self.startsWith('oci://') || self.matches('^oci://[^#]+#/.+$')")
            .message("an oci:// source names the image and the file in it: oci://IMAGE#/path/model.gguf"),
        validation = Rule::new(r"!self.startsWith('file://') || self.startsWith('file:///')")
            .message("a file:// source is an absolute path: file:///path/model.gguf")
    )]
    pub source: String,
    /// Format of the file.
    pub format: Format,
    /// Precision of the weights.
    pub precision: Precision,
    /// How good the variant is.
    pub quality: Quality,
    /// Where the variant may run.
    #[schemars(length(min = 1, max = limits::HARDWARE))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["class".into()]))]
    pub hardware: Vec<Hardware>,
}

/// Formats of model files.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum Format {
    /// One file with weights, tokenizer and chat template (llama.cpp).
    GGUF,
    /// Files of Hugging Face transformers.
    Safetensors,
    /// Open Neural Network Exchange.
    ONNX,
    /// A compiled TensorRT engine.
    TensorRT,
    /// Whatever the engine's image reads.
    Other,
}

/// Precisions of weights.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
#[expect(non_camel_case_types, reason = "the names by which people know them")]
pub enum Precision {
    /// 32 bit float.
    F32,
    /// 16 bit float.
    F16,
    /// 16 bit brain float.
    BF16,
    /// 8 bit blocks.
    Q8_0,
    /// 4 bit blocks.
    Q4_0,
    /// 4 bit blocks with an offset.
    Q4_1,
    /// 4 bit mixed blocks.
    Q4_K_M,
    /// 2 bit mixed blocks.
    Q2_K,
    /// 8 bit float.
    FP8,
    /// 8 bit integer.
    INT8,
    /// 4 bit integer.
    INT4,
    /// Anything else.
    Other,
}

/// How good a variant is; comparable within one ModelDeployment only.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.interval) || (double(self.interval.low) <= double(self.score) && double(self.score) <= double(self.interval.high))"
    )
    .message("quality.score lies outside of quality.interval: low <= score <= high")
)]
pub struct Quality {
    /// From "0" to "1", higher is better.
    pub score: Score,
    /// What the score is: Accuracy, RelativePerplexity (best perplexity / this one's) or User.
    pub metric: QualityMetric,
    /// What it was measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::TEXT))]
    pub task: Option<String>,
    /// Where the true score lies, by the measurement's own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<QualityInterval>,
    /// Quality as a function of the tokens of an answer: a + b ln T.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve: Option<QualityCurve>,
}

/// What a score is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[schemars(inline)]
pub enum QualityMetric {
    /// Share of right answers.
    Accuracy,
    /// Best perplexity among the variants / this one's.
    RelativePerplexity,
    /// A figure of your own.
    User,
}

/// Where the true score lies.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QualityInterval {
    /// Lower end.
    pub low: Score,
    /// Upper end.
    pub high: Score,
}

/// Quality as a function of tokens: a + b ln T for tMin <= T <= tMax.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.tMin < self.tMax").message("quality.curve: tMin must be less than tMax"))]
pub struct QualityCurve {
    /// Score at one token.
    pub a: Coefficient,
    /// Score gained each time the tokens grow by the factor e.
    pub b: Coefficient,
    /// Fewest tokens for which the curve holds.
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub t_min: i64,
    /// Most tokens for which the curve holds.
    #[schemars(range(min = 1, max = limits::CONTEXT_TOKENS))]
    pub t_max: i64,
}

/// One place where a variant may run.
#[derive(Serialize, Deserialize, KubeSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Name of a HardwareClass; once per variant.
    #[schemars(length(min = 1, max = limits::CLASS_NAME), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub class: String,
    /// Devices that one replica holds.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = limits::DEVICES_PER_REPLICA))]
    pub devices_per_replica: i32,
    /// Name of a measured performance profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::SUBDOMAIN))]
    pub profile: Option<String>,
}

/// Devices of a replica when none are given.
fn one() -> i32 {
    1
}
