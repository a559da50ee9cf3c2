//! Manifests, and which of their layers to take.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The annotation with a layer's file name.
const TITLE: &str = "org.opencontainers.image.title";
/// What Ollama calls a GGUF file.
const OLLAMA: &str = "application/vnd.ollama.image.model";

/// What a registry says of a blob or a manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// A manifest of an image or an artifact, or an index of such.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What to fetch next.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// One of an index.
    Manifest(&'a Descriptor),
    /// A layer that is the file.
    File(&'a Descriptor),
    /// Tars that may hold the file, the uppermost first.
    Layers(Vec<&'a Descriptor>),
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest can't be read: {error}"))
    }
}

impl Descriptor {
    fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(|title| title.trim_start_matches("./").trim_start_matches('/'))
    }

    fn is_tar(&self) -> bool {
        let kind = &self.media_type;
        self.title().is_none() && (kind.contains(".tar") || kind.ends_with("+gzip") || kind.ends_with("+zstd"))
    }

    fn is_model(&self) -> bool {
        self.title().is_some_and(|title| title.ends_with(".gguf"))
            || self.media_type.contains("gguf")
            || self.media_type == OLLAMA
    }
}

/// Chooses; `file` has no slash at its beginning, `architecture` is Rust's name.
pub(super) fn choose<'a>(manifest: &'a Manifest, file: Option<&str>, architecture: &str) -> Result<Choice<'a>, String> {
    if !manifest.manifests.is_empty() {
        return of_index(&manifest.manifests, architecture).map(Choice::Manifest);
    }
    let layers = &manifest.layers;
    match file {
        None => only(layers).map(Choice::File),
        Some(file) => {
            if let Some(layer) = titled(layers, file) {
                return Ok(Choice::File(layer));
            }
            let tars: Vec<_> = layers.iter().rev().filter(|layer| layer.is_tar()).collect();
            match tars.iter().find(|layer| layer.media_type.ends_with("zstd")) {
                Some(_) => {
                    Err("its layers are compressed with zstd, which is not known here: push it with gzip".into())
                }
                None if tars.is_empty() => Err(format!("it has no file {file}; it has {}", names(layers))),
                None => Ok(Choice::Layers(tars)),
            }
        }
    }
}

fn of_index<'a>(manifests: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, String> {
    let wanted = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |one: &&Descriptor| {
        one.platform.as_ref().is_some_and(|platform| platform.os == "linux" && platform.architecture == wanted)
    };
    // What is neither for a machine nor an attestation of one is for all.
    let for_all = |one: &&Descriptor| one.platform.is_none();
    let only = || manifests.first().filter(|_| manifests.len() == 1);
    let found = manifests.iter().find(fits).or_else(|| manifests.iter().find(for_all)).or_else(only);
    found.ok_or_else(|| format!("its index has nothing for linux/{wanted}"))
}

/// The layer of this name; a bare file name may leave out folders where that is unambiguous.
fn titled<'a>(layers: &'a [Descriptor], file: &str) -> Option<&'a Descriptor> {
    let exact = layers.iter().find(|layer| layer.title() == Some(file));
    let base = |layer: &&Descriptor| layer.title().and_then(|title| title.rsplit('/').next()) == Some(file);
    let mut alike = layers.iter().filter(base);
    exact.or_else(|| alike.next().filter(|_| alike.next().is_none()))
}

/// The only file there is.
fn only(layers: &[Descriptor]) -> Result<&Descriptor, String> {
    let files: Vec<_> = layers.iter().filter(|layer| !layer.is_tar()).collect();
    let models: Vec<_> = files.iter().copied().filter(|layer| layer.is_model()).collect();
    match (models.as_slice(), files.as_slice()) {
        ([one], _) | ([], [one]) => Ok(one),
        ([], []) => Err("it is an image, and which file of it is not said: write #/PATH behind it".into()),
        _ => Err(format!("it has {}: write #/NAME behind it", names(layers))),
    }
}

fn names(layers: &[Descriptor]) -> String {
    let names: Vec<_> = layers.iter().filter_map(Descriptor::title).take(8).collect();
    if names.is_empty() { "no file with a name".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn layer(digest: &str, kind: &str, title: Option<&str>) -> Value {
        let annotations = title.map(|title| json!({TITLE: title})).unwrap_or(json!({}));
        json!({"mediaType": kind, "digest": digest, "size": 1, "annotations": annotations})
    }

    fn chosen(manifest: &Value, file: Option<&str>) -> Result<Vec<String>, String> {
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        Ok(match choose(&manifest, file, "x86_64")? {
            Choice::Manifest(one) | Choice::File(one) => vec![one.digest.clone()],
            Choice::Layers(layers) => layers.into_iter().map(|layer| layer.digest.clone()).collect(),
        })
    }

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn artifacts_are_files() {
        let two = json!({"layers": [
            layer("a", "application/octet-stream", Some("README.md")),
            layer("b", "application/octet-stream", Some("q8/model.gguf")),
        ]});
        assert_eq!(chosen(&two, Some("README.md")).unwrap(), ["a"]);
        assert_eq!(chosen(&two, Some("q8/model.gguf")).unwrap(), ["b"]);
        assert_eq!(chosen(&two, Some("model.gguf")).unwrap(), ["b"]);
        assert_eq!(chosen(&two, None).unwrap(), ["b"]);
        let error = chosen(&two, Some("other.gguf")).unwrap_err();
        assert!(error.contains("README.md, q8/model.gguf"), "{error}");
        let three = json!({"layers": [layer("a", "x", Some("1.gguf")), layer("b", "x", Some("2.gguf"))]});
        assert!(chosen(&three, None).unwrap_err().contains("#/NAME"));
        let ollama =
            json!({"layers": [layer("t", "application/vnd.ollama.image.template", None), layer("m", OLLAMA, None)]});
        assert_eq!(chosen(&ollama, None).unwrap(), ["m"]);
        let docker = json!({"layers": [layer("m", "application/vnd.docker.ai.gguf.v3", None)]});
        assert_eq!(chosen(&docker, None).unwrap(), ["m"]);
    }

    #[test]
    fn images_are_layers_the_uppermost_first() {
        let image = json!({"layers": [layer("base", TAR, None), layer("top", TAR, None)]});
        assert_eq!(chosen(&image, Some("model.gguf")).unwrap(), ["top", "base"]);
        assert!(chosen(&image, None).unwrap_err().contains("#/PATH"));
        let zstd = json!({"layers": [layer("z", "application/vnd.oci.image.layer.v1.tar+zstd", None)]});
        assert!(chosen(&zstd, Some("m")).unwrap_err().contains("gzip"));
    }

    #[test]
    fn an_index_leads_to_this_machines_image() {
        let of = |digest: &str, architecture: &str| json!({"digest": digest, "platform": {"architecture": architecture, "os": "linux"}});
        let index = json!({"manifests": [of("arm", "arm64"), of("amd", "amd64"), of("att", "unknown")]});
        assert_eq!(chosen(&index, Some("m")).unwrap(), ["amd"]);
        let foreign = json!({"manifests": [of("arm", "arm64"), of("s", "s390x")]});
        assert!(chosen(&foreign, None).unwrap_err().contains("linux/amd64"));
        assert_eq!(chosen(&json!({"manifests": [of("arm", "arm64")]}), None).unwrap(), ["arm"]);
        assert!(Manifest::parse(b"<html>").is_err());
    }
}
