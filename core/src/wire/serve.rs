//! Operator → inference pod (`serve.json`), and inference pod → operator → gateway (the tokenizer).

use serde::{Deserialize, Serialize};

/// Header of a request to an inference pod: whose it is, for fairness between tenants (llm-d's name).
pub const TENANT_HEADER: &str = "x-gateway-inference-fairness-id";
/// Header of a request to an inference pod: 0 to 1000, higher is served first.
pub const PRIORITY_HEADER: &str = "x-quartermaster-priority";
/// Priority of a request without [`PRIORITY_HEADER`].
pub const PRIORITY_DEFAULT: u16 = 500;

/// What one inference pod serves: the file `serve.json` in its ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServeConfig {
    /// The name that clients use, and the label `model_name` of the metrics.
    pub model: String,
    /// Namespace of the ModelDeployment.
    pub namespace: String,
    /// Every variant that this hardware class may serve.
    pub variants: Vec<VariantFile>,
    /// Name of the variant to serve, one of `variants`.
    pub variant: String,
    /// Name of the variant that guesses ahead for the others, one of `variants` with the same tokenizer; absent means that
    /// nothing is guessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// Tokens that one request may hold: prompt and completion together.
    pub context_tokens: u32,
    /// Requests decoded side by side.
    pub slots: u32,
    /// The pod's memory limit; absent means the container's own limit alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// HardwareClass that the pod runs on.
    pub hardware_class: String,
    /// Devices of that class that the pod holds.
    pub devices: u32,
    /// Threads of the engine; absent means as many as the container's CPU limit feeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

impl ServeConfig {
    /// The file of the variant to serve, or `None` where `variant` names none of `variants`.
    #[must_use]
    pub fn served(&self) -> Option<&VariantFile> {
        self.file(&self.variant)
    }

    /// The file of the variant that guesses ahead for the served one; that one does not guess for itself.
    #[must_use]
    pub fn drafting(&self) -> Option<&VariantFile> {
        self.draft.as_deref().filter(|draft| *draft != self.variant).and_then(|draft| self.file(draft))
    }

    fn file(&self, name: &str) -> Option<&VariantFile> {
        self.variants.iter().find(|file| file.name == name)
    }
}

/// A variant's model file inside the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantFile {
    /// Name in `ModelDeployment.spec.variants`.
    pub name: String,
    /// Absolute path of the GGUF file in the container.
    pub path: String,
    /// Precision as declared, for people.
    pub precision: String,
}

/// Everything that the gateway needs to count a prompt's tokens exactly as the engine does.
///
/// A prompt's tokens are: `bos_token` where [`TokenizerBundle::needs_bos`] says so, then `tokenizer_json` applied to the
/// text without adding special tokens (its post-processor adds none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenizerBundle {
    /// SHA-256 of [`TokenizerBundle::content`], in hex: the bundle's name everywhere.
    pub hash: String,
    /// A Hugging Face `tokenizer.json`, as text.
    pub tokenizer_json: String,
    /// The model's Jinja chat template; absent means that chat requests are refused.
    pub chat_template: Option<String>,
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends one.
    pub eos_token: Option<String>,
    /// Whether the model expects `bos_token` before each prompt.
    pub add_bos: bool,
    /// Whether the model expects `eos_token` after each prompt.
    pub add_eos: bool,
    /// Context that the model was trained for.
    pub context_tokens: u32,
}

impl TokenizerBundle {
    /// The bytes that `hash` is taken of: every other field, each with its length before it.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let flags = format!("{} {} {}", self.add_bos, self.add_eos, self.context_tokens);
        let texts = [
            Some(self.tokenizer_json.as_str()),
            self.chat_template.as_deref(),
            self.bos_token.as_deref(),
            self.eos_token.as_deref(),
            Some(flags.as_str()),
        ];
        let mut out = Vec::with_capacity(self.tokenizer_json.len());
        for text in texts {
            let length = text.map_or_else(|| "-".to_owned(), |text| text.len().to_string());
            out.extend_from_slice(length.as_bytes());
            out.push(b'\n');
            out.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
        out
    }

    /// Whether one `bos_token` goes before this prompt: the model wants it and a chat template has not written it already.
    #[must_use]
    pub fn needs_bos(&self, prompt: &str) -> bool {
        let written = self.bos_token.as_deref().is_some_and(|bos| !bos.is_empty() && prompt.starts_with(bos));
        self.add_bos && self.bos_token.is_some() && !written
    }

    /// Tokens that stand around the text's own: a begin before it and an end after it, where the model wants them.
    #[must_use]
    pub fn special_tokens(&self, prompt: &str) -> u64 {
        u64::from(self.needs_bos(prompt)) + u64::from(self.add_eos && self.eos_token.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> TokenizerBundle {
        TokenizerBundle {
            hash: String::new(),
            tokenizer_json: "{}".into(),
            chat_template: None,
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            add_bos: true,
            add_eos: false,
            context_tokens: 128,
        }
    }

    #[test]
    fn a_begin_that_the_template_wrote_is_not_added_again() {
        assert!(bundle().needs_bos("hello"));
        assert!(!bundle().needs_bos("<s>hello"));
        assert!(!TokenizerBundle { add_bos: false, ..bundle() }.needs_bos("hello"));
        assert_eq!(TokenizerBundle { add_eos: true, ..bundle() }.special_tokens("hello"), 2);
    }

    #[test]
    fn content_tells_absent_from_empty_and_shifted() {
        let absent = bundle().content();
        let empty = TokenizerBundle { chat_template: Some(String::new()), ..bundle() }.content();
        assert_ne!(absent, empty);
        let left = TokenizerBundle { bos_token: Some("ab".into()), eos_token: Some("c".into()), ..bundle() };
        let right = TokenizerBundle { bos_token: Some("a".into()), eos_token: Some("bc".into()), ..bundle() };
        assert_ne!(left.content(), right.content());
    }

    #[test]
    fn serve_json_reads_with_only_the_required_fields() {
        let config: ServeConfig = serde_json::from_str(
            r#"{"model":"m","namespace":"demo","variants":[{"name":"q8","path":"/models/q8.gguf","precision":"Q8_0"}],
                "variant":"q8","contextTokens":1024,"slots":4,"hardwareClass":"cpu","devices":1,"later":true}"#,
        )
        .unwrap();
        assert_eq!(config.served().map(|file| file.path.as_str()), Some("/models/q8.gguf"));
        assert_eq!(config.memory_limit_bytes, None);
        assert_eq!(config.drafting(), None);
        let drafts = |draft: &str| ServeConfig { draft: Some(draft.into()), variant: "f16".into(), ..config.clone() };
        assert_eq!(drafts("q8").drafting().map(|file| file.name.as_str()), Some("q8"));
        assert_eq!(ServeConfig { variant: "q8".into(), ..drafts("q8") }.drafting(), None, "not for itself");
        assert_eq!(ServeConfig { variant: "q4".into(), ..config }.served(), None);
    }
}
