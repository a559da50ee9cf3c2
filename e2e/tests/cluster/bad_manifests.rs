//! Manifests that are wrong are refused with the field named, or end in a condition that says what is wrong.

use anyhow::{Result, ensure};
use quartermaster_cluster::oci_image::{Image, ImageFile};
use quartermaster_crds::condition::Reason;
use quartermaster_crds::v1alpha1::model_deployment::Verdict;
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::{Model, Stage};
use std::time::Duration;

const SAID_WITHIN: Duration = Duration::from_secs(90);
/// An image whose GGUF is none.
const CORRUPT_IMAGE: &str = "quartermaster.dev/models/corrupt:test";

/// One model that cannot be served, and what `Stalled` and the verdict on its only candidate must say.
struct Case {
    name: &'static str,
    source: &'static str,
    class: &'static str,
    reason: Reason,
    words: &'static str,
    verdict: Verdict,
}

const CASES: [Case; 4] = [
    Case {
        name: "unknown-class",
        source: "oci://quartermaster.dev/models/smollm2-135m:q4_0#/model.gguf",
        class: "no-such-class",
        reason: Reason::UnknownHardwareClass,
        words: "HardwareClass no-such-class",
        verdict: Verdict::UnknownClass,
    },
    Case {
        name: "no-such-source",
        source: "oci://quartermaster.dev/models/nowhere:none#/model.gguf",
        class: "cpu-small",
        reason: Reason::SourceUnavailable,
        words: "quartermaster.dev/models/nowhere:none",
        verdict: Verdict::SourceFailed,
    },
    Case {
        name: "corrupt-gguf",
        source: "oci://quartermaster.dev/models/corrupt:test#/model.gguf",
        class: "cpu-small",
        reason: Reason::ModelCorrupt,
        words: "is not a whole GGUF file",
        verdict: Verdict::SourceFailed,
    },
    Case {
        name: "too-large",
        source: "oci://quartermaster.dev/models/smollm2-135m:q8_0#/model.gguf",
        class: "cpu-small",
        reason: Reason::ModelTooLarge,
        words: "MiB",
        verdict: Verdict::DoesNotFit,
    },
];

pub(super) async fn each_says_what_is_wrong(stage: &Stage) -> Result<()> {
    let narrator = Narrator::default();
    malformed_is_refused(stage).await?;
    load_corrupt_image(stage).await?;
    for case in CASES {
        let name = case.name;
        stage.apply(&narrator, &manifest(name, case.source, case.class)).await?;
        let said = async || Ok(case.told(&stage.model_named(name).await?));
        let what = format!("ModelDeployment {name} is Stalled, {}, and says `{}`", case.reason, case.words);
        stage.until(SAID_WITHIN, &what, said).await?;
        stage.kubectl(&["delete", "modeldeployment", "-n", "demo", name, "--wait=true", "--timeout=60s"]).await?;
        let gone = async || Ok(stage.made_for(name).await?.is_empty());
        stage.until(SAID_WITHIN, &format!("nothing is left of ModelDeployment {name}"), gone).await?;
    }
    let healthy = async || Ok(stage.model().await?.ready());
    stage.until(SAID_WITHIN, "the good model is Ready beside the bad ones", healthy).await?;
    Ok(())
}

impl Case {
    /// Whether the model says what is wrong with it.
    fn told(&self, model: &Model) -> bool {
        let stalled = model.condition("Stalled").filter(|(status, reason, message)| {
            *status == "True" && *reason == self.reason.as_str() && message.contains(self.words)
        });
        let Some((_, reason, message)) = stalled.filter(|_| !model.ready()) else { return false };
        println!("{}: {reason}: {message}", self.name);
        model.status().considered.iter().all(|considered| considered.verdict == self.verdict)
    }
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
