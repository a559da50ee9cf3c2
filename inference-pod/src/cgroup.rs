//! The container's own limits: how many cores its CPU quota feeds, and how much memory it may use.
//!
//! Both versions of cgroups; a limit may stand at any level between our group and the root, and the lowest counts.

use std::fs;
use std::path::{Path, PathBuf};

/// cgroup v1 writes "no limit" as a number near `i64::MAX`.
const UNLIMITED_FROM: u64 = 1 << 60;
/// Levels that are walked up, at most.
const LEVELS_MAX: usize = 32;

/// Limits of this process's container; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPU quota in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Reads the limits of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::read(Path::new("/sys/fs/cgroup"), &membership)
    }

    /// Reads the limits under `root` for a process with these lines in `/proc/PID/cgroup`.
    #[must_use]
    pub fn read(root: &Path, membership: &str) -> Self {
        let mut limits = Self::default();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                for group in levels(root, path) {
                    limits.lower(v2_cpu(&group), number(&group.join("memory.max")));
                }
            }
            // v1 mounts a controller under its own name or under the joined ones ("cpu,cpuacct").
            for controller in controllers.split(',') {
                for mount in [root.join(controllers), root.join(controller)] {
                    for group in levels(&mount, path) {
                        limits.lower(
                            (controller == "cpu").then(|| v1_cpu(&group)).flatten(),
                            (controller == "memory").then(|| number(&group.join("memory.limit_in_bytes"))).flatten(),
                        );
                    }
                }
            }
        }
        limits
    }

    fn lower(&mut self, cpu: Option<u64>, memory: Option<u64>) {
        let least = |old: Option<u64>, new: Option<u64>| old.into_iter().chain(new).min();
        self.cpu_millis = least(self.cpu_millis, cpu);
        self.memory_bytes = least(self.memory_bytes, memory.filter(|bytes| *bytes < UNLIMITED_FROM));
    }

    /// Threads that the quota feeds: rounded up, at least one, at most the machine's cores. More would only be throttled.
    #[must_use]
    pub fn threads(&self, cores: usize) -> usize {
        let fed = self.cpu_millis.map_or(cores, |millis| usize::try_from(millis.div_ceil(1000)).unwrap_or(cores));
        fed.clamp(1, cores.max(1))
    }
}

/// Our group and those above it. Inside a container the path may name a group that is not mounted here: then the mount's
/// root is ours.
fn levels(mount: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let escapes = relative.components().any(|part| matches!(part, std::path::Component::ParentDir));
    let own = if escapes { mount.to_owned() } else { mount.join(relative) };
    let above = own.ancestors().take(LEVELS_MAX).take_while(|group| group.starts_with(mount));
    above.map(Path::to_owned).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn millis(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

fn v2_cpu(group: &Path) -> Option<u64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    millis(quota.parse().ok()?, period.parse().ok()?)
}

fn v1_cpu(group: &Path) -> Option<u64> {
    // "-1" is no quota and no u64.
    millis(number(&group.join("cpu.cfs_quota_us"))?, number(&group.join("cpu.cfs_period_us"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn v2_takes_the_lowest_limit_on_the_way_up() {
        let root = tree(&[
            ("pod/box/cpu.max", "max 100000\n"),
            ("pod/cpu.max", "30000 100000\n"),
            ("pod/box/memory.max", "268435456\n"),
            ("pod/memory.max", "max\n"),
        ]);
        let limits = Limits::read(root.path(), "0::/pod/box\n");
        assert_eq!(limits, Limits { cpu_millis: Some(300), memory_bytes: Some(268_435_456) });
        assert_eq!(limits.threads(8), 1);
    }

    #[test]
    fn v1_reads_each_controller_where_it_is_mounted() {
        let root = tree(&[
            ("cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n"),
            ("cpu,cpuacct/box/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("memory/box/memory.limit_in_bytes", "1048576\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let limits = Limits::read(root.path(), "4:cpu,cpuacct:/box\n3:memory:/box\n");
        assert_eq!(limits, Limits { cpu_millis: Some(2500), memory_bytes: Some(1_048_576) });
        assert_eq!((limits.threads(8), limits.threads(2)), (3, 2));
    }

    #[test]
    fn a_path_that_is_not_mounted_here_means_the_root_of_the_mount() {
        let root = tree(&[("cpu.max", "150000 100000\n")]);
        assert_eq!(Limits::read(root.path(), "0::/kubepods/pod1/box\n").cpu_millis, Some(1500));
        assert_eq!(Limits::read(root.path(), "0::/../../box\n").cpu_millis, Some(1500));
    }

    #[test]
    fn no_limit_means_every_core() {
        let root = tree(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        let limits = Limits::read(root.path(), "3:memory:/\n");
        assert_eq!(limits, Limits::default());
        assert_eq!(limits.threads(6), 6);
        assert_eq!(limits.threads(0), 1);
    }
}
