//! Exact prompt counts: the model's own tokenizer and chat template, fetched once from a replica, kept by content.

use crate::client::{self, Http};
use crate::limits;
use crate::request::parse::Prompt;
use quartermaster_core::chat::{ChatTemplate, TemplateError};
use quartermaster_core::units::Tokens;
use quartermaster_core::wire::gateway::TokenizerRef;
use quartermaster_core::wire::serve::TokenizerBundle;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokenizers::Tokenizer;
use tokio::sync::OnceCell;

/// Why a tokenizer can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Nobody could send it.
    #[error("fetching the tokenizer {hash} from {}: {last}", if *.urls == 0 { "nowhere: no replica is up".to_owned() } else { format!("{urls} addresses") })]
    Unreachable {
        /// Its name.
        hash: String,
        /// How many addresses were tried.
        urls: usize,
        /// The last failure.
        last: String,
    },
    /// It came and is of no use.
    #[error("reading the tokenizer {hash}: {problem}")]
    Broken {
        /// Its name.
        hash: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a prompt can't be counted; the client's fault.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The model is no chat model.
    #[error("this model has no chat template: use /v1/completions")]
    NoTemplate,
    /// The template says no.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer can't read the text.
    #[error("counting the prompt's tokens: {0}")]
    Tokenizer(String),
}

/// A model's tokenizer and chat template, ready to count.
#[derive(Debug)]
pub struct Counter {
    bundle: TokenizerBundle,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Counter {
    /// Builds it from what a replica sent.
    pub fn new(mut bundle: TokenizerBundle) -> Result<Self, TokenizerError> {
        let broken = |problem: String| TokenizerError::Broken { hash: bundle.hash.clone(), problem };
        let tokenizer =
            Tokenizer::from_bytes(bundle.tokenizer_json.as_bytes()).map_err(|error| broken(error.to_string()))?;
        let special = (bundle.bos_token.as_deref(), bundle.eos_token.as_deref());
        let template = bundle.chat_template.as_deref().map(|source| ChatTemplate::new(source, special.0, special.1));
        let template = template.transpose().map_err(|error| broken(error.to_string()))?;
        // Megabytes that live on in the tokenizer.
        bundle.tokenizer_json = String::new();
        Ok(Self { bundle, tokenizer, template })
    }

    /// Tokens of a prompt, as the engine counts them.
    pub fn count(&self, prompt: &Prompt, now: jiff::Timestamp) -> Result<Tokens, CountError> {
        match prompt {
            Prompt::Ids(count) => Ok(*count),
            Prompt::Text(text) => self.prompt(text),
            Prompt::Chat { messages, tools } => {
                let template = self.template.as_ref().ok_or(CountError::NoTemplate)?;
                self.prompt(&template.render_with(messages, tools.as_deref(), now)?)
            }
        }
    }

    fn prompt(&self, text: &str) -> Result<Tokens, CountError> {
        Ok(self.text(text)?.saturating_add(Tokens(self.bundle.special_tokens(text))))
    }

    /// Tokens of a text alone.
    pub fn text(&self, text: &str) -> Result<Tokens, CountError> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|error| CountError::Tokenizer(error.to_string()))?;
        Ok(Tokens(u64::try_from(encoding.len()).unwrap_or(u64::MAX)))
    }
}

type Slot = Arc<OnceCell<Arc<Counter>>>;

/// Tokenizers by hash: in memory, on disk, at a replica.
#[derive(Debug)]
pub struct Tokenizers {
    folder: PathBuf,
    http: Http,
    slots: Mutex<HashMap<String, Slot>>,
}

impl Tokenizers {
    /// Keeps its files in `folder`.
    pub fn new(folder: PathBuf, http: Http) -> Self {
        Self { folder, http, slots: Mutex::default() }
    }

    /// The tokenizer; requests that ask at the same time share one fetch.
    pub async fn get(&self, wanted: &TokenizerRef) -> Result<Arc<Counter>, TokenizerError> {
        let slot = self.slot(&wanted.hash);
        slot.get_or_try_init(|| self.load(wanted)).await.cloned()
    }

    fn slot(&self, hash: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= limits::TOKENIZERS_MAX && !slots.contains_key(hash) {
            // Which ones are still wanted shows soon: they come back from disk.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(hash.to_owned()).or_default())
    }

    async fn load(&self, wanted: &TokenizerRef) -> Result<Arc<Counter>, TokenizerError> {
        let hash = &wanted.hash;
        // The name becomes a file's name.
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TokenizerError::Broken { hash: hash.clone(), problem: "its name is no SHA-256".into() });
        }
        let path = self.folder.join(format!("{hash}.json"));
        if let Ok(bytes) = tokio::fs::read(&path).await
            && let Ok(counter) = build(hash, bytes).await
        {
            return Ok(counter);
        }
        let mut last = "none known".to_owned();
        for url in &wanted.urls {
            match self.fetch(url, hash, &path).await {
                Ok(counter) => return Ok(counter),
                Err(error) => last = format!("{url}: {error}"),
            }
        }
        Err(TokenizerError::Unreachable { hash: hash.clone(), urls: wanted.urls.len(), last })
    }

    async fn fetch(&self, url: &str, hash: &str, path: &Path) -> Result<Arc<Counter>, anyhow::Error> {
        let request = client::get(url, None)?;
        let answer = client::call(&self.http, request, limits::BUNDLE_TIMEOUT, limits::BUNDLE_BYTES_MAX).await?;
        anyhow::ensure!(answer.status.is_success(), "status {}", answer.status);
        let counter = build(hash, answer.body.to_vec()).await?;
        let (path, bytes) = (path.to_owned(), answer.body);
        // Only a cache: a full disk costs a fetch after the next restart, not this request.
        let kept = tokio::task::spawn_blocking(move || crate::disk::replace(&path, &bytes)).await?;
        if let Err(error) = kept {
            tracing::warn!(%hash, %error, "keeping a tokenizer on disk failed");
        }
        Ok(counter)
    }
}

/// Checks content against name and builds the counter, off the event loop: a large vocabulary takes a second.
async fn build(hash: &str, bytes: Vec<u8>) -> Result<Arc<Counter>, TokenizerError> {
    let hash = hash.to_owned();
    let name = hash.clone();
    let built = tokio::task::spawn_blocking(move || {
        let broken = |problem: String| TokenizerError::Broken { hash: hash.clone(), problem };
        let bundle: TokenizerBundle = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        let found = hex::encode(Sha256::digest(bundle.content()));
        if found != hash {
            return Err(broken(format!("its content has the hash {found}")));
        }
        Counter::new(bundle).map(Arc::new)
    });
    built.await.unwrap_or_else(|error| Err(TokenizerError::Broken { hash: name, problem: error.to_string() }))
}
