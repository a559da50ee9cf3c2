//! Programs that come from Debian: missing ones are installed by root after saying so, else the command is named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::config::CNI_PLUGINS;
use crate::progress::say;

/// Programs and the packages that carry them. `prometheus` is asked for separately.
const ALWAYS: [(&str, &str); 12] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("ldd", "libc-bin"),
];

/// Folders that root's PATH may lack.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Fails unless this process may make namespaces and links.
pub(crate) fn require_root() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "a cluster of real pods needs root: run this with sudo, or use --existing with a cluster that you have"
    );
    Ok(())
}

/// Sees that everything is there that a cluster needs.
pub(crate) fn ensure_all() -> Result<()> {
    let mut missing: BTreeSet<&str> =
        ALWAYS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(CNI_PLUGINS).join("ptp").exists() {
        missing.insert("containernetworking-plugins");
    }
    install(&missing)
}

/// Sees that Prometheus is there.
pub(crate) fn ensure_prometheus() -> Result<()> {
    let missing = if find("prometheus").is_none() { BTreeSet::from(["prometheus"]) } else { BTreeSet::new() };
    install(&missing)
}

/// Full path of a program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Full path of a program that must be there.
pub(crate) fn path_of(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program} is not installed"))
}

fn install(missing: &BTreeSet<&str>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().copied().collect();
    let line = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !geteuid().is_root() || find("apt-get").is_none() {
        bail!("these are missing: {}. On Debian, install them with: sudo {line}", packages.join(", "));
    }
    say(format!("installing missing Debian packages, their services stay off: {line}"));
    let status = installer(&packages).status().context("running apt-get")?;
    ensure!(status.success(), "{line} failed");
    Ok(())
}

/// A shell, so that what it changes for a while is taken back when it is interrupted.
fn installer(packages: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", include_str!("install.sh"), "install.sh"]).args(packages);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An apt-get that notes whether services may start, and fails when it is told to install `broken`.
    const APT_GET: &str =
        "#!/bin/sh\n\"$POLICY_RC_D\" || echo \"$* $?\" >>\"$LOG\"\ncase $* in *broken*) exit 1 ;; esac\n";

    #[test]
    fn no_service_starts_while_packages_are_installed_and_a_policy_of_others_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (apt_get, policy, log) =
            (folder.path().join("apt-get"), folder.path().join("policy"), folder.path().join("log"));
        fs::write(&apt_get, APT_GET).unwrap();
        fs::set_permissions(&apt_get, fs::Permissions::from_mode(0o755)).unwrap();
        let install = |package: &str| {
            let path = std::env::join_paths([folder.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
            let mut command = installer(&[package]);
            command.env("PATH", path).env("POLICY_RC_D", &policy).env("LOG", &log).status().unwrap().success()
        };
        assert!(install("etcd-server"));
        assert!(!install("broken"));
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said.lines().filter(|line| line.ends_with(" 101")).count(), 4, "{said}");
        assert!(said.contains("install etcd-server 101"), "{said}");
        assert!(!policy.exists(), "the policy is taken back, after a failure too");
        fs::write(&policy, "#!/bin/sh\nexit 7\n").unwrap();
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(install("runc"));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "#!/bin/sh\nexit 7\n");
    }

    #[test]
    fn programs_are_found_on_the_path_only_if_they_are_there() {
        assert!(find("sh").unwrap().is_absolute());
        assert!(find("no-such-program-at-all").is_none());
        assert!(path_of("no-such-program-at-all").unwrap_err().to_string().contains("no-such-program-at-all"));
    }
}
