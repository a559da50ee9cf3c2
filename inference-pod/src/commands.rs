//! The subcommands that print an answer and end.

use crate::args::{Args, Command, EstimateArgs, FetchArgs, PerplexityArgs};
use crate::cgroup::Limits;
use crate::engine::Vocabulary;
use crate::engine::llama::LlamaWeights;
use crate::exit::{Failure, Reason, TerminationLog};
use crate::kv::Sharing;
use crate::memory::{Estimate, Load};
use crate::source::{self, Digest, Request, SourceError};
use crate::{perplexity, prepare, pull, quantize, serve};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

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
        Command::Fetch(args) => {
            let fetched = fetch(args);
            // An init container's last words are the model's condition.
            print(&fetched.inspect_err(|failure| TerminationLog::new(None).end(Some(failure)))?);
        }
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
    if args.greedy {
        let threads = args.threads.unwrap_or_else(threads);
        return Ok(json!(perplexity::likeliest(&weights(&args.model)?, &text, args.window, threads)?));
    }
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

fn fetch(args: &FetchArgs) -> Result<Value, Failure> {
    let begin = Instant::now();
    let sha256 = args.sha256.as_deref().map(Digest::parse).transpose()?;
    let fetched = source::fetch(&Request { source: args.source.clone(), sha256 }, &args.options.options())?;
    if let Some(out) = &args.out {
        place(&fetched.path, out).map_err(|error| SourceError::local("writing the file", out, &error))?;
        pull::took(out, begin.elapsed());
    }
    Ok(json!({
        "path": args.out.as_ref().unwrap_or(&fetched.path), "bytes": fetched.bytes,
        "sha256": fetched.digest.map(|digest| digest.to_string()), "fetchedBytes": fetched.fetched_bytes,
        "cached": fetched.is_cached(),
    }))
}

/// Makes a file appear at another place, whole or not at all.
fn place(file: &Path, out: &Path) -> io::Result<()> {
    let beside = out.with_added_extension(format!("{}.tmp", std::process::id()));
    let placed = fs::hard_link(file, &beside).or_else(|_| fs::copy(file, &beside).map(|_| ()));
    let placed = placed.and_then(|()| fs::rename(&beside, out));
    // A rename of one file to another name of itself does nothing, and leaves both.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => placed.and(Err(error)),
        _ => placed,
    }
}
