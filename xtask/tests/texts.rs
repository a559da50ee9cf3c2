//! What texts for people say of the repository is so.

use std::fs;

use xtask::workspace;

#[test]
fn every_source_file_that_architecture_names_is_there() {
    let text = fs::read_to_string(workspace::root().join("ARCHITECTURE.md")).unwrap();
    let files: Vec<&str> = text.split('`').filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
    assert!(files.len() > 10, "{files:?}");
    let gone: Vec<&&str> = files.iter().filter(|file| !workspace::root().join(file).is_file()).collect();
    assert!(gone.is_empty(), "{gone:?}");
}
