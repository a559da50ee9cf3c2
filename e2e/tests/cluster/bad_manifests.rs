//! Manifests that are wrong are refused with the field named, or end in a condition that says what is wrong.

use anyhow::{Result, ensure};
use quartermaster_cluster::oci_image::{Image, ImageFile};
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::Stage;
use std::time::Duration;

const SAID_WITHIN: Duration = Duration::from_secs(90);
/// An image whose GGUF is none.
const CORRUPT_IMAGE: &str = "quartermaster.dev/models/corrupt:test";

/// What is wrong, the variant's source, its class, and words that some condition or verdict must say.
const CASES: [(&str, &str, &str, &str); 4] = [
    ("unknown-class", "oci://quartermaster.dev/models/smollm2-135m:q4_0#/model.gguf", "no-such-class", "no-such-class"),
    ("no-such-source", "oci://quartermaster.dev/models/nowhere:none#/model.gguf", "cpu-small", "nowhere"),
    ("corrupt-gguf", "oci://quartermaster.dev/models/corrupt:test#/model.gguf", "cpu-small", "GGUF"),
    ("too-large", "oci://quartermaster.dev/models/smollm2-135m:q8_0#/model.gguf", "cpu-small", "MiB"),
];

pub(super) async fn each_says_what_is_wrong(stage: &Stage) -> Result<()> {
    let narrator = Narrator::default();
    malformed_is_refused(stage).await?;
    load_corrupt_image(stage).await?;
    for (name, source, class, words) in CASES {
        stage.apply(&narrator, &manifest(name, source, class)).await?;
        let said = async || {
            let model = stage.model_named(name).await?;
            let status = model.status();
            let conditions = status.conditions.iter().map(|condition| condition.message.as_str());
            let verdicts = status.considered.iter().map(|considered| considered.message.as_str());
            let found = conditions.chain(verdicts).find(|message| message.contains(words)).map(str::to_owned);
            if let Some(message) = &found {
                println!("{name}: {message}");
            }
            Ok(found.is_some() && !model.ready())
        };
        stage.until(SAID_WITHIN, &format!("ModelDeployment {name} says `{words}`"), said).await?;
        stage.kubectl(&["delete", "modeldeployment", "-n", "demo", name, "--wait=true", "--timeout=60s"]).await?;
    }
    let healthy = async || Ok(stage.model().await?.ready());
    stage.until(SAID_WITHIN, "the good model is Ready beside the bad ones", healthy).await?;
    Ok(())
}

async fn malformed_is_refused(stage: &Stage) -> Result<()> {
    let bad = manifest("bad", "ftp://x", "cpu-small");
    let refusal = stage.apply(&Narrator::default(), &bad).await.err().map(|error| format!("{error:#}"));
    ensure!(
        refusal.as_ref().is_some_and(|text| text.contains("source")),
        "ftp:// was not refused by name: {refusal:?}"
    );
    let bad = manifest("bad", "oci://x/y:z#/m.gguf", "cpu-small").replace("max: 1", "max: many");
    let refusal = stage.apply(&Narrator::default(), &bad).await.err().map(|error| format!("{error:#}"));
    ensure!(
        refusal.as_ref().is_some_and(|text| text.contains("max")),
        "`max: many` was not refused by name: {refusal:?}"
    );
    Ok(())
}

async fn load_corrupt_image(stage: &Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tar = folder.path().join("corrupt.tar");
    let image = Image {
        name: CORRUPT_IMAGE.to_owned(),
        files: vec![ImageFile::bytes("/model.gguf", 0o644, b"GGUF, or so it says".to_vec())],
        ..Image::default()
    };
    image.write_tar(&tar)?;
    stage.cluster().load_image(&tar).await?;
    Ok(())
}

fn manifest(name: &str, source: &str, class: &str) -> String {
    format!(
        "apiVersion: quartermaster.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: {name}, namespace: demo}}
spec:
  model: {name}
  serving: {{contextTokens: 1024, parallelRequests: 4}}
  scaling: {{min: 1, max: 1}}
  variants:
    - name: only
      source: {source}
      format: GGUF
      precision: Q4_0
      quality: {{score: \"0.9\", metric: User}}
      hardware: [{{class: {class}}}]
"
    )
}
