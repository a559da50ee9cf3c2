//! The processes of a cluster and how each is started.

use std::fmt;
use std::path::PathBuf;

use crate::addresses::Slot;
use crate::config::CONTAINERD_SOCKET;
use crate::layout::Layout;
use crate::pki::{self, NODE_NAME};

/// A process of the control plane or of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Component {
    /// Store of all objects.
    Etcd,
    /// Runs containers.
    Containerd,
    /// The API.
    ApiServer,
    /// Built-in controllers.
    ControllerManager,
    /// Places pods.
    Scheduler,
    /// The node's agent.
    Kubelet,
    /// Service addresses.
    Proxy,
    /// Cluster DNS.
    Dns,
    /// Nodes without hardware (only when asked for).
    Kwok,
    /// Metrics (only when asked for).
    Prometheus,
}

impl Component {
    /// Those that every cluster has, in the order in which they start.
    pub const ALWAYS: [Component; 8] = [
        Component::Etcd,
        Component::Containerd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Scheduler,
        Component::Kubelet,
        Component::Proxy,
        Component::Dns,
    ];

    /// Every one there is.
    pub const ALL: [Component; 10] = [
        Component::Etcd,
        Component::Containerd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Scheduler,
        Component::Kubelet,
        Component::Proxy,
        Component::Dns,
        Component::Kwok,
        Component::Prometheus,
    ];

    /// File name of its program, which also names its log.
    pub fn program(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::Containerd => "containerd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
            Component::Kubelet => "kubelet",
            Component::Proxy => "kube-proxy",
            Component::Dns => "coredns",
            Component::Kwok => "kwok",
            Component::Prometheus => "prometheus",
        }
    }

    /// Its arguments.
    pub(crate) fn arguments(self, layout: &Layout, slot: Slot) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let config = |file: &str| path(layout.config().join(file));
        match self {
            Component::Etcd => etcd(layout),
            Component::Containerd => vec![format!("--config={}", config("containerd.toml"))],
            Component::ApiServer => api_server(layout, slot),
            Component::ControllerManager => controller_manager(layout, slot),
            Component::Scheduler => {
                let kubeconfig = config("scheduler.kubeconfig");
                vec![
                    format!("--kubeconfig={kubeconfig}"),
                    format!("--authentication-kubeconfig={kubeconfig}"),
                    format!("--authorization-kubeconfig={kubeconfig}"),
                    "--leader-elect=false".to_owned(),
                ]
            }
            Component::Kubelet => vec![
                format!("--config={}", config("kubelet.yaml")),
                format!("--kubeconfig={}", config("kubelet.kubeconfig")),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={}", slot.node()),
            ],
            Component::Proxy => vec![format!("--config={}", config("proxy.yaml"))],
            Component::Dns => vec!["-conf".to_owned(), config("Corefile")],
            Component::Kwok => kwok(layout, slot),
            Component::Prometheus => vec![
                format!("--config.file={}", path(layout.root().join("prometheus/prometheus.yml"))),
                format!("--storage.tsdb.path={}", path(layout.root().join("prometheus/data"))),
                "--web.listen-address=0.0.0.0:9090".to_owned(),
                "--web.enable-lifecycle".to_owned(),
            ],
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

fn etcd(layout: &Layout) -> Vec<String> {
    vec![
        format!("--data-dir={}", layout.root().join("etcd").display()),
        "--name=default".to_owned(),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // A test's cluster need not survive a power cut.
        "--unsafe-no-fsync".to_owned(),
        "--auto-compaction-retention=5m".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server(layout: &Layout, slot: Slot) -> Vec<String> {
    let pki = layout.pki();
    let certificate = |file: &str| pki::certificate(&pki, file).display().to_string();
    let key = |file: &str| pki::key(&pki, file).display().to_string();
    vec![
        format!("--advertise-address={}", slot.node()),
        "--secure-port=6443".to_owned(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--service-cluster-ip-range={}", slot.services()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--client-ca-file={}", certificate("ca")),
        format!("--tls-cert-file={}", certificate("apiserver")),
        format!("--tls-private-key-file={}", key("apiserver")),
        format!("--kubelet-client-certificate={}", certificate("kubelet-client")),
        format!("--kubelet-client-key={}", key("kubelet-client")),
        format!("--kubelet-certificate-authority={}", certificate("ca")),
        // Otherwise exec and logs look the node's name up in DNS and hang.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki.join("service-accounts.pub").display()),
        format!("--service-account-signing-key-file={}", key("service-accounts")),
        format!("--proxy-client-cert-file={}", certificate("front-proxy")),
        format!("--proxy-client-key-file={}", key("front-proxy")),
        format!("--requestheader-client-ca-file={}", certificate("ca")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
    ]
}

fn controller_manager(layout: &Layout, slot: Slot) -> Vec<String> {
    let kubeconfig = layout.config().join("controller-manager.kubeconfig").display().to_string();
    let pki = layout.pki();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pki::key(&pki, "service-accounts").display()),
        format!("--root-ca-file={}", pki::certificate(&pki, "ca").display()),
        format!("--cluster-signing-cert-file={}", pki::certificate(&pki, "ca").display()),
        format!("--cluster-signing-key-file={}", pki::key(&pki, "ca").display()),
        format!("--service-cluster-ip-range={}", slot.services()),
        // A node that became Ready takes pods at once: not held up for seconds by the period, nor at the start by a rate
        // that is set for clusters whose API server many share.
        "--node-monitor-period=1s".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}

fn kwok(layout: &Layout, slot: Slot) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.config().join("admin.kubeconfig").display()),
        format!("--config={}", layout.config().join("kwok-stages.yaml").display()),
        format!("--manage-nodes-with-annotation-selector={}", crate::kwok::NODE_SELECTOR),
        format!("--cidr={}", slot.kwok_pods()),
        format!("--node-ip={}", slot.node()),
        "--node-lease-duration-seconds=40".to_owned(),
        "--server-address=127.0.0.1:10247".to_owned(),
    ]
}

/// Socket argument of `ctr`.
pub(crate) fn ctr_arguments() -> [&'static str; 4] {
    ["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_is_listed_once() {
        let names: std::collections::BTreeSet<&str> =
            Component::ALL.iter().map(|component| component.program()).collect();
        assert_eq!(names.len(), Component::ALL.len());
        assert!(Component::ALWAYS.iter().all(|component| Component::ALL.contains(component)));
    }

    #[test]
    fn no_path_or_address_is_shared_between_clusters() {
        let arguments = |name: &str, taken: &[Slot]| -> Vec<String> {
            let slot = Slot::choose(name, taken, &[]).unwrap();
            let layout = Layout::of(name).unwrap();
            Component::ALL.iter().flat_map(|component| component.arguments(&layout, slot)).collect()
        };
        let one = arguments("one", &[]);
        let two = arguments("two", &[Slot::choose("one", &[], &[]).unwrap()]);
        let shared: Vec<&String> = one.iter().filter(|argument| two.contains(argument)).collect();
        assert!(
            !shared.iter().any(|argument| argument.contains("/clusters/") || argument.contains("198.18.")),
            "{shared:?}"
        );
    }
}
