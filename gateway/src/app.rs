//! What all requests share.

use crate::args::Args;
use crate::book::Book;
use crate::catalogue::Catalogue;
use crate::client::{self, Http, Token};
use crate::deadline::Deadline;
use crate::ledger::Ledger;
use crate::limits;
use crate::meter::Setting;
use crate::metrics::Metrics;
use crate::tokenizer::Tokenizers;
use crate::upstream::pool::Pool;
use crate::wake::Wakes;
use anyhow::Context;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The state of one gateway process.
#[derive(Debug)]
pub struct App {
    /// The snapshot in use.
    pub catalogue: Catalogue,
    /// Series.
    pub metrics: Arc<Metrics>,
    /// Connections to replicas and to our own components.
    pub http: Http,
    /// Shown to our own components.
    pub token: Token,
    /// The operator, without a slash at the end.
    pub operator_url: String,
    /// The ledger.
    pub ledger: Ledger,
    /// Open holds.
    pub book: Arc<Book>,
    /// Prompt counters.
    pub tokenizers: Tokenizers,
    /// Load and health of replicas.
    pub pool: Pool,
    /// Wakes in progress.
    pub wakes: Wakes,
    /// One permit per request.
    pub requests: Arc<Semaphore>,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// Local disk.
    pub state_dir: PathBuf,
    stopping: Arc<AtomicBool>,
}

impl App {
    /// Opens everything that is local; talks to nobody yet.
    pub fn new(args: &Args) -> anyhow::Result<Arc<Self>> {
        let token = Token::read(&args.internal_token_file)
            .with_context(|| format!("reading --internal-token-file {}", args.internal_token_file.display()))?;
        let (metrics, http) = (Arc::new(Metrics::default()), client::pool());
        let ledger = Ledger::new(http.clone(), &args.ledger_url, token.clone(), Arc::clone(&metrics));
        let book = Book::start(&args.state_dir, ledger.clone(), Arc::clone(&metrics))
            .with_context(|| format!("opening the journal in --state-dir {}", args.state_dir.display()))?;
        Ok(Arc::new(Self {
            catalogue: Catalogue::new(Arc::clone(&metrics)),
            metrics,
            tokenizers: Tokenizers::new(args.state_dir.join("tokenizers"), http.clone()),
            http,
            token,
            operator_url: args.operator_url.trim_end_matches('/').to_owned(),
            ledger,
            book,
            pool: Pool::default(),
            wakes: Wakes::default(),
            requests: Arc::new(Semaphore::new(limits::REQUESTS_MAX)),
            request_timeout: Duration::from_secs(args.request_timeout_seconds),
            state_dir: args.state_dir.clone(),
            stopping: Arc::default(),
        }))
    }

    /// What the meter of a request needs.
    pub fn setting(&self, deadline: Deadline) -> Setting {
        let (book, metrics) = (Arc::clone(&self.book), Arc::clone(&self.metrics));
        Setting { book, metrics, stopping: Arc::clone(&self.stopping), deadline }
    }

    /// From here on, readiness fails and requests that are cut off are ours to blame.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway stops.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
