//! Processes as /proc shows them. A cluster keeps no list of pids: what runs is what runs in its pid namespace.

use std::fs;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Pid as this process sees it.
    pub pid: i32,
    /// Arguments, the program first.
    pub argv: Vec<String>,
}

impl Process {
    /// File name of the program.
    pub fn program(&self) -> &str {
        let first = self.argv.first().map(String::as_str).unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }

    /// Resident memory in KiB; absent once the process is gone.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status_field(&status, "VmRSS:")?.split_whitespace().next()?.parse().ok()
    }
}

/// Every living process (no zombies, no kernel threads).
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    all().iter().filter(|process| parent(process.pid) == Some(pid)).map(|process| process.pid).collect()
}

/// Identity of one of a process's namespaces, such as `pid:[4026531836]`.
pub(crate) fn namespace(pid: i32, kind: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.into_os_string().into_string().ok()
}

/// Whether the process is the first of an inner pid namespace.
pub(crate) fn is_inner_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status_field(&status, "NSpid:").is_some_and(is_init_in)
}

/// Whether the process still runs. One that is ending runs until the kernel has ended all that it must take along.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !has_ended(&stat))
}

/// The process that started this one.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    parent_in_stat(&stat(pid)?)
}

fn stat(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

fn read(pid: i32) -> Option<Process> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argv = split_arguments(&bytes);
    // A zombie and a kernel thread have no arguments.
    (!argv.is_empty()).then_some(Process { pid, argv })
}

fn split_arguments(bytes: &[u8]) -> Vec<String> {
    let trimmed = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if trimmed.is_empty() {
        return Vec::new();
    }
    trimmed.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn has_ended(stat: &str) -> bool {
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}

fn parent_in_stat(stat: &str) -> Option<i32> {
    // The name in brackets may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn status_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim)
}

fn is_init_in(pids: &str) -> bool {
    let mut pids = pids.split_whitespace();
    pids.next().is_some() && pids.next_back() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = all().into_iter().find(|process| process.pid == own).unwrap();
        assert!(process.resident_kib().unwrap() > 100);
        assert!(namespace(own, "pid").unwrap().starts_with("pid:["));
        assert!(is_alive(own));
    }

    #[test]
    fn parents_are_read_past_odd_names() {
        assert_eq!(parent_in_stat("12 (a) b) (c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in_stat("nonsense"), None);
        assert!(has_ended("12 (a) Z) Z 7 12 12 0") && !has_ended("12 (Z) D 7 12 12 0"));
    }

    #[test]
    fn only_inner_first_processes_are_inits() {
        assert!(is_init_in("4711\t1"));
        assert!(!is_init_in("1"));
        assert!(!is_init_in("4711\t12"));
    }

    #[test]
    fn arguments_are_split_and_the_program_named() {
        let process = Process { pid: 1, argv: split_arguments(b"/usr/bin/etcd\0--a\0\0") };
        assert_eq!(process.argv, ["/usr/bin/etcd", "--a", ""]);
        assert_eq!(process.program(), "etcd");
        assert!(split_arguments(b"").is_empty());
    }
}
