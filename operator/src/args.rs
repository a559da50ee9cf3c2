//! Flags and environment.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Reads models, budgets, policies and hardware classes; plans on a tick; is the only writer of cluster state.
#[derive(Clone, Debug, Parser)]
#[command(name = "quartermaster-operator", version, about)]
pub struct Args {
    /// Probes, metrics and debug pages: /livez, /readyz, /metrics, /debug/snapshot, /debug/plan.
    #[arg(long, env = "QM_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where gateways connect: /v1/gateway-snapshot, /v1/wake/{namespace}/{model}.
    #[arg(long, env = "QM_INTERNAL_LISTEN", default_value = "0.0.0.0:8081")]
    pub internal_listen: SocketAddr,
    /// File with the bearer token that our components show each other.
    #[arg(long, env = "QM_INTERNAL_TOKEN_FILE")]
    pub internal_token_file: PathBuf,
    /// The namespace that the operator runs in: its lease, its salt, and where a CostPolicy may have scope Cluster.
    #[arg(long, env = "QM_NAMESPACE", default_value = "quartermaster-system")]
    pub namespace: String,
    /// Name of this replica in the lease; the pod's name. Without it, a random one.
    #[arg(long, env = "QM_IDENTITY")]
    pub identity: Option<String>,
    /// Seconds between two decisions.
    #[arg(long, env = "QM_TICK_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub tick_seconds: u32,
    /// Image of the bundled inference server.
    #[arg(long, env = "QM_INFERENCE_IMAGE", default_value = "quartermaster.dev/inference-pod:dev")]
    pub inference_image: String,
    /// Pull policy of the inference and model images.
    #[arg(long, env = "QM_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Metrics pages of the gateways, separated by commas; every address of a host is asked.
    /// Without it, load is read from the replicas alone and a model at zero is woken by the gateway's call.
    #[arg(long, env = "QM_GATEWAY_METRICS_URL", value_delimiter = ',')]
    pub gateway_metrics_url: Vec<String>,
    /// The ledger, such as http://quartermaster-ledger:7070. Without it, spend is not known and no ceiling can be kept.
    #[arg(long, env = "QM_LEDGER_URL")]
    pub ledger_url: Option<String>,
    /// A Prometheus that has scraped gateways and replicas; then they are not scraped directly.
    #[arg(long, env = "QM_PROMETHEUS_URL")]
    pub prometheus_url: Option<String>,
}
