//! Reads the names out of an image tar.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// An index.json longer than this is not one of ours.
const INDEX_LIMIT: u64 = 1 << 20;

/// An image that a tar holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// Full reference.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The named images of an OCI layout tar.
pub fn names_in_tar(path: &Path) -> Result<Vec<NamedImage>> {
    let file = File::open(path).with_context(|| format!("opening image tar {}", path.display()))?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().with_context(|| format!("reading image tar {}", path.display()))? {
        let entry = entry.with_context(|| format!("reading image tar {}", path.display()))?;
        if entry.path()?.as_os_str() == "index.json" {
            let index: Index = serde_json::from_reader(entry.take(INDEX_LIMIT))
                .with_context(|| format!("index.json of {}", path.display()))?;
            return Ok(index.manifests.into_iter().filter_map(named).collect());
        }
    }
    bail!("{} holds no index.json: it is no OCI layout tar", path.display())
}

fn named(manifest: Manifest) -> Option<NamedImage> {
    let name = manifest.annotations.get("io.containerd.image.name")?.clone();
    Some(NamedImage { name, digest: manifest.digest })
}
