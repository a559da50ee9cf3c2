//! llama.cpp through `llama-cpp-2`.

use super::raw::{share_threads, with_outputs};
use super::{Engine, EngineError, Row, Vocabulary};
use crate::kv::{KvOp, Sequence, Sharing};
use crate::memory::{KvPrecision, Load};
use crate::sampler::Token;
use crate::tokenizer::Specials;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, StateSeqError, send_logs_to_tracing};
use parking_lot::{FairMutex, FairMutexGuard};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// llama.cpp's numbers for its flash attention policy.
const FLASH_ATTENTION_OFF: i32 = 0;
const FLASH_ATTENTION_ON: i32 = 1;

/// All layers, in a build that has a GPU's code; llama.cpp falls back to the CPU where there is no GPU.
const GPU_LAYERS: u32 = if cfg!(any(feature = "cuda", feature = "rocm", feature = "vulkan")) { 999 } else { 0 };

/// The process-wide state of llama.cpp, made once; its log goes to ours.
pub(crate) fn backend() -> Result<&'static LlamaBackend, EngineError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let made = BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|cause| EngineError { attempt: "starting llama.cpp", cause: cause.clone() })
}

/// The turn of one context to compute. The threads of a context wait for each other by spinning: where two contexts compute
/// at once, each has threads that spin while those that they wait for have no core, and a step takes seconds. The lock is
/// fair, so that an engine that serves waits for one step of another at most.
pub(super) fn turn() -> FairMutexGuard<'static, ()> {
    static TURN: FairMutex<()> = FairMutex::new(());
    TURN.lock()
}

/// A loaded model: weights and vocabulary.
#[derive(Clone, Debug)]
pub struct LlamaWeights {
    model: Arc<LlamaModel>,
    longest_token_bytes: usize,
}

impl LlamaWeights {
    /// Loads a file that [`crate::gguf::Gguf::open`] accepted.
    ///
    /// # Errors
    /// Where llama.cpp refuses it; its log says why.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        // Read, not mapped: tensors that llama.cpp repacks for this CPU would be held twice, and mapped pages beyond the
        // container's limit would be read again and again instead of being refused at the start.
        let params = LlamaModelParams::default().with_use_mmap(false).with_n_gpu_layers(GPU_LAYERS);
        let model = LlamaModel::load_from_file(backend()?, path, &params)
            .map_err(|error| EngineError { attempt: "loading the model file", cause: error.to_string() })?;
        let vocab = model.vocab();
        let longest = vocab.tokens().map(|token| vocab.token_to_piece(token, true, None).len()).max();
        let longest_token_bytes = longest.unwrap_or(1).max(1);
        Ok(Self { model: Arc::new(model), longest_token_bytes })
    }

    /// Reads the vocabulary alone, which is where llama.cpp aborts on what it does not expect.
    ///
    /// # Errors
    /// Where llama.cpp refuses it.
    pub fn check(path: &Path) -> Result<(), EngineError> {
        let params = LlamaModelParams::default().with_vocab_only(true);
        LlamaModel::load_from_file(backend()?, path, &params)
            .map(drop)
            .map_err(|error| EngineError { attempt: "reading the model file", cause: error.to_string() })
    }

    /// Size of the vocabulary.
    #[must_use]
    pub fn vocabulary_tokens(&self) -> usize {
        usize::try_from(self.model.n_vocab()).unwrap_or_default()
    }

    /// A context on these weights; else what llama.cpp said.
    pub(super) fn context(&self, params: LlamaContextParams) -> Result<LlamaContext<'_>, String> {
        let backend = backend().map_err(|error| error.to_string())?;
        self.model.new_context(backend, params).map_err(|error| error.to_string())
    }

    /// An engine on these weights.
    ///
    /// # Errors
    /// Where llama.cpp can't allocate what `load` needs.
    pub fn engine(&self, load: Load, threads: usize) -> Result<LlamaEngine<'_>, EngineError> {
        let failed = |cause: String| EngineError { attempt: "creating the engine's context", cause };
        let tokens = load.cells();
        let context = u32::try_from(tokens).ok().and_then(NonZeroU32::new);
        let context = context.ok_or_else(|| failed(format!("{tokens} tokens of context")))?;
        let threads = i32::try_from(threads).map_err(|error| failed(error.to_string()))?;
        let flash = if load.flash_attention { FLASH_ATTENTION_ON } else { FLASH_ATTENTION_OFF };
        let kv = match load.kv {
            KvPrecision::F16 => KvCacheType::F16,
            KvPrecision::Q8_0 => KvCacheType::Q8_0,
        };
        let params = LlamaContextParams::default()
            .with_n_ctx(Some(context))
            .with_n_seq_max(load.sequences)
            .with_kv_unified(load.sharing == Sharing::Cells)
            .with_n_batch(load.batch())
            .with_n_ubatch(load.batch())
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_type_k(kv)
            .with_type_v(kv)
            .with_flash_attention_policy(flash)
            .with_no_perf(true);
        let mut context = self.context(with_outputs(load.outputs(), params)).map_err(failed)?;
        share_threads(&mut context, threads);
        let rows = usize::try_from(load.batch()).map_err(|error| failed(error.to_string()))?;
        let outputs = usize::try_from(load.outputs()).map_err(|error| failed(error.to_string()))?;
        Ok(LlamaEngine { context, batch: LlamaBatch::new(rows, 1), sharing: load.sharing, outputs })
    }
}

impl Vocabulary for LlamaWeights {
    fn tokenize(&self, text: &str) -> Vec<Token> {
        // llama.cpp knows no empty text: it asserts.
        if text.is_empty() {
            return Vec::new();
        }
        self.model.vocab().tokenize(text.as_bytes(), false, true).into_iter().map(|token| token.0).collect()
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        self.model.vocab().token_to_piece(LlamaToken(token), false, None)
    }

    fn ends(&self, token: Token) -> bool {
        self.model.vocab().is_eog(LlamaToken(token))
    }

    fn specials(&self) -> Specials {
        let vocab = self.model.vocab();
        let known = |token: LlamaToken| (token.0 >= 0).then_some(token.0);
        Specials {
            bos: known(vocab.bos()),
            eos: known(vocab.eos()),
            add_bos: vocab.should_add_bos(),
            add_eos: vocab.should_add_eos(),
        }
    }

    fn longest_token_bytes(&self) -> usize {
        self.longest_token_bytes
    }

    fn tokens(&self) -> usize {
        self.vocabulary_tokens()
    }
}

/// A context: KV cache and buffers for many sequences.
#[derive(Debug)]
pub struct LlamaEngine<'model> {
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    sharing: Sharing,
    /// Rows whose logits there is room for.
    outputs: usize,
}

fn sequence_id(sequence: Sequence) -> Result<i32, EngineError> {
    i32::try_from(sequence).map_err(|error| EngineError { attempt: "naming a sequence", cause: error.to_string() })
}

fn position(tokens: usize) -> Result<u32, EngineError> {
    u32::try_from(tokens).map_err(|error| EngineError { attempt: "counting tokens", cause: error.to_string() })
}

impl Engine for LlamaEngine<'_> {
    fn step(&mut self, rows: &[Row], read: &mut dyn FnMut(usize, &[f32])) -> Result<Duration, EngineError> {
        let failed = |cause: String| EngineError { attempt: "computing a batch", cause };
        let wanted = rows.iter().filter(|row| row.logits).count();
        if wanted > self.outputs {
            // llama.cpp would end the process.
            return Err(failed(format!("the logits of {wanted} rows; there is room for {}", self.outputs)));
        }
        self.batch.clear();
        // Sequences with cells of their own are computed together as far as their numbers follow on; a batch in another order
        // falls apart into many passes.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|index| rows.get(*index).map(|row| row.sequence));
        for row in order.iter().filter_map(|index| rows.get(*index)) {
            let position = i32::try_from(row.position).map_err(|error| failed(error.to_string()))?;
            let sequence = sequence_id(row.sequence)?;
            self.batch
                .add(LlamaToken(row.token), position, &[sequence], row.logits)
                .map_err(|error| failed(error.to_string()))?;
        }
        let turn = turn();
        let begin = Instant::now();
        self.context.decode(&mut self.batch).map_err(|error| failed(error.to_string()))?;
        let took = begin.elapsed();
        drop(turn);
        for (at, index) in (0..).zip(order) {
            if rows.get(index).is_some_and(|row| row.logits) {
                read(index, self.context.get_logits_ith(at));
            }
        }
        Ok(took)
    }

    fn apply(&mut self, op: KvOp) -> Result<(), EngineError> {
        match op {
            KvOp::Copy { from, to, tokens } => self.copy(from, to, tokens),
            KvOp::Keep { sequence, tokens } => self.keep(sequence, tokens),
        }
    }
}

impl LlamaEngine<'_> {
    /// Gives other sequences the text of `from` in cells of their own.
    ///
    /// # Errors
    /// Where llama.cpp refuses.
    pub fn duplicate(&mut self, from: Sequence, to: Range<Sequence>) -> Result<(), EngineError> {
        let failed = |error: StateSeqError| EngineError { attempt: "duplicating a sequence", cause: error.to_string() };
        let text = self.context.state_seq_get(sequence_id(from)?, LlamaStateSeqFlags::empty()).map_err(failed)?;
        for to in to {
            self.keep(to, 0)?;
            self.context.state_seq_set(&text, sequence_id(to)?).map_err(failed)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: Sequence, to: Sequence, tokens: usize) -> Result<(), EngineError> {
        // Between sequences that have cells of their own, llama.cpp copies all or nothing.
        let end = match self.sharing {
            Sharing::Cells => Some(position(tokens)?),
            Sharing::Copies => None,
        };
        let begin = end.map(|_| 0);
        self.context
            .copy_kv_cache_seq(sequence_id(from)?, sequence_id(to)?, begin, end)
            .map_err(|error| EngineError { attempt: "copying a sequence", cause: error.to_string() })?;
        match self.sharing {
            Sharing::Cells => Ok(()),
            Sharing::Copies => self.keep(to, tokens),
        }
    }

    fn keep(&mut self, sequence: Sequence, tokens: usize) -> Result<(), EngineError> {
        let failed = |cause: String| EngineError { attempt: "cutting a sequence", cause };
        let id = u32::try_from(sequence).map_err(|error| failed(error.to_string()))?;
        match self.context.clear_kv_cache_seq(Some(id), Some(position(tokens)?), None) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(format!("sequence {sequence} can't be cut to {tokens} tokens"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
