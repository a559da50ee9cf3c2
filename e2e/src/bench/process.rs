//! Processes of one cluster's containers, as the host's /proc shows them.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quartermaster_cluster::Cluster;
use std::fs;
use std::time::Duration;

/// Generations between a container's process and the cluster's first one (a shim, mostly); more is a loop.
const ANCESTORS_MAX: usize = 64;
/// Unit of the times in `/proc/PID/stat`: 100 a second on every Linux that we build for.
const TICK: Duration = Duration::from_millis(10);

/// A process: of a container, or of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pid: i32,
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) id: i32,
    pub(super) name: String,
    /// CPU time since its start, user and system.
    pub(super) cpu: Duration,
}

impl Program {
    /// Every process of this cluster that runs a program of this name; an error where none does.
    pub(super) fn all(cluster: &Cluster, name: &str) -> Result<Vec<Self>> {
        let first = cluster.first_process();
        let pids = fs::read_dir("/proc").context("could not list /proc")?;
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let found: Vec<Self> =
            pids.filter(|pid| runs(*pid, name) && descends(*pid, first)).map(|pid| Self { pid }).collect();
        ensure!(!found.is_empty(), "no {name} runs in cluster {}", cluster.name());
        Ok(found)
    }

    /// The process of this id.
    pub(super) fn of(pid: i32) -> Self {
        Self { pid }
    }

    /// Sends it a signal.
    pub(super) fn signal(self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("could not send {signal} to process {}", self.pid))
    }

    /// Its threads.
    pub(super) fn threads(self) -> Result<Vec<Thread>> {
        let folder = format!("/proc/{}/task", self.pid);
        let ids = fs::read_dir(&folder).with_context(|| format!("could not list {folder}"))?;
        let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // A thread may end while they are read.
        let stats = ids.filter_map(|id: i32| Some((id, fs::read_to_string(format!("{folder}/{id}/stat")).ok()?)));
        stats.map(|(id, stat)| thread(id, &stat).with_context(|| format!("no thread in `{stat}`"))).collect()
    }

    /// CPU time since its start, user and system; known to a hundredth of a second.
    pub(super) fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        let ticks = ticks(&stat).with_context(|| format!("no CPU time in `{stat}`"))?;
        TICK.checked_mul(ticks).context("a CPU time beyond measure")
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(self) -> Result<u64> {
        let status = self.read("status")?;
        field(&status, "VmRSS:").with_context(|| format!("no VmRSS of process {}", self.pid))
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("could not read {path}: the process has ended"))
    }
}

fn runs(pid: i32, name: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    program.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes())
}

fn descends(pid: i32, ancestor: i32) -> bool {
    let parent = |pid: &i32| field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "PPid:");
    std::iter::successors(Some(pid), parent).take(ANCESTORS_MAX).any(|pid| pid == ancestor)
}

fn field<T: std::str::FromStr>(status: &str, name: &str) -> Option<T> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

fn thread(id: i32, stat: &str) -> Option<Thread> {
    let (_, name) = stat.rsplit_once(')')?.0.split_once('(')?;
    Some(Thread { id, name: name.to_owned(), cpu: TICK.checked_mul(ticks(stat)?)? })
}

/// `utime` + `stime`, the 14th and 15th field; the second, a name in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(str::parse::<u32>);
    times.next()?.ok()?.checked_add(times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_past_odd_names() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4194304 118191 0 11 0 3007 953 0 0 20"), Some(3960));
        assert_eq!(ticks("7 (a) S 1"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 118191 0 11 0 3007 953 0 0 20";
        assert_eq!(thread(7, stat), Some(Thread { id: 7, name: "a) b".into(), cpu: Duration::from_millis(39_600) }));
    }

    #[test]
    fn this_process_descends_from_its_parent_and_has_memory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert!(descends(pid, parent) && !descends(parent, pid));
        let own = Program { pid };
        assert!(own.resident_kib().unwrap() > 100);
        assert!(own.cpu().unwrap() < Duration::from_secs(3600));
        assert!(own.threads().unwrap().iter().any(|thread| thread.id == pid));
    }
}
