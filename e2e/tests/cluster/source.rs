//! Models that lie elsewhere: on a web server, fetched with what a Secret says, and on a volume.

use anyhow::{Context, Result, ensure};
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::openai::OpenAi;
use quartermaster_e2e::stage::{DEMO, Stage, root};
use quartermaster_e2e::story::TEAM_KEY;
use rcgen::{CertificateParams, KeyPair, SanType};
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn elsewhere_is_fetched_or_mounted(stage: &Stage) -> Result<()> {
    let narrator = Narrator::default();
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let file = folder.path().join("model.gguf");
    unpack(&root().join("dist/models/q4_0.tar"), &file)?;
    let web = Web::serve(stage.cluster().addresses().host().into(), fs::read(&file)?).await?;

    // Without the server's certificate: the model's condition says what to do.
    stage.apply(&narrator, &manifest("fetched", &web.url("model.gguf"))).await?;
    let says = async || {
        let model = stage.model_named("fetched").await?;
        Ok(model.condition("Stalled").is_some_and(|(_, reason, message)| {
            reason == "SourceUnavailable" && message.contains("QM_CA_FILE") && message.contains(&web.url("model.gguf"))
        }))
    };
    stage.until(SERVED_WITHIN, "the condition of a model whose server is not trusted says so", says).await?;
    ensure!(web.sent.load(Ordering::Relaxed) == 0, "something was sent to a stranger");
    stage.apply(&narrator, &secret(&web.certificate)).await?;
    // What failed is tried again after ten minutes, or at once when the spec changes.
    stage.apply(&narrator, &manifest("fetched", &web.url("again.gguf"))).await?;
    serves(stage, "fetched").await?;
    let metrics = metrics(stage, "fetched").await?;
    let pulled = metrics.lines().find(|line| line.contains("start_phase_seconds") && line.contains("phase=\"pull\""));
    ensure!(pulled.is_some_and(|line| !line.ends_with(" 0.0")), "no time of the pull: {pulled:?}");
    stage.kubectl(&["delete", "modeldeployment", "-n", DEMO, "fetched", "--wait=true", "--timeout=60s"]).await?;

    stage.apply(&narrator, &volume(folder.path())).await?;
    stage.apply(&narrator, &manifest("mounted", "pvc://models/model.gguf")).await?;
    serves(stage, "mounted").await?;
    for what in [
        &["delete", "modeldeployment", "-n", DEMO, "mounted", "--wait=true", "--timeout=60s"][..],
        &["delete", "pvc", "-n", DEMO, "models", "--wait=true", "--timeout=60s"],
        &["delete", "pv", "models", "--wait=true", "--timeout=60s"],
        &["delete", "secret", "-n", DEMO, "quartermaster-sources"],
    ] {
        stage.kubectl(what).await?;
    }
    Ok(())
}

async fn serves(stage: &Stage, name: &str) -> Result<()> {
    let only = async || Ok(stage.model_named(name).await?.only_serves("q4-0", "cpu-small"));
    stage.until(SERVED_WITHIN, &format!("{name} serves"), only).await?;
    let answer = OpenAi::new(stage.gateway(), TEAM_KEY)?.chat(name, "Hello", 4).await?;
    ensure!(answer.variant.as_deref() == Some("q4-0"), "{name} answers {}", answer.body);
    Ok(())
}

async fn metrics(stage: &Stage, name: &str) -> Result<String> {
    let selector = format!("quartermaster.dev/model={name}");
    let pod = ["get", "pods", "-n", DEMO, "-l", &selector, "--field-selector=status.phase=Running", "-o", "name"];
    let pods = stage.kubectl(&pod).await?;
    let pod = pods.trim().lines().last().and_then(|line| line.strip_prefix("pod/")).context("no pod")?;
    stage.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{DEMO}/pods/{pod}:8000/proxy/metrics")]).await
}

/// Takes the model out of its image.
fn unpack(image: &Path, to: &Path) -> Result<()> {
    let file = File::open(image).with_context(|| format!("no {}: `cargo xtask images --models`", image.display()))?;
    let mut blobs = tar::Archive::new(file);
    for blob in blobs.entries()? {
        let mut layer = tar::Archive::new(blob?);
        for entry in layer.entries()? {
            // Blobs that are no layers are no archives.
            let Ok(mut entry) = entry else { break };
            if entry.path()?.ends_with("model.gguf") {
                std::io::copy(&mut entry.by_ref(), &mut File::create(to)?)?;
                return Ok(());
            }
        }
    }
    anyhow::bail!("no model.gguf in {}", image.display())
}

/// A web server with a certificate that nobody knows, which has one file under every path.
struct Web {
    address: SocketAddr,
    certificate: String,
    /// Answers that were given.
    sent: Arc<AtomicU32>,
}

impl Web {
    async fn serve(host: IpAddr, content: Vec<u8>) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::IpAddress(host)];
        let certificate = parameters.self_signed(&key)?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private.into())?;
        let listener = TcpListener::bind((host, 0)).await.context("no port for the web server")?;
        let web = Self { address: listener.local_addr()?, certificate: certificate.pem(), sent: Arc::default() };
        let (acceptor, content, sent) =
            (TlsAcceptor::from(Arc::new(config)), Arc::<[u8]>::from(content), Arc::clone(&web.sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, content, sent) = (acceptor.clone(), Arc::clone(&content), Arc::clone(&sent));
                // Who does not trust us hangs up.
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    answer(stream, &content, &sent).await
                });
            }
        });
        Ok(web)
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }
}

async fn answer(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    content: &[u8],
    sent: &AtomicU32,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(stream.read_u8().await?);
    }
    sent.fetch_add(1, Ordering::Relaxed);
    let length = content.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    if !head.starts_with(b"HEAD") {
        stream.write_all(content).await?;
    }
    stream.shutdown().await
}

fn manifest(name: &str, source: &str) -> String {
    format!(
        "apiVersion: quartermaster.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {{name: {name}, namespace: {DEMO}}}\n\
         spec:\n  model: {name}\n  objective: {{type: MaximizeValue}}\n  \
         serving: {{contextTokens: 512, parallelRequests: 1}}\n  scaling: {{min: 1, max: 1}}\n  variants:\n    \
         - name: q4-0\n      source: {source}\n      format: GGUF\n      precision: Q4_0\n      \
         quality: {{score: \"0.9\", metric: User}}\n      hardware: [{{class: cpu-small, devicesPerReplica: 1}}]\n"
    )
}

fn secret(certificate: &str) -> String {
    let certificate = certificate.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: quartermaster-sources, namespace: {DEMO}}}\nstringData:\n  \
         QM_CA_FILE: /etc/quartermaster/sources/ca.crt\n  ca.crt: |\n    {certificate}\n"
    )
}

fn volume(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: models}}\nspec:\n  capacity: {{storage: 1Gi}}\n  \
         accessModes: [ReadOnlyMany]\n  storageClassName: by-hand\n  hostPath: {{path: {folder}}}\n---\n\
         apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: models, namespace: {DEMO}}}\nspec:\n  \
         accessModes: [ReadOnlyMany]\n  storageClassName: by-hand\n  volumeName: models\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}
