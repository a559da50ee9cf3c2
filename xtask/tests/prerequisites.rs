//! What `make demo` and `make test` say before anything is built.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use xtask::workspace;

/// Runs the script as somebody with this user id, on a machine with a broken Rust: that is looked at next, and ends it.
fn run(uid: u32, targets: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for (program, does) in [("id", format!("echo {uid}")), ("cargo", "exit 1".to_owned())] {
        let path = folder.path().join(program);
        fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("/bin/sh");
    command.arg("xtask/prerequisites.sh").args(targets).current_dir(workspace::root());
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display())).output().unwrap()
}

#[test]
fn a_target_that_needs_root_says_so_first_in_one_sentence() {
    let output = run(1000, &["demo"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("`make demo`") && said.contains("needs root"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn root_and_who_names_no_target_get_on() {
    for (uid, targets) in [(0, &["demo"][..]), (1000, &[])] {
        let said = String::from_utf8(run(uid, targets).stderr).unwrap();
        assert!(said.starts_with("Rust ") && !said.contains("needs root"), "{said}");
    }
}
