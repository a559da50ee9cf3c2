//! Builds the components that Debian does not carry, from Go modules pinned in `components/`, into the user's cache.
//! A build appears there under the hash of everything that went into it, and only when complete.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use crate::layout::{cache_folder, lock};
use crate::limits::{BUILD_PROGRESS, PARALLEL_BUILDS};
use crate::progress::say;

/// Oldest Go that builds all of them, as (major, minor).
const GO_VERSION: (u32, u32) = (1, 26);
const COMMON_FLAGS: [&str; 3] = ["-trimpath", "-buildvcs=false", "-v"];

/// A Go program that is built from a pinned module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Name of the binary.
    pub name: &'static str,
    package: &'static str,
    ldflags: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// Kubernetes: one binary for all its components and kubectl.
pub const KUBERNETES: Module = Module {
    name: "kubernetes",
    package: ".",
    // Helm refuses charts for a server that calls itself v0.0.0.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
    files: &[
        ("go.mod", include_str!("../components/kubernetes/go.mod")),
        ("go.sum", include_str!("../components/kubernetes/go.sum")),
        ("main.go", include_str!("../components/kubernetes/main.go")),
    ],
};

/// Cluster DNS.
pub const COREDNS: Module = Module {
    name: "coredns",
    package: ".",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("../components/coredns/go.mod")),
        ("go.sum", include_str!("../components/coredns/go.sum")),
        ("main.go", include_str!("../components/coredns/main.go")),
    ],
};

/// Helm.
pub const HELM: Module = Module {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    ldflags: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    files: &[
        ("go.mod", include_str!("../components/helm/go.mod")),
        ("go.sum", include_str!("../components/helm/go.sum")),
    ],
};

/// Nodes without hardware.
pub const KWOK: Module = Module {
    name: "kwok",
    package: "sigs.k8s.io/kwok/cmd/kwok",
    ldflags: "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0",
    files: &[
        ("go.mod", include_str!("../components/kwok/go.mod")),
        ("go.sum", include_str!("../components/kwok/go.sum")),
    ],
};

/// What every cluster needs.
pub const ALWAYS: [Module; 3] = [KUBERNETES, COREDNS, HELM];

impl Module {
    /// Where its binary is or will be.
    pub fn binary(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join(self.name))
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(cache_folder()?.join(self.key()))
    }

    fn key(&self) -> String {
        let mut hasher = Sha256::new();
        for part in [self.name, self.package, self.ldflags].into_iter().chain(COMMON_FLAGS) {
            hasher.update(part);
            hasher.update([0]);
        }
        for (file, content) in self.files {
            hasher.update(file);
            hasher.update([0]);
            hasher.update(content);
        }
        hex::encode(hasher.finalize())
    }

    fn build(&self) -> Result<()> {
        let binary = self.binary()?;
        if binary.exists() {
            return Ok(());
        }
        let cache = cache_folder()?;
        let _held = lock(&cache.join(format!(".{}.lock", self.name)))?;
        if binary.exists() {
            return Ok(());
        }
        // One folder for each module: what a killed build left goes when the next one begins.
        let work = cache.join(format!(".build-{}", self.name));
        fs::remove_dir_all(&work).ok();
        fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        for (file, content) in self.files {
            fs::write(work.join(file), content)?;
        }
        compile(self, &work)?;
        fs::create_dir_all(self.folder()?)?;
        fs::rename(work.join("out").join(self.name), &binary)
            .with_context(|| format!("moving {} into the cache", self.name))?;
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
    }
}

/// Builds those that are missing from the cache, a few at a time.
pub fn build(modules: &[Module]) -> Result<()> {
    let missing: Vec<Module> =
        modules.iter().copied().filter(|module| module.binary().is_ok_and(|path| !path.exists())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    check_go()?;
    let names: Vec<&str> = missing.iter().map(|module| module.name).collect();
    say(format!("building {} with Go; the first build downloads modules and takes minutes", names.join(", ")));
    let queue = std::sync::Mutex::new(missing.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || std::iter::from_fn(next).try_for_each(|module| module.build());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL_BUILDS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a build thread panicked"))?)
    })
}

fn compile(module: &Module, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let log_path = cache_folder()?.join(format!("{}.log", module.name));
    let mut go = Command::new("go")
        .arg("build")
        .args(COMMON_FLAGS)
        .args(["-ldflags", module.ldflags, "-o", &format!("out/{}", module.name), module.package])
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting go build")?;
    let stderr = go.stderr.take().context("go build has no output")?;
    let (lines, received) = channel();
    let mut log = File::create(&log_path)?;
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()).ok();
            lines.send(line).ok();
        }
    });
    report(module.name, start, &received);
    reader.join().map_err(|_| anyhow!("reading go's output failed"))?;
    let status = go.wait()?;
    ensure!(status.success(), "go build of {} failed ({status}); see {}", module.name, log_path.display());
    say(format!("{} built in {:.0} s", module.name, start.elapsed().as_secs_f32()));
    Ok(())
}

/// Says now and then how far a build is, until its output ends.
fn report(name: &str, start: Instant, lines: &Receiver<String>) {
    let (mut downloaded, mut compiled, mut last) = (0_usize, 0_usize, String::new());
    let mut said = Instant::now();
    loop {
        match lines.recv_timeout(BUILD_PROGRESS) {
            Ok(line) if line.starts_with("go: downloading") => downloaded += 1,
            Ok(line) => {
                compiled += 1;
                last = line;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if said.elapsed() >= BUILD_PROGRESS {
            said = Instant::now();
            let elapsed = start.elapsed().as_secs();
            say(format!("{name}: {elapsed} s, {downloaded} modules downloaded, {compiled} packages compiled {last}"));
        }
    }
}

fn check_go() -> Result<()> {
    let needed = format!(
        "Go {}.{} or newer is needed to build the cluster's components: see https://go.dev/dl",
        GO_VERSION.0, GO_VERSION.1
    );
    let output = Command::new("go").args(["env", "GOVERSION"]).output().with_context(|| needed.clone())?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let found = parse_go_version(&version).with_context(|| format!("{needed} (found {version:?})"))?;
    ensure!(found >= GO_VERSION, "{needed} (found {version})");
    Ok(())
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_everything_that_is_built_from() {
        let mut keys: Vec<String> = [KUBERNETES, COREDNS, HELM, KWOK].iter().map(Module::key).collect();
        keys.push(Module { ldflags: "-s", ..HELM }.key());
        keys.push(Module { files: &[("go.mod", "other")], ..HELM }.key());
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn go_versions_are_read() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_go_version("devel"), None);
    }

    #[test]
    fn versions_are_pinned_where_the_binary_is_stamped() {
        for (module, pinned) in [
            (KUBERNETES, "k8s.io/kubernetes v1.34.4"),
            (HELM, "helm.sh/helm/v4 v4.3.1"),
            (KWOK, "sigs.k8s.io/kwok v0.8.0"),
        ] {
            assert!(module.files[0].1.contains(pinned), "{pinned}");
            let version = pinned.rsplit(' ').next().unwrap();
            assert!(module.ldflags.contains(version), "{}", module.name);
        }
    }
}
