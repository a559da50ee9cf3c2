//! A cluster with our charts and the demo's objects on it.

mod model;

pub use model::Model;

use crate::narrator::Narrator;
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use quartermaster_cluster::{Cluster, Options};
use quartermaster_core::units::NanoUsd;
use quartermaster_crds::v1alpha1::{CostPolicy, ModelDeployment, TokenBudget};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Namespace that the chart is installed in.
pub const SYSTEM: &str = "quartermaster-system";
/// Namespace of the demo's objects.
pub const DEMO: &str = "demo";
const POLL: Duration = Duration::from_secs(1);
/// Kinds of objects that our charts or our operator make.
const KINDS: &str = "deployments,statefulsets,replicasets,pods,services,configmaps,secrets,serviceaccounts,leases,roles,\
                     rolebindings,clusterroles,clusterrolebindings,poddisruptionbudgets,networkpolicies,\
                     persistentvolumeclaims,crds";
/// The label that the operator puts on everything that it makes.
const MADE_BY_US: &str = "app.kubernetes.io/managed-by=quartermaster";
/// `helm --wait` gives up after so long.
const INSTALL_TIMEOUT: &str = "180s";

/// Where everything is played.
pub struct Stage {
    cluster: Cluster,
    client: kube::Client,
    gateway: String,
}

impl Stage {
    /// Brings up cluster `name`, loads the images in `dist/`, installs the charts. What stands already is kept.
    pub async fn set_up(name: &str, narrator: &Narrator) -> Result<Self> {
        narrator.chapter(format_args!("A Kubernetes named `{name}`, with its own network namespace"));
        let cluster = Cluster::up(&Options::named(name)).await?;
        narrator.say(format_args!(
            "node at {}, kubeconfig {}",
            cluster.node_address(),
            cluster.kubeconfig_path().display()
        ));
        load_images(&cluster, narrator).await?;
        narrator.chapter("helm install");
        install(&cluster, narrator).await?;
        let client = cluster.client().await?;
        let gateway = gateway(&client).await?;
        narrator.say(format_args!("the gateway listens at {gateway}"));
        Ok(Self { cluster, client, gateway })
    }

    /// Applies the manifests of `examples/demo`, namespace first.
    pub async fn apply_examples(&self, narrator: &Narrator) -> Result<()> {
        narrator.chapter("kubectl apply");
        let folder = root().join("examples/demo");
        for file in ["namespace.yaml", "hardware.yaml", "policy.yaml", "budgets.yaml", "model.yaml"] {
            let path = folder.join(file);
            let output = self.kubectl(&["apply", "-f", &path.to_string_lossy()]).await?;
            narrator.show(&format!("kubectl apply -f examples/demo/{file}"), &output);
        }
        Ok(())
    }

    /// The cluster under the stage.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A client of the API server.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Base URL of the gateway.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// kubectl, to its end.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments).await
    }

    /// kubectl, shown on the terminal.
    pub async fn show(&self, narrator: &Narrator, arguments: &[&str]) -> Result<()> {
        let output = self.kubectl(arguments).await?;
        narrator.show(&format!("kubectl {}", arguments.join(" ")), &output);
        Ok(())
    }

    /// `kubectl apply` of a text.
    pub async fn apply(&self, narrator: &Narrator, manifest: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new().context("no temporary file")?;
        std::fs::write(file.path(), manifest).context("could not write a manifest")?;
        let output = self.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).await?;
        narrator.show("kubectl apply -f -", &output);
        Ok(())
    }

    /// Waits until `holds`; an error names `what` after `limit`. Returns how long it took.
    pub async fn until(
        &self,
        limit: Duration,
        what: &str,
        mut holds: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            match holds().await {
                Ok(true) => return Ok(start.elapsed()),
                Ok(false) if start.elapsed() < limit => tokio::time::sleep(POLL).await,
                Ok(false) => bail!("{} s passed, and still not: {what}\n{}", limit.as_secs(), self.diagnosis().await),
                Err(error) => return Err(error.context(format!("while waiting until {what}"))),
            }
        }
    }

    /// What a person would look at first.
    pub async fn diagnosis(&self) -> String {
        let looks: [&[&str]; 4] = [
            &["get", "modeldeployment,tokenbudget,costpolicy,hardwareclass", "-A", "-o", "wide"],
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=40"],
        ];
        let mut seen = String::new();
        for look in looks {
            let output = self.kubectl(look).await.unwrap_or_else(|error| format!("{error:#}\n"));
            seen.push_str(&format!("$ kubectl {}\n{output}", look.join(" ")));
        }
        seen
    }

    /// Uninstalls what [`Stage::set_up`] and [`Stage::apply_examples`] brought, but for the cluster and its images.
    pub async fn uninstall(&self) -> Result<()> {
        self.kubectl(&["delete", "modeldeployment,tokenbudget,costpolicy", "--all", "-n", DEMO, "--timeout=120s"])
            .await?;
        self.kubectl(&["delete", "hardwareclass", "--all", "--timeout=60s"]).await?;
        let gone = async || Ok(self.listed(MADE_BY_US).await?.is_empty());
        self.until(Duration::from_secs(180), "everything that the operator made for models is gone", gone).await?;
        for release in ["quartermaster", "quartermaster-crds"] {
            self.cluster
                .helm(["uninstall", release, "--namespace", SYSTEM, "--wait", "--timeout", INSTALL_TIMEOUT])
                .await?;
        }
        Ok(())
    }

    /// Every object of ours that is still there: what bears our name, and what the operator made and named after models.
    pub async fn leftovers(&self) -> Result<Vec<String>> {
        let listed = self.kubectl(&["get", KINDS, "-A", "-o", "name"]).await?;
        let ours = listed.lines().filter(|line| line.contains("quartermaster")).map(str::to_owned);
        let mut left: BTreeSet<String> = ours.collect();
        left.extend(self.listed(MADE_BY_US).await?);
        Ok(left.into_iter().collect())
    }

    /// Every object that was made for a ModelDeployment of that name.
    pub async fn made_for(&self, model: &str) -> Result<Vec<String>> {
        self.listed(&format!("{MADE_BY_US},quartermaster.dev/model={model}")).await
    }

    /// Objects with such labels, in all namespaces.
    async fn listed(&self, selector: &str) -> Result<Vec<String>> {
        let listed = self.kubectl(&["get", KINDS, "-A", "-o", "name", "-l", selector]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// `helm upgrade` of the application with its values kept and these set; waits until its pods are Ready.
    pub async fn upgrade(&self, settings: &[&str]) -> Result<()> {
        let chart = root().join("charts/quartermaster").to_string_lossy().into_owned();
        let base = ["upgrade", "quartermaster", &chart, "--namespace", SYSTEM, "--reuse-values", "--wait"];
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        self.cluster.helm(base.into_iter().chain(["--timeout", INSTALL_TIMEOUT]).chain(set)).await?;
        Ok(())
    }

    /// Notes of the demo's Events that happened after `since`, for the last time at least; earlier runs have left theirs.
    pub async fn events_since(&self, since: Timestamp) -> Result<Vec<String>> {
        let api: Api<Event> = Api::namespaced(self.client(), DEMO);
        let events = api.list(&ListParams::default()).await.context("could not list Events")?;
        let late = events.items.into_iter().filter(|event| last_seen(event).is_some_and(|at| at >= since));
        Ok(late.filter_map(|event| event.note).collect())
    }

    /// What a Secret of the release holds.
    pub async fn secret(&self, name: &str) -> Result<BTreeMap<String, ByteString>> {
        let api: Api<Secret> = Api::namespaced(self.client(), SYSTEM);
        let secret = api.get(name).await.with_context(|| format!("could not get Secret {name}"))?;
        secret.data.with_context(|| format!("Secret {name} is empty"))
    }

    /// The demo's ModelDeployment.
    pub async fn model(&self) -> Result<Model> {
        self.model_named("chat").await
    }

    /// A ModelDeployment of the demo's namespace.
    pub async fn model_named(&self, name: &str) -> Result<Model> {
        let api: Api<ModelDeployment> = Api::namespaced(self.client(), DEMO);
        Ok(Model::from(api.get(name).await.with_context(|| format!("could not get ModelDeployment {name}"))?))
    }

    /// Tokens settled and the limit in the first window of a TokenBudget's status; none before the status is written.
    pub async fn settled(&self, budget: &str) -> Result<Option<(u64, u64)>> {
        let api: Api<TokenBudget> = Api::namespaced(self.client(), DEMO);
        let budget = api.get(budget).await.context("could not get the TokenBudget")?;
        let window = budget.status.and_then(|status| status.windows.into_iter().next());
        let number = |count: Option<i64>| u64::try_from(count?).ok();
        Ok(window.and_then(|window| Some((number(window.settled)?, number(window.limit)?))))
    }

    /// Money settled in the first ceiling of the demo's CostPolicy.
    pub async fn spent(&self) -> Result<NanoUsd> {
        let api: Api<CostPolicy> = Api::namespaced(self.client(), DEMO);
        let policy = api.get("demo").await.context("could not get the CostPolicy")?;
        let ceiling = policy.status.and_then(|status| status.ceilings.into_iter().next());
        let ceiling = ceiling.context("status.ceilings of the CostPolicy is empty")?;
        Ok(ceiling.settled.to_string().parse()?)
    }
}

/// When an Event happened for the last time.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let again = event.series.as_ref().map(|series| series.last_observed_time.0);
    again.or_else(|| event.event_time.as_ref().map(|time| time.0))
}

/// The project's folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn load_images(cluster: &Cluster, narrator: &Narrator) -> Result<()> {
    narrator.chapter("Images");
    let mut tars = Vec::new();
    for folder in ["dist/images", "dist/models"] {
        let path = root().join(folder);
        let entries = std::fs::read_dir(&path)
            .with_context(|| format!("no {folder}: make it with `cargo xtask images --models`"))?;
        tars.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "tar")),
        );
    }
    tars.sort();
    ensure!(!tars.is_empty(), "no image tars in dist: make them with `cargo xtask images --models`");
    for tar in tars {
        narrator.say(cluster.load_image(&tar).await?.join(", "));
    }
    Ok(())
}

async fn install(cluster: &Cluster, narrator: &Narrator) -> Result<()> {
    let root = root();
    let chart = |name: &str| root.join("charts").join(name).to_string_lossy().into_owned();
    let values = root.join("examples/demo/values.yaml").to_string_lossy().into_owned();
    let (crds, app) = (chart("quartermaster-crds"), chart("quartermaster"));
    let base =
        ["upgrade", "--install", "--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", INSTALL_TIMEOUT];
    // The tag stays the same from build to build: an annotation with the images' digest brings new pods with new images.
    let digest = digest(&root.join("dist/images"))?;
    let pods = ["operator", "gateway", "ledger"]
        .map(|component| format!("--set-string={component}.podAnnotations.images={digest}"));
    let pods = pods.each_ref().map(String::as_str);
    let runs: [Vec<&str>; 2] = [
        [&base[..], &["quartermaster-crds", &crds]].concat(),
        [&base[..], &["quartermaster", &app, "--values", &values], &pods[..]].concat(),
    ];
    for run in runs {
        let output = cluster.helm(&run).await?;
        let summary =
            output.lines().filter(|line| line.starts_with("STATUS") || line.starts_with("NAME:")).collect::<Vec<_>>();
        narrator.show(&format!("helm upgrade --install {}", run.get(8).unwrap_or(&"")), &summary.join("\n"));
    }
    Ok(())
}

/// One name for what lies in a folder of image tars, by their stamps.
fn digest(folder: &Path) -> Result<String> {
    let mut tars: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tars.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    tars.sort();
    let mut hasher = std::hash::DefaultHasher::new();
    for tar in tars {
        std::fs::read(&tar).with_context(|| format!("could not read {}", tar.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

async fn gateway(client: &kube::Client) -> Result<String> {
    let api: Api<Service> = Api::namespaced(client.clone(), SYSTEM);
    let service = api.get("quartermaster-gateway").await.context("could not get Service quartermaster-gateway")?;
    let spec = service.spec.context("Service quartermaster-gateway has no spec")?;
    let address = spec.cluster_ip.context("Service quartermaster-gateway has no address")?;
    let port = spec.ports.and_then(|ports| ports.first().map(|port| port.port)).unwrap_or(80);
    Ok(format!("http://{address}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::events::v1::EventSeries;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    #[test]
    fn an_event_is_as_old_as_its_last_repetition() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let series = |second| EventSeries { count: 2, last_observed_time: MicroTime(at(second)) };
        let mut event = Event { event_time: Some(MicroTime(at(10))), ..Event::default() };
        assert_eq!(last_seen(&event), Some(at(10)));
        event.series = Some(series(20));
        assert_eq!(last_seen(&event), Some(at(20)));
        assert_eq!(last_seen(&Event::default()), None);
    }
}
