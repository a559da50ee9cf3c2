//! Objects that every cluster begins with: a default storage class and volumes that stand ready for claims.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::layout::Layout;
use crate::limits::{KILL, POLL, VOLUMES};

const CLASS: &str = "standard";
const FIELD_MANAGER: &str = "quartermaster-cluster";

/// Makes what is missing, and empties volumes whose claim was deleted.
pub(crate) async fn apply(client: kube::Client, layout: &Layout) -> Result<()> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let classes: Api<StorageClass> = Api::all(client.clone());
    classes
        .patch(CLASS, &parameters, &Patch::Apply(storage_class()))
        .await
        .context("making the default storage class")?;
    let volumes: Api<PersistentVolume> = Api::all(client);
    for index in 0..VOLUMES {
        let name = format!("volume-{index}");
        provide(&volumes, layout, &name).await.with_context(|| format!("making volume {name}"))?;
    }
    Ok(())
}

async fn provide(volumes: &Api<PersistentVolume>, layout: &Layout, name: &str) -> Result<()> {
    let folder = layout.volumes().join(name);
    let present = volumes.get_opt(name).await?;
    let phase = present.as_ref().and_then(|volume| volume.status.as_ref()?.phase.as_deref());
    if present.is_some() && phase != Some("Released") {
        return Ok(());
    }
    if present.is_some() {
        volumes.delete(name, &DeleteParams::default()).await?;
        wait_until_gone(volumes, name).await?;
        fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    // Any user may write: a pod's fsGroup does not reach a host path.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    volumes.patch(name, &parameters, &Patch::Apply(volume(name, &folder.to_string_lossy()))).await?;
    Ok(())
}

async fn wait_until_gone(volumes: &Api<PersistentVolume>, name: &str) -> Result<()> {
    let deadline = Instant::now() + KILL;
    while volumes.get_opt(name).await?.is_some() {
        ensure!(Instant::now() < deadline, "it is still being deleted after {KILL:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn storage_class() -> serde_json::Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": { "name": CLASS, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    })
}

fn volume(name: &str, path: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name },
        "spec": {
            "storageClassName": CLASS,
            "capacity": { "storage": "1Gi" },
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": { "path": path, "type": "Directory" },
        },
    })
}
