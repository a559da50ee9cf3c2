//! The harness against itself: real pods behind a real Service, components that die, runs that are killed, and nothing
//! left in the end. Needs root and, once, minutes of Go: `make test` runs it with `--include-ignored`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, ListParams};
use quartermaster_cluster::oci_image::{Image, ImageFile};
use quartermaster_cluster::{Cluster, Component, KwokNodes, Options, images, lifecycle};

const LIMIT: Duration = Duration::from_secs(90);

/// Takes the cluster down when a test ends, however it ends.
struct TakenDown(&'static str);

impl Drop for TakenDown {
    fn drop(&mut self) {
        if let Err(error) = lifecycle::down(self.0) {
            eprintln!("taking {} down: {error:#}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the built components; make test runs it"]
async fn pods_run_survive_faults_and_leave_nothing() {
    let name = "test-harness";
    let _guard = TakenDown(name);
    let cluster = Cluster::up(&Options::named(name)).await.unwrap();
    deploy_web(&cluster).await;
    assert_service_answers(&cluster).await;
    assert_tools_work(&cluster).await;

    for component in Component::ALWAYS {
        cluster.kill(component).unwrap();
        assert!(!cluster.is_running(component), "{component}");
        Cluster::up(&Options::named(name)).await.unwrap();
        assert!(cluster.is_running(component), "{component}");
    }
    assert_service_answers(&cluster).await;
    for component in Component::ALWAYS {
        cluster.restart(component).unwrap();
        assert!(cluster.is_running(component), "{component}");
    }
    let cluster = Cluster::up(&Options::named(name)).await.unwrap();
    assert_service_answers(&cluster).await;

    end_everything(&cluster);
    assert!(Cluster::attach(name).is_err());
    let cluster = Cluster::up(&Options::named(name)).await.unwrap();
    wait_for_web(&cluster).await;
    assert_service_answers(&cluster).await;

    let traces = Traces::of(&cluster);
    cluster.down().unwrap();
    traces.assert_none();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the built components; make test runs it"]
async fn a_run_that_is_killed_is_completed_by_the_next_beside_another_cluster() {
    let names = ["test-harness-killed", "test-harness-beside"];
    let _guards = names.map(TakenDown);
    let mut run = Command::new(env!("CARGO_BIN_EXE_quartermaster-cluster"))
        .args(["--name", names[0], "up"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the run has begun the namespaces", || Cluster::attach(names[0]).is_ok()).await;
    run.kill().unwrap();
    run.wait().unwrap();

    let (one, two) = (Options::named(names[0]), Options::named(names[1]));
    let (one, two) = tokio::try_join!(Cluster::up(&one), Cluster::up(&two)).unwrap();
    assert_ne!(one.addresses(), two.addresses());
    for cluster in [one, two] {
        let nodes = Api::<Node>::all(cluster.client().await.unwrap()).list(&ListParams::default()).await.unwrap();
        assert_eq!(nodes.items.len(), 1);
        let traces = Traces::of(&cluster);
        cluster.down().unwrap();
        traces.assert_none();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the built components; make test runs it"]
async fn nodes_without_hardware_take_pods_that_ask_for_their_resources() {
    let name = "test-harness-kwok";
    let _guard = TakenDown(name);
    let kwok: KwokNodes = "kwok=3,nvidia.com/gpu=8".parse().unwrap();
    let cluster = Cluster::up(&Options { kwok: Some(kwok), ..Options::named(name) }).await.unwrap();
    cluster.apply(include_str!("gpu.yaml")).await.unwrap();
    wait_for_deployment(&cluster, "gpu", 6).await;
    let placed = cluster.kubectl(["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).await.unwrap();
    assert_eq!(placed.split(' ').filter(|node| node.starts_with("kwok-")).count(), 6, "{placed}");

    let address = cluster.prometheus("scrape_configs: []\n").unwrap();
    let host: Ipv4Addr = cluster.node_address();
    assert_eq!(address, format!("http://{host}:9090"));
    until("Prometheus answers", || get(host, 9090, "/-/ready").is_ok_and(|answer| answer.contains("Ready"))).await;
}

async fn deploy_web(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    images::compile_static(include_str!("server.rs.txt"), &program).unwrap();
    let image = Image {
        name: "quartermaster.dev/test-server:1".to_owned(),
        entrypoint: vec!["/server".to_owned()],
        files: vec![ImageFile::host("/server", 0o755, program)],
        ..Image::default()
    };
    let tar = folder.path().join("server.tar");
    image.write_tar(&tar).unwrap();
    for _ in 0..2 {
        assert_eq!(cluster.load_image(&tar).await.unwrap(), ["quartermaster.dev/test-server:1"]);
    }
    cluster.apply(include_str!("web.yaml")).await.unwrap();
    wait_for_web(cluster).await;
}

async fn wait_for_web(cluster: &Cluster) {
    wait_for_deployment(cluster, "web", 2).await;
}

async fn wait_for_deployment(cluster: &Cluster, name: &str, replicas: i32) {
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client().await.unwrap());
    let deadline = Instant::now() + LIMIT;
    loop {
        let deployment = deployments.get(name).await.unwrap();
        if deployment.status.and_then(|status| status.ready_replicas) == Some(replicas) {
            return;
        }
        if Instant::now() > deadline {
            let described = cluster.kubectl(["describe", "pods"]).await.unwrap();
            panic!("{name} has not {replicas} ready replicas:\n{described}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// From the host to the Service's address, from the pod by DNS to the Service again.
async fn assert_service_answers(cluster: &Cluster) {
    let services: Api<Service> = Api::default_namespaced(cluster.client().await.unwrap());
    let address = services.get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let address: Ipv4Addr = address.parse().unwrap();
    until("the Service answers through DNS", || {
        get(address, 80, "/via/web.default.svc.cluster.local").is_ok_and(|answer| answer.contains("hello from web-"))
    })
    .await;
}

async fn assert_tools_work(cluster: &Cluster) {
    assert!(cluster.helm(["version", "--short"]).await.unwrap().starts_with("v4.3.1"));
    assert!(cluster.kubectl(["version"]).await.unwrap().contains("Server Version: v1.34.4"));
    assert_eq!(cluster.kubectl(["exec", "deploy/web", "--", "/server", "ping"]).await.unwrap().trim(), "pong");
    assert!(cluster.kubectl(["logs", "deploy/web"]).await.unwrap().contains('/'));
    assert!(cluster.exec(["cat", "/etc/resolv.conf"]).await.unwrap().contains("svc.cluster.local"));
    let claim = cluster.kubectl(["get", "pvc", "web", "-o", "jsonpath={.status.phase}"]).await.unwrap();
    assert_eq!(claim, "Bound");
    let error = cluster.kubectl(["get", "nothing"]).await.unwrap_err();
    assert!(format!("{error:#}").contains("nothing"));
}

/// What a power cut does: every process, mount and link of the cluster is gone at once.
fn end_everything(cluster: &Cluster) {
    let status = Command::new("kill").args(["-9", &cluster.first_process().to_string()]).status().unwrap();
    assert!(status.success());
    let deadline = Instant::now() + LIMIT;
    while Cluster::attach(cluster.name()).is_ok() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get(host: Ipv4Addr, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(host, port).into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All that a cluster makes on a machine, by the names that it makes it under.
struct Traces {
    root: String,
    identity: String,
    namespaces: Vec<String>,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        let root = cluster.kubeconfig_path().parent().unwrap().display().to_string();
        let init = cluster.first_process();
        let namespaces = ["net", "mnt", "pid"].map(|kind| link(&format!("/proc/{init}/ns/{kind}")).unwrap());
        let traces = Self { root, identity: cluster.identity(), namespaces: namespaces.to_vec() };
        assert!(!traces.found().is_empty(), "the search for traces must see a cluster that stands");
        traces
    }

    fn assert_none(&self) {
        let found = self.found();
        assert!(found.is_empty(), "left behind: {found:#?}");
    }

    fn found(&self) -> Vec<String> {
        let mut found = self.processes();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&self.root)).map(|line| format!("mount {line}")));
        let places = [self.root.clone(), format!("/sys/class/net/{}", self.identity)];
        found.extend(places.into_iter().filter(|path| Path::new(path).exists()));
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let cgroups = hierarchies.chain([Path::new("/sys/fs/cgroup").to_owned()]).map(|path| path.join(&self.identity));
        found.extend(cgroups.filter(|path| path.exists()).map(|path| path.display().to_string()));
        found
    }

    fn processes(&self) -> Vec<String> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        pids.filter_map(|pid| self.belongs(&pid).then(|| format!("process {pid}"))).collect()
    }

    fn belongs(&self, pid: &str) -> bool {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let inside = ["net", "mnt", "pid"].iter().filter_map(|kind| link(&format!("/proc/{pid}/ns/{kind}")));
        arguments.contains(&self.root) || inside.into_iter().any(|namespace| self.namespaces.contains(&namespace))
    }
}

fn link(path: &str) -> Option<String> {
    fs::read_link(path).ok().map(|target| target.display().to_string())
}
