//! The subcommands that print an answer and end.

use crate::args::{Args, Command, EstimateArgs, PerplexityArgs};
use crate::cgroup::Limits;
use crate::engine::Vocabulary;
use crate::engine::llama::LlamaWeights;
use crate::exit::{Failure, Reason};
use crate::kv::Sharing;
use crate::memory::{Estimate, Load};
use crate::{perplexity, prepare, quantize, serve};
use serde_json::{Value, json};
use std::path::Path;

/// Runs the chosen subcommand.
///
/// # Errors
/// Why it could not be done; the reason gives the exit code.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Serve(serve_args) => return serve::serve(serve_args),
        Command::Quantize(quantize) => print(&quantize::run(quantize)?),
        Command::Perplexity(args) => print(&measure(args)?),
        Command::Inspect { model } => print(&inspect(model)?),
        Command::Tokenize { model, text } => print(&tokenize(model, text)?),
        Command::Check { model } => {
            prepare::inspect(model)?;
            return LlamaWeights::check(model).map_err(|error| {
                Failure::new(Reason::CorruptModel, format!("model file {}: {error}", model.display()))
            });
        }
        Command::Estimate(args) => print(&estimate(args)?),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer of a command line tool")]
fn print(answer: &Value) {
    println!("{answer}");
}

/// Loads a file that was looked through first.
pub(crate) fn weights(path: &Path) -> Result<LlamaWeights, Failure> {
    prepare::inspect(path)?;
    LlamaWeights::load(path)
        .map_err(|error| Failure::new(Reason::CorruptModel, format!("model file {}: {error}", path.display())))
}

/// Threads as the container's CPU limit feeds them.
pub(crate) fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Limits::of_this_process().threads(cores)
}

fn measure(args: &PerplexityArgs) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(&args.text)
        .map_err(|error| Failure::new(Reason::BadConfig, format!("text {}: {error}", args.text.display())))?;
    let surprises =
        |model: &Path| perplexity::measure(&weights(model)?, &text, args.window, args.threads.unwrap_or_else(threads));
    let own = surprises(&args.model)?;
    let mut answer = json!(perplexity::score(&own));
    if let Some(best) = &args.relative_to {
        answer["relative"] = json!(perplexity::relative(&surprises(best)?, &own));
    }
    Ok(answer)
}

fn inspect(path: &Path) -> Result<Value, Failure> {
    let (gguf, shape) = prepare::inspect(path)?;
    Ok(json!({
        "architecture": shape.architecture, "layers": shape.layers, "embedding": shape.embedding,
        "feedForward": shape.feed_forward, "heads": shape.heads, "vocabulary": shape.vocabulary,
        "contextTokens": shape.context, "kvElementsPerToken": shape.kv_elements_per_token,
        "tensors": gguf.tensors.len(), "tensorBytes": gguf.tensor_bytes(), "fileBytes": gguf.file_bytes,
        "name": gguf.text("general.name"), "licence": gguf.text("general.license"),
        "tokenizer": gguf.text("tokenizer.ggml.model"), "preTokenizer": gguf.text("tokenizer.ggml.pre"),
        "hasChatTemplate": gguf.text("tokenizer.chat_template").is_some(),
    }))
}

fn tokenize(model: &Path, text: &str) -> Result<Value, Failure> {
    let weights = weights(model)?;
    let tokens = weights.tokenize(text);
    let pieces: Vec<_> =
        tokens.iter().map(|token| String::from_utf8_lossy(&weights.piece(*token)).into_owned()).collect();
    Ok(json!({"count": tokens.len(), "tokens": tokens, "pieces": pieces}))
}

fn estimate(args: &EstimateArgs) -> Result<Value, Failure> {
    let (gguf, shape) = prepare::inspect(&args.model)?;
    let load = Load::new(args.context, args.slots, args.flash_attention, Sharing::Cells);
    Ok(json!(Estimate::of(&gguf, &shape, load)))
}
