//! Up and down. `up` completes whatever is there, so a killed run is simply run again; `down` needs no record of what ran.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;

use crate::addresses::Slot;
use crate::cluster::Cluster;
use crate::component::Component;
use crate::kwok::{KwokNodes, STAGES, is_ready_since};
use crate::layout::{Layout, Record, all_records, forget_addresses_lock, lock_addresses, write_atomically};
use crate::limits::{API_READY, NODE_READY, POLL};
use crate::namespace::Namespace;
use crate::pki::NODE_NAME;
use crate::progress::say;
use crate::{build, cgroups, config, defaults, images, network, pki, prerequisites};

/// What cluster is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// Nodes without hardware.
    pub kwok: Option<KwokNodes>,
}

impl Options {
    /// A cluster of one real node.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), kwok: None }
    }
}

/// Brings a cluster up, or completes one.
pub async fn up(options: &Options) -> Result<Cluster> {
    let wanted = options.clone();
    let blocking = tokio::task::spawn_blocking(move || {
        let layout = Layout::of(&wanted.name)?;
        prerequisites::require_root()?;
        let lock = layout.lock()?;
        let cluster = start(&layout, &wanted)?;
        anyhow::Ok((cluster, lock))
    });
    let (cluster, _lock) = blocking.await.context("starting a cluster")??;
    complete(&cluster, options).await?;
    Ok(cluster)
}

fn start(layout: &Layout, options: &Options) -> Result<Cluster> {
    prerequisites::ensure_all()?;
    build::build(&build::ALWAYS)?;
    if options.kwok.is_some() {
        build::build(&[build::KWOK])?;
    }
    let pause = images::pause_tar()?;
    layout.create()?;
    let slot = addresses(layout)?;
    pki::ensure(&layout.pki(), slot)?;
    let namespace = namespace(layout, slot)?;
    let cluster = Cluster { layout: layout.clone(), slot, namespace };
    cluster.link_programs()?;
    for component in [Component::Etcd, Component::Containerd, Component::ApiServer] {
        begin(&cluster, component)?;
    }
    cluster.wait_for_containerd()?;
    images::load(namespace, config::snapshotter(layout.root()), &pause)?;
    Ok(cluster)
}

fn begin(cluster: &Cluster, component: Component) -> Result<()> {
    if !cluster.is_running(component) {
        say(format!("starting {component}"));
        cluster.start(component)?;
    }
    Ok(())
}

fn addresses(layout: &Layout) -> Result<Slot> {
    if let Some(record) = layout.record()? {
        return Ok(record.slot);
    }
    let _held = lock_addresses()?;
    let taken: Vec<Slot> = all_records()?.iter().map(|record| record.slot).collect();
    let slot = Slot::choose(layout.name(), &taken, &network::in_use()?)?;
    layout.write_record(&Record { name: layout.name().to_owned(), slot })?;
    Ok(slot)
}

/// The cluster's namespaces; unfinished ones that a killed run left are ended and made anew.
fn namespace(layout: &Layout, slot: Slot) -> Result<Namespace> {
    if let Some(found) = Namespace::find(layout) {
        if network::is_made(found) {
            return Ok(found);
        }
        found.destroy()?;
    }
    say(format!("making the namespaces of cluster {} (node {})", layout.name(), slot.node()));
    config::write(layout, slot)?;
    // The kubelet would look for the dead containers of a killed run's cgroups, seconds for each.
    cgroups::remove(&layout.identity())?;
    cgroups::create(&layout.identity())?;
    let made = create_namespace(layout)?;
    network::make(made, slot, &layout.identity())?;
    Ok(made)
}

/// Under the lock that `remove_mount_points` takes too.
fn create_namespace(layout: &Layout) -> Result<Namespace> {
    let _held = lock_addresses()?;
    Namespace::create(layout)
}

/// From a starting API server to a cluster that runs pods.
async fn complete(cluster: &Cluster, options: &Options) -> Result<()> {
    let client = cluster.client().await?;
    wait_for(cluster, "the API server", API_READY, &[Component::Etcd, Component::ApiServer], || {
        api_ready(client.clone())
    })
    .await?;
    // What an earlier run's kubelet said of the node does not count.
    let since = if cluster.is_running(Component::Kubelet) { Timestamp::UNIX_EPOCH } else { now_in_seconds()? };
    for component in Component::ALWAYS {
        begin(cluster, component)?;
    }
    defaults::apply(client.clone(), &cluster.layout).await?;
    wait_for(cluster, "the node", NODE_READY, &Component::ALWAYS, || node_ready(client.clone(), since)).await?;
    wait_for(cluster, "DNS", NODE_READY, &Component::ALWAYS, || dns_ready(cluster.slot)).await?;
    if let Some(nodes) = &options.kwok {
        add_kwok_nodes(cluster, client, nodes).await?;
    } else if stages_path(cluster).exists() {
        // An earlier call asked for nodes, which are still there.
        begin(cluster, Component::Kwok)?;
    }
    Ok(())
}

fn stages_path(cluster: &Cluster) -> PathBuf {
    cluster.layout.config().join("kwok-stages.yaml")
}

async fn add_kwok_nodes(cluster: &Cluster, client: kube::Client, nodes: &KwokNodes) -> Result<()> {
    write_atomically(&stages_path(cluster), STAGES.as_bytes(), 0o644)?;
    begin(cluster, Component::Kwok)?;
    nodes.create(client.clone()).await?;
    let all_ready = || async { Ok(KwokNodes::ready(client.clone()).await? >= nodes.count) };
    wait_for(cluster, "KWOK's nodes", NODE_READY, &[Component::Kwok], all_ready).await
}

async fn wait_for<F, Fut>(cluster: &Cluster, what: &str, limit: Duration, needed: &[Component], check: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + limit;
    let mut waited = false;
    loop {
        let outcome = check().await;
        if matches!(outcome, Ok(true)) {
            if waited {
                say(format!("ready: {what}"));
            }
            return Ok(());
        }
        waited = true;
        needed.iter().try_for_each(|component| cluster.still_running(*component))?;
        if Instant::now() > deadline {
            let reason =
                outcome.err().map_or_else(|| "it says that it is not".to_owned(), |error| format!("{error:#}"));
            bail!(
                "{what} is not ready after {limit:?} ({reason}); see the logs in {}",
                cluster.layout.root().join("logs").display()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn api_ready(client: kube::Client) -> Result<bool> {
    let request = http::Request::get("/readyz").body(Vec::new()).context("asking /readyz")?;
    Ok(client.request_text(request).await? == "ok")
}

/// Ready, by a heartbeat of this time or later, and free of the taint that keeps pods off until it is.
async fn node_ready(client: kube::Client, since: Timestamp) -> Result<bool> {
    let Some(node) = Api::<Node>::all(client).get_opt(NODE_NAME).await? else { return Ok(false) };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    Ok(is_ready_since(&node, since) && !taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready"))
}

/// The time as Kubernetes writes it.
fn now_in_seconds() -> Result<Timestamp> {
    Timestamp::from_second(Timestamp::now().as_second()).context("reading the clock")
}

async fn dns_ready(slot: Slot) -> Result<bool> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((slot.dns(), config::DNS_READY_PORT)).await?;
    stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.0 200"))
}

/// Takes a cluster down. Works on what a killed run left, and on nothing.
pub fn down(name: &str) -> Result<()> {
    let layout = Layout::of(name)?;
    prerequisites::require_root()?;
    let lock = layout.lock()?;
    if let Some(namespace) = Namespace::find(&layout) {
        namespace.destroy()?;
    }
    network::remove_link(&layout.identity())?;
    cgroups::remove(&layout.identity())?;
    remove_state(layout.root())?;
    remove_mount_points()?;
    layout.forget_lock();
    drop(lock);
    Ok(())
}

/// Removes the folders that clusters mount over. Not while any cluster lives: to remove a folder ends the mounts that
/// other namespaces have on it. And only if empty: what someone else keeps there stays.
fn remove_mount_points() -> Result<()> {
    let _held = lock_addresses()?;
    if !Namespace::any() {
        for folder in ["/var/lib/cni", "/var/lib/kubelet"] {
            fs::remove_dir(folder).ok();
        }
        forget_addresses_lock()?;
    }
    Ok(())
}

fn remove_state(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let below = format!("{}/", root.display());
    let mounted: Vec<&str> =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&below)).collect();
    for path in mounted.iter().rev() {
        nix::mount::umount(*path).with_context(|| format!("unmounting {path}"))?;
    }
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", root.display()))
        }
        _ => Ok(()),
    }?;
    ensure!(!root.exists(), "{} is still there", root.display());
    Ok(())
}
