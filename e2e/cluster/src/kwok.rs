//! Nodes without hardware: KWOK plays their kubelets by stages of ours.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::limits::{KWOK_CONCURRENCY, KWOK_NODES};

/// Marks the nodes that KWOK plays.
pub const NODE_SELECTOR: &str = "kwok.x-k8s.io/node=fake";
/// Stages of nodes and pods.
pub const STAGES: &str = include_str!("kwok-stages.yaml");
const LABEL: &str = "type";
const LABEL_VALUE: &str = "kwok";
const FIELD_MANAGER: &str = "quartermaster-cluster";

/// How many nodes, and what each of them carries: `kwok=N[,resource=count...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KwokNodes {
    /// Nodes.
    pub count: usize,
    /// Capacity of each, by resource; `cpu`, `memory` and `pods` have defaults.
    pub resources: BTreeMap<String, String>,
}

impl FromStr for KwokNodes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let count = parts
            .next()
            .and_then(|part| part.strip_prefix("kwok="))
            .context("write --nodes kwok=N[,resource=count...]")?;
        let count: usize = count.parse().with_context(|| format!("--nodes: {count:?} is no number of nodes"))?;
        ensure!((1..=KWOK_NODES).contains(&count), "--nodes: between 1 and {KWOK_NODES} nodes, not {count}");
        let mut resources: BTreeMap<String, String> = [("cpu", "64"), ("memory", "512Gi"), ("pods", "110")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for part in parts {
            let Some((resource, quantity)) =
                part.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
            else {
                bail!("--nodes: {part:?} is not resource=count, such as nvidia.com/gpu=8");
            };
            resources.insert(resource.to_owned(), quantity.to_owned());
        }
        Ok(Self { count, resources })
    }
}

impl KwokNodes {
    /// Makes the nodes; those of an earlier call with the same number take the new resources.
    pub async fn create(&self, client: kube::Client) -> Result<()> {
        let nodes: Api<Node> = Api::all(client);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        stream::iter(0..self.count)
            .map(|index| self.apply(&nodes, &parameters, index))
            .buffer_unordered(KWOK_CONCURRENCY)
            .try_collect()
            .await
    }

    async fn apply(&self, nodes: &Api<Node>, parameters: &PatchParams, index: usize) -> Result<()> {
        let name = format!("kwok-{index}");
        let node = self.node(&name);
        nodes.patch(&name, parameters, &Patch::Apply(&node)).await.with_context(|| format!("making node {name}"))?;
        let status = json!({ "apiVersion": "v1", "kind": "Node", "status": { "capacity": self.resources, "allocatable": self.resources } });
        nodes
            .patch_status(&name, parameters, &Patch::Apply(&status))
            .await
            .with_context(|| format!("capacity of node {name}"))?;
        Ok(())
    }

    fn node(&self, name: &str) -> serde_json::Value {
        let (key, value) = NODE_SELECTOR.split_once('=').unwrap_or((NODE_SELECTOR, ""));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": { (LABEL): LABEL_VALUE, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
                "annotations": { (key): value },
            },
            // Real pods stay off; what is meant for such nodes tolerates this.
            "spec": { "taints": [{ "key": key, "value": value, "effect": "NoSchedule" }] },
        })
    }

    /// How many of them are Ready.
    pub async fn ready(client: kube::Client) -> Result<usize> {
        let nodes: Api<Node> = Api::all(client);
        let listed = nodes
            .list(&ListParams::default().labels(&format!("{LABEL}={LABEL_VALUE}")))
            .await
            .context("listing KWOK nodes")?;
        Ok(listed.items.iter().filter(|node| is_ready_since(node, Timestamp::UNIX_EPOCH)).count())
    }
}

/// Whether a node has said since then that it is Ready.
pub(crate) fn is_ready_since(node: &Node, since: Timestamp) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.and_then(|condition| condition.last_heartbeat_time.as_ref()).is_some_and(|time| time.0 >= since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_their_resources_are_read() {
        let nodes: KwokNodes = "kwok=3,nvidia.com/gpu=8,cpu=4".parse().unwrap();
        assert_eq!(nodes.count, 3);
        assert_eq!(nodes.resources["nvidia.com/gpu"], "8");
        assert_eq!(nodes.resources["cpu"], "4");
        assert_eq!(nodes.resources["pods"], "110");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in ["3", "kwok=x", "kwok=0", "kwok=999999", "kwok=1,gpu", "kwok=1,=2"] {
            let error = bad.parse::<KwokNodes>().unwrap_err().to_string();
            assert!(error.contains("--nodes"), "{bad}: {error}");
        }
    }
}
