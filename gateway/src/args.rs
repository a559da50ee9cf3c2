//! Flags and environment.

use crate::limits;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serves the OpenAI API inside token budgets: identifies, counts, reserves at the ledger, routes to a replica, meters.
#[derive(Clone, Debug, Parser)]
#[command(name = "quartermaster-gateway", version, about)]
pub struct Args {
    /// Where clients connect (OpenAI API).
    #[arg(long, env = "QM_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where probes and scrapes connect: /livez, /readyz, /metrics.
    #[arg(long, env = "QM_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// The operator's internal address, such as http://quartermaster-operator:8081.
    #[arg(long, env = "QM_OPERATOR_URL")]
    pub operator_url: String,
    /// The ledger's address, such as http://quartermaster-ledger:7070.
    #[arg(long, env = "QM_LEDGER_URL")]
    pub ledger_url: String,
    /// File with the bearer token that our components show each other.
    #[arg(long, env = "QM_INTERNAL_TOKEN_FILE")]
    pub internal_token_file: PathBuf,
    /// Local disk for the last snapshot, tokenizers and the journal of open holds. One gateway each.
    #[arg(long, env = "QM_STATE_DIR", default_value = "/var/lib/quartermaster")]
    pub state_dir: PathBuf,
    /// After SIGTERM, requests in flight have so long to finish.
    #[arg(long, env = "QM_DRAIN_SECONDS", default_value_t = 60)]
    pub drain_seconds: u64,
    /// A request that is not answered to its end after so long is ended: with 504, or with an error in its stream. What
    /// was generated until then is charged.
    #[arg(long, env = "QM_REQUEST_TIMEOUT_SECONDS", default_value_t = limits::REQUEST_TIMEOUT_SECONDS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=limits::REQUEST_TIMEOUT_SECONDS_MAX))]
    pub request_timeout_seconds: u64,
    /// Threads that serve clients; 0 means one per core.
    #[arg(long, env = "QM_THREADS", default_value_t = 0)]
    pub threads: usize,
}
