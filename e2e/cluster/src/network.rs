//! The link between the host and a cluster: a veth pair and routes, all of which vanish with the cluster's namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::addresses::{Network, Slot};
use crate::namespace::Namespace;

/// Name of the node's end of the link.
const NODE_LINK: &str = "node0";
const MADE: &str = "/run/network-made";
/// How long a link may take to go with its namespace.
const LINK_GONE_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Route {
    dst: String,
    #[serde(flatten)]
    _rest: BTreeMap<String, serde_json::Value>,
}

/// Networks that the host's routes and addresses use already.
pub(crate) fn in_use() -> Result<Vec<Network>> {
    let output = Command::new("ip")
        .args(["-json", "-4", "route", "show", "table", "all"])
        .output()
        .context("running ip route")?;
    ensure!(output.status.success(), "ip route: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse_routes(&output.stdout)
}

fn parse_routes(json: &[u8]) -> Result<Vec<Network>> {
    let routes: Vec<Route> = serde_json::from_slice(json).context("reading the host's routes")?;
    routes.iter().filter(|route| route.dst != "default").map(|route| Network::parse(&route.dst)).collect()
}

/// Whether the link and the addresses of this namespace were made to the end.
pub(crate) fn is_made(namespace: Namespace) -> bool {
    namespace.inside(MADE).exists()
}

/// Joins host and namespace, and gives the node its addresses.
pub(crate) fn make(namespace: Namespace, slot: Slot, host_link: &str) -> Result<()> {
    remove_link(host_link)?;
    let peer = namespace.init().to_string();
    let link = ["link", "add", host_link, "type", "veth", "peer", "name", NODE_LINK, "netns", &peer];
    run(Command::new("ip").args(link)).context("making the link between host and cluster")?;
    for step in inner_steps(slot) {
        run(namespace.command("ip").args(&step))?;
    }
    for step in outer_steps(slot, host_link) {
        run(Command::new("ip").args(&step)).context("routing from the host to the cluster")?;
    }
    fs::write(namespace.inside(MADE), b"").context("marking the network as made")
}

fn inner_steps(slot: Slot) -> Vec<Vec<String>> {
    let node = format!("{}/24", slot.node());
    let dns = format!("{}/32", slot.dns());
    // The API server and kubelet look for a default route; where it leads to does not matter.
    [
        format!("address add {node} dev {NODE_LINK}"),
        format!("address add {dns} dev lo"),
        format!("link set {NODE_LINK} up"),
        format!("route add default dev {NODE_LINK}"),
    ]
    .iter()
    .map(|step| words(step))
    .collect()
}

fn outer_steps(slot: Slot, link: &str) -> Vec<Vec<String>> {
    let (host, node) = (slot.host(), slot.node());
    [
        format!("address add {host}/24 dev {link}"),
        format!("link set {link} up"),
        format!("route add {} via {node} dev {link}", slot.services()),
        format!("route add {} via {node} dev {link}", slot.pods()),
    ]
    .iter()
    .map(|step| words(step))
    .collect()
}

/// Removes the host's end of the link, if it is there. A namespace that ends takes its links along a moment after its
/// last process, so the link may go while it is being removed: what counts is that it is gone in the end.
pub(crate) fn remove_link(name: &str) -> Result<()> {
    let link = Path::new("/sys/class/net").join(name);
    let deadline = Instant::now() + LINK_GONE_LIMIT;
    while link.exists() {
        match run(Command::new("ip").args(["link", "delete", name])) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(POLL),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Runs a command and reports what it said when it fails.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let line = format!("{command:?}").replace('"', "");
    let output = command.output().with_context(|| format!("running {line}"))?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_the_host_are_read() {
        let json = br#"[{"dst":"default","gateway":"10.0.0.1"},{"dst":"172.17.0.0/16","dev":"docker0"},{"type":"local","dst":"127.0.0.1"}]"#;
        let networks: Vec<String> = parse_routes(json).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["172.17.0.0/16", "127.0.0.1/32"]);
        assert!(parse_routes(b"[{}]").is_err());
    }

    #[test]
    #[ignore = "needs root; make test runs it"]
    fn a_link_that_goes_with_its_namespace_while_it_is_removed_is_gone() {
        let name = "qm-test-link";
        for _ in 0..50 {
            let mut holder = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
            let inside = format!("/proc/{}/ns/net", holder.id());
            let own = fs::read_link("/proc/self/ns/net").unwrap();
            while fs::read_link(&inside).unwrap() == own {
                thread::sleep(POLL);
            }
            let peer = holder.id().to_string();
            let link = ["link", "add", name, "type", "veth", "peer", "name", NODE_LINK, "netns", &peer];
            run(Command::new("ip").args(link)).unwrap();
            holder.kill().unwrap();
            holder.wait().unwrap();
            remove_link(name).unwrap();
            assert!(!Path::new("/sys/class/net").join(name).exists());
        }
    }

    #[test]
    fn the_host_reaches_services_and_pods_through_the_node() {
        let slot = Slot::choose("x", &[], &[]).unwrap();
        let steps: Vec<String> = outer_steps(slot, "qm-1").iter().map(|step| step.join(" ")).collect();
        assert!(steps.contains(&format!("route add {} via {} dev qm-1", slot.services(), slot.node())));
        assert!(steps.contains(&format!("route add {} via {} dev qm-1", slot.pods(), slot.node())));
    }
}
