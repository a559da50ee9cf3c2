//! The static copier, built as xtask builds it (but for the static link).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn build(folder: &Path) -> PathBuf {
    let binary = folder.join("model-copy");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("model-copy/main.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built =
        Command::new(rustc).args(["--edition", "2024", "-D", "warnings", "-o"]).arg(&binary).arg(source).status();
    assert!(built.unwrap().success());
    binary
}

fn run(binary: &Path, arguments: &[&Path]) -> Output {
    Command::new(binary).args(arguments).output().unwrap()
}

#[test]
fn it_copies_whole_files_installs_itself_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let binary = build(folder.path());
    let (source, destination) = (folder.path().join("source"), folder.path().join("models/model.gguf"));
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::write(&source, vec![7; 3_000_000]).unwrap();
    std::fs::write(&destination, "an older model").unwrap();
    assert!(run(&binary, &[&source, &destination]).status.success());
    assert_eq!(std::fs::read(&destination).unwrap(), vec![7; 3_000_000]);
    let beside = std::fs::read_dir(folder.path().join("models")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut beside: Vec<_> = beside.collect();
    beside.sort();
    assert_eq!(beside, ["model.gguf", "model.gguf.pull-seconds"], "the time that it took, and nothing else");
    let seconds = std::fs::read_to_string(folder.path().join("models/model.gguf.pull-seconds")).unwrap();
    assert!(seconds.trim().parse::<f64>().unwrap() > 0.0, "{seconds}");

    let installed = folder.path().join("installed");
    assert!(run(&binary, &[Path::new("--install"), &installed]).status.success());
    assert_eq!(std::fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(run(&installed, &[&source, &destination]).status.success());

    let missing = run(&binary, &[&folder.path().join("none"), &destination]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("opening"));
    let nowhere = run(&binary, &[&source, Path::new("/proc/nowhere/model.gguf")]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("creating"));
    assert!(String::from_utf8_lossy(&run(&binary, &[]).stderr).contains("usage"));
}
