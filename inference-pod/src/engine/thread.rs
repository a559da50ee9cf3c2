//! An engine's thread, from its model file to its end: load, warm up, serve.

use super::embed::Embedder;
use super::llama::{LlamaEngine, LlamaWeights};
use super::{EngineError, Vocabulary, warm_up};
use crate::api::form::Forms;
use crate::api::state::Loaded;
use crate::driver::{Driver, Message};
use crate::exit::{Failure, Reason, TerminationLog};
use crate::gguf::Gguf;
use crate::limits::QUEUE_PER_SLOT;
use crate::memory::Load;
use crate::metrics::{LoadPhase, Metrics};
use crate::prepare::{Draft, Prepared};
use crate::profile::{self, Profile, Store, Way};
use crate::pull;
use crate::scheduler::Capacity;
use crate::speculation::{Drafter, Policy};
use crate::tokenizer::{self, Specials};
use quartermaster_core::chat::{ChatTemplate, TemplateError};
use quartermaster_core::wire::serve::TokenizerBundle;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;
use tokio::sync::oneshot;

/// What every engine of this process shares.
#[derive(Clone, Debug)]
pub struct Shared {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Last words.
    pub log: TerminationLog,
    /// Threads of an engine.
    pub threads: usize,
    /// Ways to hold the cache that may be taken.
    pub ways: Arc<[Way]>,
    /// Measurements of earlier starts.
    pub profiles: Store,
    /// How many tokens a draft guesses; none lets the measured costs decide.
    pub draft_tokens: Option<u32>,
}

/// An engine that has begun to load.
pub struct Starting {
    /// Once it is warm, or why it never will be.
    pub ready: oneshot::Receiver<Result<Arc<Loaded>, Failure>>,
    /// Once it has ended and its memory is free.
    pub ended: oneshot::Receiver<Result<(), Failure>>,
}

/// Starts the thread. It ends when the last sender of its inbox is gone and its last request is done.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(prepared: Prepared, shared: Shared) -> Result<Starting, Failure> {
    let (say_ready, ready) = oneshot::channel();
    let (say_ended, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let result = run(prepared, &shared, say_ready);
        // Who asked may have gone.
        drop(say_ended.send(result));
    });
    thread.map_err(|error| Failure::new(Reason::SystemFailed, format!("starting the engine's thread: {error}")))?;
    Ok(Starting { ready, ended })
}

type SayReady = oneshot::Sender<Result<Arc<Loaded>, Failure>>;

fn run(prepared: Prepared, shared: &Shared, say_ready: SayReady) -> Result<(), Failure> {
    let weights = match load(&prepared, shared) {
        Ok(weights) => weights,
        Err(failure) => {
            drop(say_ready.send(Err(failure.clone())));
            return Err(failure);
        }
    };
    let failed = |error: EngineError| Failure::new(Reason::EngineFailed, error.to_string());
    let variant = prepared.variant.clone();
    let vocabulary: Arc<dyn Vocabulary> = Arc::new(weights.clone());
    let (inbox, messages) = channel();
    let (engine, load, profile) = match warm(&weights, &prepared, shared) {
        Ok(warm) => warm,
        Err(error) => {
            drop(say_ready.send(Err(failed(error.clone()))));
            return Err(failed(error));
        }
    };
    let draft = prepared.draft.as_ref().and_then(|draft| draft_weights(draft, shared));
    let drafter = draft.as_ref().zip(prepared.draft.as_ref());
    let drafter = drafter.and_then(|(weights, draft)| drafter_of(draft, weights, profile, shared));
    shared.log.clear();
    let driver = Driver::new(engine, Arc::clone(&vocabulary), Arc::clone(&shared.metrics), capacity(load));
    let mut driver = driver.with_drafter(drafter);
    let way = (load.flash_attention, load.sharing);
    let embedder = prepared.embedding.map(|load| Embedder::new(weights.clone(), load, shared.threads));
    let loaded = Loaded { embedder, ..loaded(&prepared, way, vocabulary, inbox) };
    drop(say_ready.send(Ok(Arc::new(loaded))));
    // The vocabulary as text is some megabytes, and of no more use.
    drop(prepared);
    let result = driver.run(&messages).map_err(failed);
    tracing::info!(variant, "the engine has ended");
    result
}

fn load(prepared: &Prepared, shared: &Shared) -> Result<LlamaWeights, Failure> {
    let path = &prepared.gguf.path;
    let corrupt =
        |problem: String| Failure::new(Reason::CorruptModel, format!("model file {}: {problem}", path.display()));
    // Written ahead: where llama.cpp aborts the process on a broken file, this is all that anybody will read.
    shared.log.write_ahead(&corrupt("the engine aborted while it loaded this file; its log says where".into()));
    shared.metrics.phase(LoadPhase::Pull, pull::time_of(path).unwrap_or_default());
    let begin = Instant::now();
    let weights = LlamaWeights::load(path).map_err(|error| corrupt(error.to_string()));
    shared.metrics.phase(LoadPhase::Load, begin.elapsed());
    if weights.is_err() {
        shared.log.clear();
    }
    weights
}

/// An engine as it is quickest here, which has computed something.
fn warm<'w>(
    weights: &'w LlamaWeights,
    prepared: &Prepared,
    shared: &Shared,
) -> Result<(LlamaEngine<'w>, Load, Profile), EngineError> {
    let begin = Instant::now();
    let profile = known_or_measured(weights, &prepared.gguf, prepared.load, &shared.ways, shared)?;
    let load = profile.choose(prepared.load);
    let mut engine = weights.engine(load, shared.threads)?;
    let token = weights.specials().eos.unwrap_or_default();
    warm_up::run(&mut engine, load.slots, load.context, token)?;
    shared.metrics.phase(LoadPhase::WarmUp, begin.elapsed());
    shared.metrics.profile(&profile, load);
    let (variant, threads) = (&prepared.variant, shared.threads);
    tracing::info!(variant, threads, slots = load.slots, seconds = begin.elapsed().as_secs_f64(), ?profile, "warm");
    Ok((engine, load, profile))
}

fn known_or_measured(
    weights: &LlamaWeights,
    gguf: &Gguf,
    load: Load,
    ways: &[Way],
    shared: &Shared,
) -> Result<Profile, EngineError> {
    let allowed = |profile: &Profile| ways.contains(&profile.way());
    let known = shared.profiles.get(gguf, load, shared.threads).filter(allowed);
    if let Some(profile) = known {
        return Ok(profile);
    }
    let profile = profile::measure(weights, load, shared.threads, ways)?;
    shared.profiles.put(gguf, load, shared.threads, profile);
    Ok(profile)
}

/// Answers do not depend on a draft: without one they only come later, so the log is all that says why there is none.
fn draft_weights(draft: &Draft, shared: &Shared) -> Option<LlamaWeights> {
    let begin = Instant::now();
    let loaded = LlamaWeights::load(&draft.gguf.path);
    let loaded = loaded.map_err(|error| tracing::error!(draft = draft.variant, %error, "no guesses")).ok()?;
    shared.metrics.phase(LoadPhase::Draft, begin.elapsed());
    Some(loaded)
}

fn drafter_of<'w>(
    draft: &Draft,
    weights: &'w LlamaWeights,
    served: Profile,
    shared: &Shared,
) -> Option<Drafter<LlamaEngine<'w>>> {
    let ways = [(draft.load.flash_attention, draft.load.sharing)];
    let profile = known_or_measured(weights, &draft.gguf, draft.load, &ways, shared);
    let made = profile.and_then(|profile| Ok((profile, weights.engine(draft.load, shared.threads)?)));
    let (profile, engine) = made.map_err(|error| tracing::error!(draft = draft.variant, %error, "no guesses")).ok()?;
    let policy = Policy::new(served, profile, draft.load.slots, shared.draft_tokens);
    let sequences = usize::try_from(draft.load.slots).unwrap_or(1);
    Some(Drafter::new(engine, sequences, policy))
}

fn capacity(load: Load) -> Capacity {
    let places = usize::try_from(load.slots).unwrap_or(1);
    Capacity {
        places,
        context: usize::try_from(load.context).unwrap_or(usize::MAX),
        queue: places.saturating_mul(QUEUE_PER_SLOT),
        kv: load.capacity(),
    }
}

fn loaded(prepared: &Prepared, way: Way, vocabulary: Arc<dyn Vocabulary>, inbox: Sender<Message>) -> Loaded {
    let specials = vocabulary.specials();
    let bundle = tokenizer::bundle(&prepared.gguf, &specials, prepared.load.context);
    if let Err(error) = &bundle {
        tracing::warn!(%error, "GET /tokenizer will answer 501");
    }
    let rules = bundle.as_ref().map_or_else(|_| rules(prepared, &specials), |bundle| slim(bundle.clone()));
    let template = match &rules.chat_template {
        Some(source) => ChatTemplate::new(source, rules.bos_token.as_deref(), rules.eos_token.as_deref()),
        None => Err(TemplateError::Syntax("the model file has no chat template; use /v1/completions".into())),
    };
    Loaded {
        variant: prepared.variant.clone(),
        way,
        vocabulary,
        bundle: bundle.map(|bundle| serde_json::json!(bundle).to_string().into()),
        template: Arc::new(template),
        rules: Arc::new(rules),
        inbox,
        forms: Forms::default(),
        embedder: None,
    }
}

/// The rules without the vocabulary: llama.cpp holds that already.
fn slim(bundle: TokenizerBundle) -> TokenizerBundle {
    TokenizerBundle { tokenizer_json: String::new(), ..bundle }
}

/// The rules of a model whose tokenizer can't be given away.
fn rules(prepared: &Prepared, specials: &Specials) -> TokenizerBundle {
    let tokens = prepared.gguf.list("tokenizer.ggml.tokens").unwrap_or_default();
    let text = |id: Option<i32>| match tokens.get(usize::try_from(id?).ok()?)? {
        crate::gguf::Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    TokenizerBundle {
        hash: String::new(),
        tokenizer_json: String::new(),
        chat_template: prepared.gguf.text("tokenizer.chat_template").map(str::to_owned),
        bos_token: text(specials.bos),
        eos_token: text(specials.eos),
        add_bos: specials.add_bos,
        add_eos: specials.add_eos,
        context_tokens: prepared.load.context,
    }
}
