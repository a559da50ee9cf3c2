//! Measures how good an OpenAI endpoint's answers are at how many tokens, and draws the curves.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use quartermaster_core::units::NanoUsd;
use quartermaster_e2e::evaluate::{self, Asking, CHOICES_MAX, Journal, PriceBook, Run, Served, ServedFile, Targets};
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "model"], requires_all = ["checkpoint", "precision"])]
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
    /// Most tokens of an answer: one pass over the items each.
    #[arg(long, value_delimiter = ',', default_value = "12,16,24,32,48,64,96,128,192,256")]
    budgets: Vec<u32>,
    /// Answers to each question; more than one for self-consistency, with a temperature.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CHOICES_MAX.into()))]
    choices: u32,
    /// Of the draw; 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Requests at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,
    /// Ask for no log probabilities: for servers that refuse them. Then nothing is said of confidence.
    #[arg(long)]
    no_logprobs: bool,
    /// Name of the limit of tokens in a request; some servers want max_completion_tokens.
    #[arg(long, value_name = "FIELD", default_value = "max_tokens")]
    limit_name: String,
    /// A system message for models that do not know these tasks, such as "Solve it step by step. End with =ANSWER."
    #[arg(long, value_name = "TEXT", default_value = "")]
    instruction: String,
    /// Dollars for a million tokens, by variant: {"variants": {"q8-0": {"promptPerMillion": "0.02", "completionPerMillion": "0.10"}}}.
    #[arg(long, value_name = "JSON", required_unless_present = "dollars_per_hour")]
    price_book: Option<PathBuf>,
    /// What this machine costs an hour, instead of a price book: the run costs what the machine does for as long as it takes,
    /// shared among its tokens by what a token of a question and of an answer cost the server.
    #[arg(long, value_name = "DOLLARS", requires = "gguf", conflicts_with = "price_book")]
    dollars_per_hour: Option<NanoUsd>,
    /// The trained model that the file was made of, for its card.
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,
    /// The file's precision, for its card.
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
    /// Where the outcomes go. A run that breaks off leaves its answers beside it, and goes on from them.
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
    /// Folder for model cards of the files that were served.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
    /// What train.py said of each training: adds a table of them, and what our own family is to show.
    #[arg(long, value_name = "JSON", num_args = 1..)]
    training: Vec<PathBuf>,
    /// Where a ModelDeployment of the files that were served goes.
    #[arg(long, value_name = "YAML")]
    example: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Run(args) => run(args).await,
        Task::Report(args) => {
            let runs = args.runs.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>>>()?;
            let targets = Targets {
                data: &args.data,
                pictures: &args.pictures,
                training: &args.training,
                cards: args.cards.as_deref(),
                example: args.example.as_deref(),
            };
            print!("{}", evaluate::report(&runs, &args.tasks, &targets)?);
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
    let named = args.gguf.as_deref().zip(args.checkpoint.zip(args.precision));
    let file = named.map(|(file, (checkpoint, precision))| ServedFile::of(file, checkpoint, precision)).transpose()?;
    let served = match args.gguf {
        Some(file) => Some(Served::start(&server, file).await?),
        None => None,
    };
    let price = match (&served, args.dollars_per_hour, args.price_book) {
        (Some(served), Some(per_hour), _) => served.price(per_hour).await?,
        (_, _, Some(book)) => PriceBook::read(&book)?.price(&args.variant)?,
        _ => bail!("neither --price-book nor --gguf with --dollars-per-hour"),
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
        instruction: args.instruction,
        price,
        logprobs: !args.no_logprobs,
        limit_name: args.limit_name,
    };
    let narrator = Narrator::on_stderr();
    // Of a served file the address is another one each time, and the price is worked out at the end.
    let of = file.as_ref().map_or_else(|| asking.endpoint.clone(), |file| file.sha256.clone());
    let Asking { model, variant, choices, temperature, instruction, .. } = &asking;
    let identity = format!("{of} {model} {variant} {choices} {temperature} {instruction}");
    let journal = Journal::open(&args.out, &identity)?;
    let run = evaluate::run(&asking, &items, journal, &narrator).await?;
    let mut run = match args.dollars_per_hour {
        Some(per_hour) => run.on_machine(per_hour)?,
        None => run,
    };
    let right = run.outcomes.iter().filter(|outcome| outcome.right).count();
    narrator.say(format_args!("{} of {} answers are right, in {:.0} s", right, run.outcomes.len(), run.seconds));
    run.file = file;
    run.write(&args.out)?;
    Journal::done(&args.out)
}
