//! The committed YAML and the field reference are what the types say.

use std::path::Path;

/// Writes what differs and fails, so that a second run passes; with `CI=true` it only fails.
#[test]
fn committed_files_match_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let only_fail = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let mut stale = vec![];
    for file in quartermaster_crds::render::files().unwrap() {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|on_disk| on_disk == file.content) {
            continue;
        }
        if !only_fail {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &file.content).unwrap();
        }
        stale.push(file.path);
    }
    assert!(stale.is_empty(), "these files were stale: {stale:?}; re-run; commit the diff");
}
