//! The operator's signals by way of a real Prometheus that has scraped what the programs really say.
//!
//! Ignored like all that needs more than Rust: `prometheus` is installed by the harness's own tests, which run before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use quartermaster_operator::telemetry::{GatewayModel, Readings, prometheus};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(50);

/// Serves one page of metrics for as long as the test lives.
fn serve(page: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A request is one small packet; what it asks for does not matter here.
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "a scrape without a request");
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n", page.len());
            stream.write_all(format!("{head}connection: close\r\n\r\n{page}").as_bytes()).unwrap();
        }
    });
    address
}

struct Prometheus {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Scrapes the replica as Kubernetes' service discovery would label it, and the gateway.
fn prometheus(pod: SocketAddr, gateway: SocketAddr) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let mut config = "global: {scrape_interval: 1s}\nscrape_configs:\n".to_owned();
    let labels = "labels: {namespace: demo, pod: chat-1}";
    writeln!(config, "- {{job_name: pods, static_configs: [{{targets: [\"{pod}\"], {labels}}}]}}").unwrap();
    writeln!(config, "- {{job_name: gateways, static_configs: [{{targets: [\"{gateway}\"]}}]}}").unwrap();
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .stderr(Stdio::null())
        .spawn()
        .expect("no `prometheus` on the PATH: apt-get install prometheus");
    Prometheus { child, url: format!("http://{free}"), _folder: folder }
}

#[tokio::test]
#[ignore = "needs Prometheus"]
async fn what_replicas_and_gateways_say_comes_through_a_real_prometheus() {
    let pod = quartermaster_inference_pod::metrics::Metrics::new("chat");
    pod.serving("q8-0", "cpu-standard", 4);
    let gateway = quartermaster_gateway::metrics::Metrics::default();
    let model = gateway.model("demo", "chat");
    model.waiting.set(3);
    model.tokens_in_flight.set(120);
    let prometheus = prometheus(serve(pod.render()), serve(gateway.page(None, 0).unwrap()));
    let client = prometheus::client(reqwest::Client::new(), &prometheus.url).unwrap();
    let uids = [("demo/chat-1".to_owned(), "uid-1".to_owned())].into();
    let mut readings = Readings::default();
    let begin = Instant::now();
    while readings.pods.is_empty() || readings.gateways.is_empty() {
        assert!(begin.elapsed() < WITHIN, "{readings:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        prometheus::collect(&client, &uids, &mut readings).await;
    }
    let replica = &readings.pods["uid-1"];
    assert_eq!((replica.running, replica.waiting, replica.slots), (0, 0, Some(4)));
    let held = readings.gateways.values().next().unwrap().models["demo/chat"];
    assert_eq!((held.waiting, held.tokens_in_flight.0), (3, 120));
    assert_ne!(held, GatewayModel::default());
    assert!(readings.gateways_failed.is_none(), "{readings:?}");
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    assert!((0..60_000).contains(&(now - replica.at.0)), "the sample's own time comes along");
}
