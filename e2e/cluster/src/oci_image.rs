//! OCI images without a container engine: one layer of named files, a config, a manifest, an index, all in one tar
//! that `ctr images import` takes. The same input gives the same bytes (entries sorted, every time is the epoch).

mod archive;
mod inspect;
mod libraries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

pub use inspect::{NamedImage, names_in_tar};
pub use libraries::{library_files, shared_libraries};

use archive::{Blob, digest_layer, write_layout};

/// What goes into one image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Full reference, such as `quartermaster.dev/gateway:dev`.
    pub name: String,
    /// Command that a container runs when the pod names none.
    pub entrypoint: Vec<String>,
    /// Environment variables of the container.
    pub env: Vec<(String, String)>,
    /// User (`uid` or `uid:gid`); root when absent.
    pub user: Option<String>,
    /// Working directory; `/` when absent.
    pub working_dir: Option<String>,
    /// Files of the image; missing parent folders are added.
    pub files: Vec<ImageFile>,
}

/// One entry of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Absolute path inside the image.
    pub path: String,
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// What stands there.
    pub content: Content,
}

/// The content of an image entry.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file of these bytes.
    Bytes(Vec<u8>),
    /// A file copied from this path of the host (symlinks are followed).
    Host(PathBuf),
    /// A symbolic link to this target.
    Symlink(String),
    /// A folder.
    Directory,
}

impl ImageFile {
    /// A file of the given bytes.
    pub fn bytes(path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, content: Content::Bytes(bytes.into()) }
    }

    /// A file copied from the host.
    pub fn host(path: impl Into<String>, mode: u32, source: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode, content: Content::Host(source.into()) }
    }

    /// A folder, such as `/tmp` with mode `0o1777`.
    pub fn directory(path: impl Into<String>, mode: u32) -> Self {
        Self { path: path.into(), mode, content: Content::Directory }
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o777, content: Content::Symlink(target.into()) }
    }
}

impl Image {
    /// Writes the image as an OCI layout tar (replacing `path` only when complete) and returns the manifest's digest.
    pub fn write_tar(&self, path: &Path) -> Result<String> {
        let entries = self.entries().with_context(|| format!("image {}", self.name))?;
        let layer = digest_layer(&entries).with_context(|| format!("reading the files of image {}", self.name))?;
        let config = Blob::json(&self.config(&layer.digest))?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        }))?;
        let mut described = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        described["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described] });
        write_layout(path, &index, &[&config, &manifest], &layer, &entries)
            .with_context(|| format!("writing image {} to {}", self.name, path.display()))?;
        Ok(manifest.digest)
    }

    fn config(&self, layer_digest: &str) -> serde_json::Value {
        let env: Vec<String> = self.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user.clone().unwrap_or_default(),
                "Env": env,
                "Entrypoint": self.entrypoint,
                "WorkingDir": self.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            },
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "quartermaster" }],
        })
    }

    /// Every entry by its path without the leading slash, parents included; a map, so the order is fixed.
    fn entries(&self) -> Result<BTreeMap<String, ImageFile>> {
        ensure!(self.name.contains(':'), "the name needs a tag, such as example.org/thing:dev");
        let mut entries = BTreeMap::new();
        for file in &self.files {
            let path = relative(&file.path)?;
            if entries.insert(path.clone(), file.clone()).is_some() {
                bail!("two entries for /{path}");
            }
        }
        let parents: Vec<String> = entries.keys().flat_map(|path| parents_of(path)).collect();
        for parent in parents {
            let folder = ImageFile::directory(format!("/{parent}"), 0o755);
            let present = entries.entry(parent).or_insert(folder);
            ensure!(matches!(present.content, Content::Directory), "{} holds files but is no folder", present.path);
        }
        Ok(entries)
    }
}

fn relative(path: &str) -> Result<String> {
    let trimmed = path.strip_prefix('/').with_context(|| format!("{path:?} must begin with a slash"))?;
    let trimmed = trimmed.trim_end_matches('/');
    let clean = !trimmed.is_empty() && trimmed.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    ensure!(clean, "{path:?} must name an entry below / without `.`, `..` or empty parts");
    Ok(trimmed.to_owned())
}

fn parents_of(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect()
}

/// This machine's architecture under the name that OCI uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests;
