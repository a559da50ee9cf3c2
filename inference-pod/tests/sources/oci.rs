//! oci://: a small registry, with the few endpoints that pulling takes.

use crate::content::{Content, noise, sha256};
use crate::run::{Node, text};
use crate::server;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Method, Response, header};
use axum::routing::{any, get};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// With a token, which everybody gets.
    Anonymous,
    /// With a token, for `user:pass`.
    Token,
    /// With `user:pass` itself.
    Basic,
}

struct Registry {
    blobs: Mutex<BTreeMap<String, Content>>,
    manifests: Mutex<BTreeMap<String, String>>,
    door: Door,
    tokens: Mutex<u32>,
}

/// `user:pass`.
const BASIC: &str = "Basic dXNlcjpwYXNz";

impl Registry {
    fn start(door: Door) -> (Arc<Self>, String) {
        let (blobs, manifests) = (Mutex::default(), Mutex::default());
        let registry = Arc::new(Self { blobs, manifests, door, tokens: Mutex::new(0) });
        let (one, two) = (Arc::clone(&registry), Arc::clone(&registry));
        let pull = move |path: Path<String>, method: Method, headers: HeaderMap| {
            std::future::ready(one.pull(&path, &method, &headers))
        };
        let token = move |query: Query<BTreeMap<String, String>>, headers: HeaderMap| {
            std::future::ready(two.token(&query, &headers))
        };
        let host = server::plain(Router::new().route("/v2/{*path}", any(pull)).route("/token", get(token)));
        (registry, host)
    }

    fn token(&self, query: &BTreeMap<String, String>, headers: &HeaderMap) -> Response<Body> {
        assert_eq!((query["scope"].as_str(), query["service"].as_str()), ("repository:team/models:pull", "test"));
        *self.tokens.lock().unwrap() += 1;
        let known = headers.get(header::AUTHORIZATION).is_some_and(|value| value == BASIC);
        let response = Response::builder();
        if self.door == Door::Token && !known {
            return response.status(401).body("who are you?".into()).unwrap();
        }
        response.body(json!({"token": "pull-token", "expires_in": 300}).to_string().into()).unwrap()
    }

    fn pull(&self, path: &str, method: &Method, headers: &HeaderMap) -> Response<Body> {
        let wanted = match self.door {
            Door::Open => None,
            Door::Anonymous | Door::Token => Some("Bearer pull-token"),
            Door::Basic => Some(BASIC),
        };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        if wanted.is_some() && given != wanted {
            let host = headers[header::HOST].to_str().unwrap();
            let challenge = if self.door == Door::Basic {
                "Basic realm=\"test\"".to_owned()
            } else {
                format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:team/models:pull\"")
            };
            let response = Response::builder().status(401).header(header::WWW_AUTHENTICATE, challenge);
            return response.body(r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.into()).unwrap();
        }
        let (kind, reference) = path.strip_prefix("team/models/").unwrap().split_once('/').unwrap();
        let missing = || Response::builder().status(404).body(r#"{"errors":[{"code":"UNKNOWN"}]}"#.into()).unwrap();
        match kind {
            "manifests" => {
                assert!(headers[header::ACCEPT].to_str().unwrap().contains("vnd.oci.image.manifest.v1+json"));
                let manifest = self.manifests.lock().unwrap().get(reference).cloned();
                manifest.map_or_else(missing, |text| Response::new(text.into()))
            }
            "blobs" => {
                let blob = self.blobs.lock().unwrap().get(reference).cloned();
                blob.map_or_else(missing, |content| content.answer(method, headers))
            }
            other => panic!("{other}"),
        }
    }

    /// Pushes a blob; returns its descriptor.
    fn push(&self, bytes: &[u8], kind: &str, title: Option<&str>) -> (Value, Content) {
        let (digest, content) = (format!("sha256:{}", sha256(bytes)), Content::new(bytes.to_vec()));
        self.blobs.lock().unwrap().insert(digest.clone(), content.clone());
        let mut descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        if let Some(title) = title {
            descriptor["annotations"] = json!({"org.opencontainers.image.title": title});
        }
        (descriptor, content)
    }

    /// Pushes a manifest under a tag; returns its digest.
    fn tag(&self, tag: &str, manifest: &Value) -> String {
        let text = manifest.to_string();
        let digest = format!("sha256:{}", sha256(text.as_bytes()));
        let mut manifests = self.manifests.lock().unwrap();
        manifests.insert(digest.clone(), text.clone());
        manifests.insert(tag.to_owned(), text);
        digest
    }
}

fn tar(files: &[(&str, &[u8])], gzip: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    let plain = builder.into_inner().unwrap();
    if !gzip {
        return plain;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_artifacts_file_is_found_by_its_title() {
    let (registry, host) = Registry::start(Door::Anonymous);
    let bytes = noise(50, 300_000);
    let (readme, _) = registry.push(b"read me", "text/markdown", Some("README.md"));
    let (model, blob) = registry.push(&bytes, "application/vnd.example.gguf", Some("m.gguf"));
    blob.set(|manner| manner.cut = Some(200_000));
    let manifest = json!({"schemaVersion": 2, "layers": [readme, model]});
    let digest = registry.tag("q8", &manifest);
    // The tag is an index that leads to the manifest.
    registry.tag("many", &json!({"manifests": [{"digest": digest, "size": 1, "mediaType": "x"}]}));
    let node = Node::new();
    node.fetch(&format!("oci://{host}/team/models:many#/m.gguf"), &[]).brought(&bytes, 300_000);
    assert_eq!(blob.starts(), [0, 200_000]);
    assert_eq!(*registry.tokens.lock().unwrap(), 1);
    // By digest, and without a name since only one is a model: the same file.
    node.fetch(&format!("oci://{host}/team/models@{digest}"), &[]).brought(&bytes, 0);
    let said = node.fetch(&format!("oci://{host}/team/models:q8#/n.gguf"), &[]).refused("ModelNotFound");
    assert!(said.contains("it has README.md, m.gguf"), "{said}");
    let said = node.fetch(&format!("oci://{host}/team/models:none#/m.gguf"), &[]).refused("ModelNotFound");
    assert!(said.contains("HTTP 404") && said.contains("that tag"), "{said}");
}

#[test]
fn an_images_file_is_taken_out_of_its_layers() {
    let (registry, host) = Registry::start(Door::Open);
    let (bytes, old) = (noise(51, 400_000), noise(52, 1000));
    let below = tar(&[("etc/os-release", b"x"), ("model.gguf", &old), ("gone.gguf", &old)], false);
    let above = tar(&[(".wh.gone.gguf", b""), ("model.gguf", &bytes)], true);
    let (below, lower) = registry.push(&below, TAR, None);
    let (above, upper) = registry.push(&above, TAR_GZIP, None);
    registry.tag("q8", &json!({"layers": [below, above]}));
    let node = Node::new();
    let url = |path: &str| format!("oci://{host}/team/models:q8#/{path}");
    let length = upper.manner.lock().unwrap().bytes.len();
    upper.set(|manner| manner.cut = Some(150_000));
    node.fetch(&url("model.gguf"), &[]).brought(&bytes, length);
    // The layer is given up, the file stays, and the layer below was not asked for.
    assert_eq!((node.cached("entries"), lower.starts()), (vec![sha256(&bytes)], vec![]));
    assert!(node.cached("partial").is_empty());
    node.fetch(&url("model.gguf"), &[]).brought(&bytes, 0);
    node.fetch(&url("etc/os-release"), &["--sha256", &sha256(b"x")]);
    assert!(node.cached("entries").contains(&sha256(b"x")));
    let said = node.fetch(&url("gone.gguf"), &[]).refused("ModelNotFound");
    assert!(said.contains("the image has no gone.gguf"), "{said}");
    let said = node.fetch(&url("model.gguf"), &["--sha256", &sha256(b"other")]).refused("CorruptModel");
    assert!(said.contains(&sha256(&bytes)), "{said}");
    let said = node.fetch(url("x").split('#').next().unwrap(), &[]).refused("ModelNotFound");
    assert!(said.contains("#/PATH"), "{said}");
}

#[test]
fn credentials_come_from_dockers_config() {
    for door in [Door::Token, Door::Basic] {
        let (registry, host) = Registry::start(door);
        let bytes = noise(53, 50_000);
        let (model, _) = registry.push(&bytes, "application/vnd.example.gguf", None);
        registry.tag("q8", &json!({"layers": [model]}));
        let node = Node::new();
        let url = format!("oci://{host}/team/models:q8");
        let said = node.fetch(&url, &[]).refused("SourceUnavailable");
        assert!(said.contains("HTTP 401") && said.contains("QM_DOCKER_CONFIG"), "{said}");
        let config = node.path("config.json");
        std::fs::write(&config, json!({"auths": {&host: {"auth": "dXNlcjpwYXNz"}}}).to_string()).unwrap();
        node.fetch(&url, &["--docker-config", &text(&config)]).brought(&bytes, 50_000);
    }
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let (registry, host) = Registry::start(Door::Open);
    let (model, blob) = registry.push(&noise(54, 50_000), "application/vnd.example.gguf", None);
    let digest = registry.tag("q8", &json!({"layers": [model]}));
    blob.set(|manner| manner.bytes = Arc::new(noise(55, 50_000)));
    let node = Node::new();
    node.fetch(&format!("oci://{host}/team/models:q8"), &[]).refused("CorruptModel");
    assert!(node.cached("entries").is_empty() && node.cached("partial").is_empty());
    registry.manifests.lock().unwrap().insert(digest.clone(), json!({"layers": []}).to_string());
    let said = node.fetch(&format!("oci://{host}/team/models@{digest}"), &[]).refused("CorruptModel");
    assert!(said.contains("do not trust the registry"), "{said}");
}
