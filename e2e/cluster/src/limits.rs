//! Every bound of this crate.

use std::time::Duration;

/// Slots of addresses: so many clusters can stand side by side on one machine.
pub(crate) const SLOTS: u8 = 64;
/// Longest cluster name.
pub(crate) const NAME_LENGTH: usize = 40;
/// How long the namespace may take to appear.
pub(crate) const NAMESPACE_READY: Duration = Duration::from_secs(10);
/// How long a process may take to vanish after SIGKILL.
pub(crate) const KILL: Duration = Duration::from_secs(20);
/// How long the API server may take until it is ready.
pub(crate) const API_READY: Duration = Duration::from_secs(90);
/// How long the node, DNS and added nodes may take until they are ready.
pub(crate) const NODE_READY: Duration = Duration::from_secs(120);
/// How long containerd may take until it answers.
pub(crate) const CONTAINERD_READY: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(150);
/// Pause between two progress lines of a long build.
pub(crate) const BUILD_PROGRESS: Duration = Duration::from_secs(15);
/// Components that are built at the same time.
pub(crate) const PARALLEL_BUILDS: usize = 2;
/// Volumes that stand ready for claims.
pub(crate) const VOLUMES: usize = 8;
/// Lines of a log that an error quotes.
pub(crate) const LOG_TAIL_LINES: usize = 12;
/// Bytes read from the end of a log for its tail.
pub(crate) const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// KWOK nodes at most.
pub(crate) const KWOK_NODES: usize = 5000;
/// Requests in flight while KWOK nodes are made.
pub(crate) const KWOK_CONCURRENCY: usize = 16;
/// Attempts to remove a cgroup that still empties.
pub(crate) const CGROUP_ATTEMPTS: usize = 40;
/// Attempts to take a lock whose file its holders remove.
pub(crate) const LOCK_ATTEMPTS: usize = 100;
