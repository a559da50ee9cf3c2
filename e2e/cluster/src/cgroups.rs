//! The cgroups of a cluster's pods: one parent named for the cluster in each hierarchy (or in the only one, on cgroup v2).

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

use crate::limits::{CGROUP_ATTEMPTS, POLL};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the parent cgroup in every hierarchy.
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let path = hierarchy.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        inherit_cpuset(&hierarchy, &path)?;
        delegate(&hierarchy, &path);
    }
    Ok(())
}

/// Removes the parent cgroup and all below it. Its processes must be dead; the kernel may need a moment to notice.
pub(crate) fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let path = hierarchy.join(name);
        let mut outcome = remove_tree(&path);
        for _ in 0..CGROUP_ATTEMPTS {
            if outcome.is_ok() {
                break;
            }
            thread::sleep(POLL);
            outcome = remove_tree(&path);
        }
        outcome.with_context(|| format!("removing cgroup {}", path.display()))?;
    }
    Ok(())
}

/// The hierarchies: with cgroup v2 alone its root, else each mounted one.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![PathBuf::from(ROOT)];
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    parse_mounts(&mounts)
}

fn parse_mounts(mounts: &str) -> Vec<PathBuf> {
    let of_cgroup = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(of_cgroup).collect()
}

/// A fresh v1 cpuset holds no CPU, and no process can enter it.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.mems", "cpuset.cpus"] {
        let (from, to) = (parent.join(file), child.join(file));
        if from.exists() && fs::read_to_string(&to)?.trim().is_empty() {
            fs::write(&to, fs::read(&from)?).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    Ok(())
}

/// On v2 a parent must hand its controllers down. One that is not there cannot be, and the kubelet names it if it needs it.
fn delegate(parent: &Path, child: &Path) {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        for folder in [parent, child] {
            fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_is_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(parse_mounts(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }

    #[test]
    fn a_tree_of_folders_is_removed_from_its_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
