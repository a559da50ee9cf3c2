//! Measures how good an OpenAI endpoint's answers are at how many tokens, and draws the curves.

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use quartermaster_e2e::evaluate::{self, Asking, PriceBook, Run, Served};
use quartermaster_e2e::narrator::Narrator;
use std::path::PathBuf;

/// Accuracy over tokens, on tasks whose answers are exact.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Ask an endpoint every item at every budget of tokens, and write what came of it as JSON.
    Run(RunArgs),
    /// Make curves, tables and pictures of runs. The tables go to the standard output.
    Report(ReportArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where the API is, without /v1.
    #[arg(long, value_name = "URL", required_unless_present = "gguf", requires = "model")]
    endpoint: Option<String>,
    /// A file to be served by our own inference server, instead of an endpoint.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "model"])]
    gguf: Option<PathBuf>,
    /// API key.
    #[arg(long, env = "OPENAI_API_KEY", default_value = "", hide_env_values = true)]
    key: String,
    /// `model` of each request to the endpoint.
    #[arg(long)]
    model: Option<String>,
    /// Name of the variant in the results and the price book.
    #[arg(long)]
    variant: String,
    /// Task sets: one JSON object a line.
    #[arg(long, value_name = "JSONL", required = true, num_args = 1..)]
    items: Vec<PathBuf>,
    /// Ask the first so many of each set only.
    #[arg(long)]
    limit: Option<usize>,
    /// Most tokens to think for: one pass over the items each.
    #[arg(long, value_delimiter = ',', default_value = "0,2,4,8,16,32,64,128")]
    budgets: Vec<u32>,
    /// Answers to each question; more than one for self-consistency, with a temperature.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    choices: u32,
    /// Of the draw; 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Requests at once.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Dollars for a million tokens, by variant: {"variants": {"q8-0": {"promptPerMillion": "0.02", "completionPerMillion": "0.10"}}}.
    #[arg(long, value_name = "JSON")]
    price_book: PathBuf,
    /// Where the outcomes go.
    #[arg(long, value_name = "JSON")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// Outcomes of `evaluate run`; several of one variant are training runs of it.
    #[arg(required = true, value_name = "JSON")]
    runs: Vec<PathBuf>,
    /// Name of the task set.
    #[arg(long)]
    tasks: String,
    /// Folder for quality.json.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the pictures.
    #[arg(long, value_name = "DIR")]
    pictures: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Run(args) => run(args).await,
        Task::Report(args) => {
            let runs = args.runs.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>>>()?;
            print!("{}", evaluate::report(&runs, &args.tasks, &args.data, &args.pictures)?);
            Ok(())
        }
    }
}

async fn run(args: RunArgs) -> Result<()> {
    ensure!(args.choices == 1 || args.temperature > 0.0, "--choices {} needs a --temperature above 0", args.choices);
    let mut items = Vec::new();
    for path in &args.items {
        items.extend(evaluate::load(path)?.into_iter().take(args.limit.unwrap_or(usize::MAX)));
    }
    let server = std::env::current_exe()?.with_file_name("quartermaster-inference-pod");
    let served = match args.gguf {
        Some(file) => Some(Served::start(&server, file).await?),
        None => None,
    };
    let asked = served.as_ref().map(|served| (served.endpoint().to_owned(), served.model().to_owned()));
    let (endpoint, model) = asked.or_else(|| args.endpoint.zip(args.model)).context("neither --endpoint nor --gguf")?;
    let asking = Asking {
        endpoint,
        key: args.key,
        model,
        variant: args.variant,
        budgets: args.budgets,
        choices: args.choices,
        temperature: args.temperature,
        concurrency: args.concurrency,
        prices: PriceBook::read(&args.price_book)?,
    };
    let narrator = Narrator::on_stderr();
    let run = evaluate::run(&asking, &items, &narrator).await?;
    let right = run.outcomes.iter().filter(|outcome| outcome.right).count();
    narrator.say(format_args!("{} of {} answers are right, in {:.0} s", right, run.outcomes.len(), run.seconds));
    run.write(&args.out)
}
