//! Configuration files of the components, rendered from the cluster's addresses and folders.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::addresses::Slot;
use crate::layout::{Layout, write_atomically};
use crate::pki::{self, NODE_NAME};

/// Socket of containerd, inside the mount namespace.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Image of the process that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "quartermaster.dev/pause:1";
/// Port on which CoreDNS says that it is ready.
pub(crate) const DNS_READY_PORT: u16 = 8181;
/// Folder of the CNI plugins in Debian.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Writes every file. The contents depend on nothing that changes while a cluster stands.
pub(crate) fn write(layout: &Layout, slot: Slot) -> Result<()> {
    let folder = layout.config();
    let write = |file: &str, text: String| write_atomically(&folder.join(file), text.as_bytes(), 0o600);
    write("resolv.conf", resolv_conf(slot.dns()))?;
    write("containerd.toml", containerd(layout.root(), snapshotter(layout.root())))?;
    write("cni/10-pods.conflist", cni(slot)?)?;
    write("kubelet.yaml", kubelet(layout, slot)?)?;
    write("proxy.yaml", proxy(layout, slot)?)?;
    write("Corefile", corefile(layout, slot.dns()))?;
    for (file, certificate) in [
        ("admin", "admin"),
        ("kubelet", "kubelet"),
        ("controller-manager", "controller-manager"),
        ("scheduler", "scheduler"),
        ("proxy", "proxy"),
    ] {
        let text = pki::kubeconfig(&layout.pki(), certificate, &api_url(slot.node()), layout.name())?;
        write(&format!("{file}.kubeconfig"), text)?;
    }
    let admin = pki::kubeconfig(&layout.pki(), "admin", &api_url(slot.node()), layout.name())?;
    write_atomically(&layout.kubeconfig(), admin.as_bytes(), 0o600)
}

/// Where the API server answers, inside the cluster and on the host.
pub(crate) fn api_url(node: Ipv4Addr) -> String {
    format!("https://{node}:6443")
}

fn resolv_conf(dns: Ipv4Addr) -> String {
    format!("search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver {dns}\noptions ndots:5\n")
}

/// overlayfs cannot stand on itself, as it would in most containers.
pub(crate) fn snapshotter(root: &Path) -> &'static str {
    match nix::sys::statfs::statfs(root) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC => "native",
        _ => "overlayfs",
    }
}

fn containerd(root: &Path, snapshotter: &str) -> String {
    let root = root.display();
    format!(
        r#"version = 2
root = "{root}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE runc dies on a lower score than its own.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{root}/config/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// Each pod has a link of its own to the node, so that all traffic between pods passes the node's Service rules
/// whether or not the kernel filters bridges.
fn cni(slot: Slot) -> Result<String> {
    let pods = slot.pods().to_string();
    Ok(serde_json::to_string_pretty(&json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            { "type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local", "dataDir": "/run/cni", "ranges": [[{ "subnet": pods }]], "routes": [{ "dst": "0.0.0.0/0" }],
            } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    }))?)
}

fn kubelet(layout: &Layout, slot: Slot) -> Result<String> {
    let pki = layout.pki();
    // JSON is YAML.
    Ok(serde_json::to_string_pretty(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki::certificate(&pki, "ca") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki::certificate(&pki, "kubelet"),
        "tlsPrivateKeyFile": pki::key(&pki, "kubelet"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.identity()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [slot.dns()],
        "resolvConf": layout.config().join("resolv.conf"),
        "podLogsDir": layout.root().join("pod-logs"),
        "evictionHard": { "memory.available": "64Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%" },
        // Images come from files: one that is collected is lost.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "healthzBindAddress": "127.0.0.1",
    }))?)
}

fn proxy(layout: &Layout, slot: Slot) -> Result<String> {
    Ok(serde_json::to_string_pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": slot.pods().to_string(),
        "clientConnection": { "kubeconfig": layout.config().join("proxy.kubeconfig") },
        // The kernel's limits belong to the host and are read-only in here.
        "conntrack": { "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    }))?)
}

fn corefile(layout: &Layout, dns: Ipv4Addr) -> String {
    let kubeconfig = layout.config().join("admin.kubeconfig");
    format!(
        "cluster.local in-addr.arpa {{\n    bind {dns}\n    errors\n    ready {dns}:{DNS_READY_PORT}\n    kubernetes cluster.local in-addr.arpa {{\n        kubeconfig {} {}\n        pods insecure\n        ttl 5\n    }}\n    cache 5\n}}\n",
        kubeconfig.display(),
        layout.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Layout, Slot) {
        (Layout::of("sample").unwrap(), Slot::choose("sample", &[], &[]).unwrap())
    }

    #[test]
    fn kubelet_and_proxy_are_told_this_clusters_addresses() {
        let (layout, slot) = sample();
        let kubelet: serde_json::Value = serde_json::from_str(&kubelet(&layout, slot).unwrap()).unwrap();
        assert_eq!(kubelet["clusterDNS"][0], slot.dns().to_string());
        assert_eq!(kubelet["cgroupRoot"], format!("/{}", layout.identity()));
        let proxy: serde_json::Value = serde_json::from_str(&proxy(&layout, slot).unwrap()).unwrap();
        assert_eq!(proxy["clusterCIDR"], slot.pods().to_string());
    }

    #[test]
    fn pods_get_addresses_of_the_slot() {
        let (_, slot) = sample();
        let cni: serde_json::Value = serde_json::from_str(&cni(slot).unwrap()).unwrap();
        assert_eq!(cni["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], slot.pods().to_string());
    }

    #[test]
    fn containerd_keeps_everything_below_the_state_folder() {
        let text = containerd(Path::new("/state"), "native");
        for expected in [
            "root = \"/state/containerd\"",
            "conf_dir = \"/state/config/cni\"",
            "snapshotter = \"native\"",
            PAUSE_IMAGE,
        ] {
            assert!(text.contains(expected), "{expected}");
        }
    }

    #[test]
    fn dns_serves_the_cluster_and_nothing_else() {
        let (layout, slot) = sample();
        let text = corefile(&layout, slot.dns());
        assert!(text.starts_with("cluster.local in-addr.arpa {") && !text.contains("forward"), "{text}");
        assert!(text.contains(&format!("bind {}", slot.dns())));
    }
}
