//! The command line.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Keeps the book of token budgets: holds, settlements, usage and spend.
#[derive(Clone, Debug, Parser)]
#[command(name = "quartermaster-ledger", version)]
pub struct Args {
    /// Where the internal API listens (HTTP/1.1 and HTTP/2 without TLS)
    #[arg(long, env = "QM_LISTEN", default_value = "0.0.0.0:7070")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics listen
    #[arg(long, env = "QM_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// Directory of the database; one ledger at a time
    #[arg(long, env = "QM_DATA_DIR", default_value = "/var/lib/quartermaster")]
    pub data_dir: PathBuf,
    /// File with the bearer token that callers must send
    #[arg(long, env = "QM_INTERNAL_TOKEN_FILE")]
    pub internal_token_file: PathBuf,
    /// What to log, such as `info` or `quartermaster_ledger=debug,info`
    #[arg(long, env = "QM_LOG", default_value = "info")]
    pub log: String,
}
