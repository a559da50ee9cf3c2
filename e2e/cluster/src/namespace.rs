//! The namespaces of a cluster (network, mount, pid), found again by their first process's arguments. Ending that
//! process ends all of it, so a killed run leaves nothing that the next one cannot find and remove.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::layout::Layout;
use crate::limits::{KILL, NAMESPACE_READY, POLL};
use crate::process::{self, Process};

const SCRIPT: &str = include_str!("namespace.sh");
const MARKER: &str = "quartermaster-cluster-init";
const LOG: &str = "namespace";

/// The living namespaces of one cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespace {
    init: i32,
}

impl Namespace {
    /// The namespaces of this cluster, if they live.
    pub(crate) fn find(layout: &Layout) -> Option<Self> {
        let root = layout.root().to_string_lossy();
        let is_own = |process: &Process| folder_of_init(process).is_some_and(|folder| *folder == root);
        let found = process::all().into_iter().find(is_own)?;
        Some(Self { init: found.pid })
    }

    /// Whether any cluster lives on this machine.
    pub(crate) fn any() -> bool {
        process::all().iter().any(|process| folder_of_init(process).is_some())
    }

    /// Makes the namespaces.
    pub(crate) fn create(layout: &Layout) -> Result<Self> {
        let log = open_log(&layout.log(LOG))?;
        // A session of its own: no terminal's hang-up or interrupt reaches the cluster.
        let mut child = Command::new("setsid")
            .args([
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--propagation",
                "private",
            ])
            .args(["sh", "-c", SCRIPT, MARKER])
            .arg(layout.root())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting unshare")?;
        let deadline = Instant::now() + NAMESPACE_READY;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                bail!("making the cluster's namespaces failed ({status}): {}", layout.log_tail(LOG));
            }
            if let Some(namespace) =
                Self::find(layout).filter(|namespace| namespace.inside("/run/namespace-made").exists())
            {
                thread::spawn(move || child.wait());
                return Ok(namespace);
            }
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().ok();
        child.wait().ok();
        bail!("the cluster's namespaces were not ready within {NAMESPACE_READY:?}: {}", layout.log_tail(LOG))
    }

    /// Pid of the first process.
    pub(crate) fn init(self) -> i32 {
        self.init
    }

    /// A path inside the mount namespace, as the host reaches it.
    pub(crate) fn inside(self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A command that runs inside. It dies with the process that waits for it.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter();
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    fn enter(self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.init.to_string(), "--"]);
        command
    }

    /// Starts a program inside that outlives this process; its output goes to `log`.
    pub(crate) fn start(self, program: &Path, arguments: &[String], log: &Path) -> Result<()> {
        let output = open_log(log)?;
        let mut command = Command::new("setsid");
        command.arg("nsenter").args(self.enter().get_args()).arg(program).args(arguments);
        command.current_dir("/").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut entered = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let outcome = wait_for_child(&mut entered, program);
        // nsenter only waits: without it the first process of the namespace adopts the program.
        entered.kill().ok();
        entered.wait().ok();
        outcome
    }

    /// Every process of the cluster's own pid namespace (those of containers have their own).
    pub(crate) fn processes(self) -> Vec<Process> {
        let Some(own) = process::namespace(self.init, "pid") else { return Vec::new() };
        process::all()
            .into_iter()
            .filter(|process| process::namespace(process.pid, "pid").as_ref() == Some(&own))
            .collect()
    }

    /// Ends every process inside, and those of the host that had entered.
    pub(crate) fn destroy(self) -> Result<()> {
        let guests = self.guests();
        let parent = process::parent(self.init)
            .filter(|parent| process::all().iter().any(|p| p.pid == *parent && p.program() == "unshare"));
        // The first process is gone only when all of its pid namespace is, containers included.
        end(self.init)?;
        guests.into_iter().chain(parent).try_for_each(end)
    }

    /// Processes that share the network or mount namespace, wherever their pids are counted.
    fn guests(self) -> Vec<i32> {
        let own = ["net", "mnt"].map(|kind| (kind, process::namespace(self.init, kind)));
        let shares = |pid: i32| own.iter().any(|(kind, id)| id.is_some() && process::namespace(pid, kind) == *id);
        process::all().iter().map(|process| process.pid).filter(|pid| shares(*pid)).collect()
    }
}

/// The state folder of the cluster whose first process this is.
fn folder_of_init(process: &Process) -> Option<&String> {
    let [shell, flag, _, marker, folder] = process.argv.as_slice() else { return None };
    let named = shell == "sh" && flag == "-c" && marker == MARKER;
    (named && process::is_inner_init(process.pid)).then_some(folder)
}

fn wait_for_child(entered: &mut std::process::Child, program: &Path) -> Result<()> {
    let pid = i32::try_from(entered.id())?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let deadline = Instant::now() + NAMESPACE_READY;
    while Instant::now() < deadline {
        let started = process::children(pid)
            .into_iter()
            .any(|child| process::all().iter().any(|p| p.pid == child && p.program() == name));
        if started {
            return Ok(());
        }
        ensure!(entered.try_wait()?.is_none(), "{} ended at once", program.display());
        thread::sleep(Duration::from_millis(5));
    }
    bail!("{} did not start within {NAMESPACE_READY:?}", program.display())
}

/// Kills a process and waits until it is gone.
pub(crate) fn end(pid: i32) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("killing process {pid}")),
    }
    let deadline = Instant::now() + KILL;
    while process::is_alive(pid) {
        ensure!(Instant::now() < deadline, "process {pid} still lives {KILL:?} after SIGKILL");
        thread::sleep(POLL / 8);
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("opening log {}", path.display()))
}
