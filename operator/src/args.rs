//! Flags and environment.

use clap::{ArgAction, Parser};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Secrets to pull these images with, separated by commas; the namespace of each model has them.
    #[arg(long, env = "QM_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Secret with credentials for models that are fetched (hf://, s3://, gs://, https://), in the namespace of each model; it
    /// may be missing.
    #[arg(long, env = "QM_SOURCES_SECRET", default_value = "quartermaster-sources")]
    pub sources_secret: String,
    /// Whether a NetworkPolicy keeps all but gateways, operators and scrapers away from the replicas of a model.
    #[arg(long, env = "QM_NETWORK_POLICIES", default_value_t = true, action = ArgAction::Set)]
    pub network_policies: bool,
    /// Who scrapes replicas: a JSON list of NetworkPolicyPeers. One without a namespaceSelector is in our own namespace.
    #[arg(long, env = "QM_SCRAPERS", default_value = "[]")]
    pub scrapers: Scrapers,
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

/// Peers that a NetworkPolicy lets in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrapers(pub Vec<NetworkPolicyPeer>);

/// Why a list of peers is none.
#[derive(Debug, thiserror::Error)]
pub enum ScrapersError {
    /// No JSON, or of another shape.
    #[error("it is no JSON list of NetworkPolicyPeers: {0}")]
    Json(#[from] serde_json::Error),
    /// A peer that names nobody; the API server would refuse it.
    #[error("peer {0} has none of namespaceSelector, podSelector and ipBlock")]
    Nobody(usize),
}

impl FromStr for Scrapers {
    type Err = ScrapersError;

    fn from_str(text: &str) -> Result<Self, ScrapersError> {
        let peers: Vec<NetworkPolicyPeer> = serde_json::from_str(text)?;
        match peers.iter().position(|peer| *peer == NetworkPolicyPeer::default()) {
            Some(nobody) => Err(ScrapersError::Nobody(nobody)),
            None => Ok(Self(peers)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(more: &[&str]) -> Result<Args, String> {
        let always = ["quartermaster-operator", "--internal-token-file", "/token"];
        Args::try_parse_from(always.iter().chain(more)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_chart_says_about_pods() {
        let args = parsed(&[]).unwrap();
        assert_eq!((args.image_pull_secrets.len(), args.network_policies, args.scrapers.0.len()), (0, true, 0));
        let peer = r#"[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]"#;
        let args = parsed(&["--scrapers", peer, "--network-policies", "false", "--image-pull-secrets", "a,b"]).unwrap();
        assert_eq!(args.image_pull_secrets, ["a", "b"]);
        assert_eq!((args.network_policies, args.scrapers.0.len()), (false, 1));
        assert!(args.scrapers.0[0].namespace_selector.is_some());
    }

    #[test]
    fn scrapers_that_are_nobody_are_refused() {
        assert!(parsed(&["--scrapers", "monitoring"]).unwrap_err().contains("JSON list"));
        assert!(parsed(&["--scrapers", r#"[{"namespaces": "all"}]"#]).unwrap_err().contains("peer 0"));
    }
}
