//! Embeddings from a language model: the mean of its last hidden states, of length 1. Computed on a thread and a small
//! context of their own, made for the first request; answers that are being generated share only the cores with it.

use super::EngineError;
use super::llama::{LlamaWeights, turn};
use super::raw::share_threads;
use crate::limits::EMBEDDING_ROWS;
use crate::memory::Load;
use crate::sampler::Token;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

type Answer = Result<Vec<f32>, EngineError>;

/// A text to embed. Who no longer waits drops the receiver.
struct Job {
    tokens: Vec<Token>,
    answer: oneshot::Sender<Answer>,
}

struct Thread {
    jobs: Sender<Job>,
    handle: JoinHandle<()>,
}

/// Embeds texts, one after the other. Dropping it frees its memory before the drop returns.
pub struct Embedder {
    weights: LlamaWeights,
    load: Load,
    threads: usize,
    thread: Mutex<Option<Thread>>,
}

impl Embedder {
    /// Takes no memory yet.
    #[must_use]
    pub fn new(weights: LlamaWeights, load: Load, threads: usize) -> Self {
        Self { weights, load, threads, thread: Mutex::default() }
    }

    /// Most tokens of one text.
    #[must_use]
    pub fn tokens_max(&self) -> u32 {
        self.load.context
    }

    /// Embeds a text of 1 to [`Embedder::tokens_max`] tokens.
    ///
    /// # Errors
    /// Where the system gives no thread, or llama.cpp fails.
    pub async fn embed(&self, tokens: Vec<Token>) -> Answer {
        let failed = |cause: String| EngineError { attempt: "embedding a text", cause };
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs().map_err(|error| failed(error.to_string()))?;
        jobs.send(Job { tokens, answer }).map_err(|_| failed("its thread has ended".into()))?;
        answered.await.map_err(|_| failed("its thread has ended".into()))?
    }

    fn jobs(&self) -> std::io::Result<Sender<Job>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.as_ref() {
            return Ok(thread.jobs.clone());
        }
        let (jobs, inbox) = channel();
        let (weights, load, threads) = (self.weights.clone(), self.load, self.threads);
        let handle = std::thread::Builder::new().name("embed".into());
        let handle = handle.spawn(move || serve(&weights, load, threads, &inbox))?;
        *thread = Some(Thread { jobs: jobs.clone(), handle });
        Ok(jobs)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Thread { jobs, handle }) = thread {
            drop(jobs);
            // Nobody waits for an answer any more, so it ends at once; a panic in it was logged.
            drop(handle.join());
        }
    }
}

fn serve(weights: &LlamaWeights, load: Load, threads: usize, inbox: &Receiver<Job>) {
    let mut context = context(weights, load, threads);
    for Job { tokens, answer } in inbox {
        let result = match &mut context {
            Ok(context) => embed(context, &tokens, &answer),
            Err(error) => Err(error.clone()),
        };
        drop(answer.send(result));
    }
}

fn context(weights: &LlamaWeights, load: Load, threads: usize) -> Result<LlamaContext<'_>, EngineError> {
    let failed = |cause: String| EngineError { attempt: "creating a context for embeddings", cause };
    let tokens = u32::try_from(load.cells()).ok().and_then(NonZeroU32::new);
    let threads = i32::try_from(threads).map_err(|error| failed(error.to_string()))?;
    let params = LlamaContextParams::default()
        .with_n_ctx(Some(tokens.ok_or_else(|| failed("it would be empty".into()))?))
        .with_n_batch(EMBEDDING_ROWS)
        .with_n_ubatch(EMBEDDING_ROWS)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_embeddings(true)
        // Pooled here: llama.cpp would pool each batch on its own.
        .with_pooling_type(LlamaPoolingType::None)
        .with_no_perf(true);
    let mut context = weights.context(params).map_err(failed)?;
    share_threads(&mut context, threads);
    Ok(context)
}

fn embed(context: &mut LlamaContext<'_>, tokens: &[Token], answer: &oneshot::Sender<Answer>) -> Answer {
    let failed = |cause: String| EngineError { attempt: "embedding a text", cause };
    let rows = usize::try_from(EMBEDDING_ROWS).map_err(|error| failed(error.to_string()))?;
    let mut batch = LlamaBatch::new(rows, 1);
    let mut sum: Vec<f32> = Vec::new();
    let mut position = 0;
    context.clear_kv_cache();
    for chunk in tokens.chunks(rows) {
        if answer.is_closed() {
            return Err(failed("nobody waits for it any more".into()));
        }
        batch.clear();
        for token in chunk {
            batch.add(LlamaToken(*token), position, &[0], true).map_err(|error| failed(error.to_string()))?;
            position += 1;
        }
        let turn = turn();
        context.decode(&mut batch).map_err(|error| failed(error.to_string()))?;
        drop(turn);
        for (row, _) in (0..).zip(chunk) {
            let states = context.embeddings_ith(row).map_err(|error| failed(error.to_string()))?;
            sum.resize(states.len(), 0.0);
            sum.iter_mut().zip(states).for_each(|(sum, state)| *sum += state);
        }
    }
    unit(sum).ok_or_else(|| failed("the model's states are no numbers".into()))
}

/// Of length 1, so that it does not matter by what a mean was divided.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    (length.is_finite() && length > 0.0).then_some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_gets_length_one_or_is_none() {
        assert_eq!(unit(vec![3.0, -4.0]), Some(vec![0.6, -0.8]));
        assert_eq!(unit(vec![0.0, 0.0]), None);
        assert_eq!(unit(vec![f32::NAN]), None);
    }
}
