//! A handle on a cluster that stands: what tests and the demo do with it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::addresses::Slot;
use crate::build;
use crate::component::Component;
use crate::config;
use crate::images;
use crate::layout::Layout;
use crate::lifecycle::{self, Options};
use crate::limits::{CONTAINERD_READY, POLL};
use crate::namespace::{Namespace, end};
use crate::network::run;
use crate::prerequisites;
use crate::process::Process;

/// A cluster that this crate made and that stands.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) slot: Slot,
    pub(crate) namespace: Namespace,
}

impl Cluster {
    /// Brings a cluster up, or completes one that stands already.
    pub async fn up(options: &Options) -> Result<Self> {
        lifecycle::up(options).await
    }

    /// The named cluster, if it stands.
    pub fn attach(name: &str) -> Result<Self> {
        let layout = Layout::of(name)?;
        let record = layout.record()?.with_context(|| format!("there is no cluster {name:?}: bring it up first"))?;
        let namespace =
            Namespace::find(&layout).with_context(|| format!("cluster {name:?} does not run: bring it up again"))?;
        Ok(Self { layout, slot: record.slot, namespace })
    }

    /// Takes the cluster down; nothing of it is left.
    pub fn down(self) -> Result<()> {
        lifecycle::down(self.layout.name())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.layout.name()
    }

    /// The administrator's kubeconfig; its server is reachable from the host.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// Address of the real node, reachable from the host (node ports, host ports, the API server at 6443).
    pub fn node_address(&self) -> std::net::Ipv4Addr {
        self.slot.node()
    }

    /// The addresses of this cluster.
    pub fn addresses(&self) -> Slot {
        self.slot
    }

    /// Log of one component.
    pub fn log_path(&self, component: Component) -> PathBuf {
        self.layout.log(component.program())
    }

    /// Name of what the cluster makes outside its namespaces: its link and its cgroup.
    pub fn identity(&self) -> String {
        self.layout.identity()
    }

    /// Pid of the first process of its namespaces: all of the cluster ends with it.
    pub fn first_process(&self) -> i32 {
        self.namespace.init()
    }

    /// A client with the administrator's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        client_of(&self.kubeconfig_path()).await
    }

    /// A command that will run inside the cluster's namespaces, with its DNS and its kubeconfig.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command.env("KUBECONFIG", self.kubeconfig_path());
        command
    }

    /// Runs a command inside the cluster's namespaces to its end; one that fails is an error which says what it printed.
    pub async fn exec<I, S>(&self, command: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut words = command.into_iter();
        let program = words.next().context("exec of nothing")?;
        let mut command = self.command(program);
        command.args(words);
        finish(command).await
    }

    /// Runs kubectl (of the server's version) as the administrator.
    pub async fn kubectl<I, S>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.tool("kubectl", arguments).await
    }

    /// Runs Helm as the administrator.
    pub async fn helm<I, S>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.tool("helm", arguments).await
    }

    /// Applies manifests (YAML) with kubectl, server-side.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new().context("writing manifests")?;
        std::fs::write(file.path(), manifests).context("writing manifests")?;
        let path = file.path().display().to_string();
        self.kubectl(["apply", "--server-side", "--filename", &path]).await
    }

    async fn tool<I, S>(&self, name: &str, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(self.tool_path(name));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig_path());
        finish(command).await
    }

    /// Path of `kubectl` or `helm`.
    pub fn tool_path(&self, name: &str) -> PathBuf {
        self.layout.bin().join(name)
    }

    /// Imports an image tar, unless its images are there already; returns their names.
    pub async fn load_image(&self, tar: &Path) -> Result<Vec<String>> {
        let (namespace, tar, snapshotter) = (self.namespace, tar.to_owned(), config::snapshotter(self.layout.root()));
        tokio::task::spawn_blocking(move || images::load(namespace, snapshotter, &tar))
            .await
            .context("loading an image")?
    }

    /// The living processes of a component (one, or none after a kill).
    pub fn processes(&self, component: Component) -> Vec<Process> {
        let all = self.namespace.processes();
        all.into_iter().filter(|process| process.program() == component.program()).collect()
    }

    /// Whether a component runs.
    pub fn is_running(&self, component: Component) -> bool {
        !self.processes(component).is_empty()
    }

    /// Kills a component with SIGKILL; it stays dead until `restart`, or until `up` completes the cluster again.
    pub fn kill(&self, component: Component) -> Result<()> {
        let processes = self.processes(component);
        ensure!(!processes.is_empty(), "{component} does not run");
        processes.iter().try_for_each(|process| end(process.pid))
    }

    /// Ends a component if it runs, and starts it.
    pub fn restart(&self, component: Component) -> Result<()> {
        self.processes(component).iter().try_for_each(|process| end(process.pid))?;
        self.start(component)
    }

    /// Starts a component unless it runs.
    pub fn start(&self, component: Component) -> Result<()> {
        if self.is_running(component) {
            return Ok(());
        }
        let program = self.program_path(component)?;
        let arguments = component.arguments(&self.layout, self.slot);
        self.namespace.start(&program, &arguments, &self.log_path(component))
    }

    fn program_path(&self, component: Component) -> Result<PathBuf> {
        match component {
            Component::Etcd | Component::Containerd | Component::Prometheus => {
                prerequisites::path_of(component.program())
            }
            _ => Ok(self.layout.bin().join(component.program())),
        }
    }

    /// Runs Debian's Prometheus with this configuration (YAML); returns its address, reachable from the host.
    pub fn prometheus(&self, configuration: &str) -> Result<String> {
        prerequisites::ensure_prometheus()?;
        let path = self.layout.root().join("prometheus/prometheus.yml");
        std::fs::write(&path, configuration).with_context(|| format!("writing {}", path.display()))?;
        self.restart(Component::Prometheus)?;
        Ok(format!("http://{}:9090", self.node_address()))
    }

    pub(crate) fn wait_for_containerd(&self) -> Result<()> {
        let deadline = Instant::now() + CONTAINERD_READY;
        loop {
            let Err(error) = images::list(self.namespace) else { return Ok(()) };
            self.still_running(Component::Containerd)?;
            ensure!(
                Instant::now() < deadline,
                "containerd does not answer: {error:#}\n{}",
                self.layout.log_tail("containerd")
            );
            std::thread::sleep(POLL);
        }
    }

    /// Fails with the end of its log if a component has died.
    pub(crate) fn still_running(&self, component: Component) -> Result<()> {
        if !self.is_running(component) {
            bail!("{component} ended; its log ends with:\n{}", self.layout.log_tail(component.program()));
        }
        Ok(())
    }

    /// Links the built programs into the cluster's folder, where their processes are told apart from other clusters'.
    pub(crate) fn link_programs(&self) -> Result<()> {
        let kubernetes = build::KUBERNETES.binary()?;
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"]
        {
            link(&kubernetes, &self.layout.bin().join(name))?;
        }
        for module in [build::COREDNS, build::HELM, build::KWOK] {
            link(&module.binary()?, &self.layout.bin().join(module.name))?;
        }
        Ok(())
    }
}

/// A client by a kubeconfig file.
pub async fn client_of(kubeconfig: &Path) -> Result<kube::Client> {
    // A second call finds the provider installed, which is as good.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let parsed = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("using {}", kubeconfig.display()))?;
    kube::Client::try_from(config).context("making a client")
}

fn link(target: &Path, at: &Path) -> Result<()> {
    if std::fs::read_link(at).is_ok_and(|present| present == target) {
        return Ok(());
    }
    std::fs::remove_file(at).ok();
    std::os::unix::fs::symlink(target, at).with_context(|| format!("linking {}", at.display()))
}

async fn finish(mut command: Command) -> Result<String> {
    let bytes = tokio::task::spawn_blocking(move || run(&mut command)).await.context("running a command")??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
