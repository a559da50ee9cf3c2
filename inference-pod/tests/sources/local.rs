//! file:// and pvc://: used where they are.

use crate::content::sha256;
use crate::run::{Node, text};

#[test]
fn files_of_the_pod_are_used_where_they_are() {
    let node = Node::new();
    let model = node.path("m.gguf");
    std::fs::write(&model, "weights").unwrap();
    let url = format!("file://{}", text(&model));
    assert_eq!(node.fetch(&url, &["--sha256", &sha256(b"weights")]).brought(b"weights", 0), model);
    assert!(!node.path("cache").exists());
    node.fetch(&url, &["--sha256", &sha256(b"other")]).refused("CorruptModel");
    node.fetch(&format!("{url}.none"), &[]).refused("ModelNotFound");
    node.fetch("nothing", &[]).refused("BadConfig");
}

#[test]
fn claims_are_found_under_their_mounts() {
    let node = Node::new();
    let root = text(&node.path("pvc"));
    std::fs::create_dir_all(node.path("pvc/models/q8")).unwrap();
    std::fs::write(node.path("pvc/models/q8/m.gguf"), "weights").unwrap();
    let ended = node.fetch("pvc://models/q8/m.gguf", &["--pvc-root", &root]);
    assert_eq!(ended.brought(b"weights", 0), node.path("pvc/models/q8/m.gguf").canonicalize().unwrap());
    let said = node.fetch("pvc://other/m.gguf", &["--pvc-root", &root]).refused("ModelNotFound");
    assert!(said.contains("mount the claim other"), "{said}");
}
