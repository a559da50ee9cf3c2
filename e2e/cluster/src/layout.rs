//! Where the files of a cluster lie, and the record that says which cluster a folder holds.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::addresses::Slot;
use crate::limits::{LOCK_ATTEMPTS, LOG_TAIL_BYTES, LOG_TAIL_LINES, NAME_LENGTH};

/// Folders that the namespace covers with its own: a state folder cannot lie below them.
const COVERED: [&str; 4] = ["/run", "/var/run", "/var/log", "/var/lib/cni"];

const ADDRESSES_LOCK: &str = ".addresses.lock";

/// The state folder of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    name: String,
    root: PathBuf,
}

/// What is remembered about a cluster.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) slot: Slot,
}

impl Layout {
    /// The state folder of the named cluster, which need not exist.
    pub(crate) fn of(name: &str) -> Result<Self> {
        check_name(name)?;
        let root = clusters_folder()?.join(name);
        if let Some(covered) = COVERED.iter().find(|folder| root.starts_with(folder)) {
            bail!(
                "the state folder {} lies below {covered}, which the cluster covers with its own: set XDG_STATE_HOME elsewhere",
                root.display()
            );
        }
        Ok(Self { name: name.to_owned(), root })
    }

    /// The cluster's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A name, unique on this machine and short enough for a link, of what this cluster makes outside its namespace.
    pub(crate) fn identity(&self) -> String {
        let digest = hex::encode(Sha256::digest(self.root.to_string_lossy().as_bytes()));
        format!("qm-{}", &digest[..8])
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Configuration of the components.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Links to the built components.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Log of one component.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.root.join("logs").join(format!("{component}.log"))
    }

    /// Folders behind the volumes of the default storage class.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Makes the folders.
    pub(crate) fn create(&self) -> Result<()> {
        for folder in
            ["pki", "config/cni", "bin", "logs", "etcd", "containerd", "kubelet", "pod-logs", "volumes", "prometheus"]
        {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    /// The record, if `up` got as far as writing one.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let path = self.root.join("cluster.json");
        match fs::read_to_string(&path) {
            Ok(text) => parse_record(&text).with_context(|| format!("reading {}", path.display())).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes the record.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        write_atomically(&self.root.join("cluster.json"), &serde_json::to_vec_pretty(record)?, 0o644)
    }

    /// Last lines of a component's log.
    pub(crate) fn log_tail(&self, component: &str) -> String {
        tail(&self.log(component)).unwrap_or_default()
    }

    /// Waits for, and takes, the right to change this cluster.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        lock(&self.lock_path())
    }

    /// Removes the lock's file, while it is held, once nothing of the cluster is left.
    pub(crate) fn forget_lock(&self) {
        fs::remove_file(self.lock_path()).ok();
    }

    fn lock_path(&self) -> PathBuf {
        self.root.with_file_name(format!(".{}.lock", self.name))
    }
}

/// Records of every cluster of this user.
pub(crate) fn all_records() -> Result<Vec<Record>> {
    let folder = clusters_folder()?;
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let layouts = names.filter(|name| !name.starts_with('.')).filter_map(|name| Layout::of(&name).ok());
    Ok(layouts.filter_map(|layout| layout.record().ok().flatten()).collect())
}

/// Takes the right to choose addresses.
pub(crate) fn lock_addresses() -> Result<Flock<File>> {
    lock(&clusters_folder()?.join(ADDRESSES_LOCK))
}

/// Removes the lock's file, while it is held, once no cluster is left.
pub(crate) fn forget_addresses_lock() -> Result<()> {
    fs::remove_file(clusters_folder()?.join(ADDRESSES_LOCK)).ok();
    Ok(())
}

/// Where built components are kept.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    Ok(base_folder("XDG_CACHE_HOME", ".cache")?.join("quartermaster").join("components"))
}

fn clusters_folder() -> Result<PathBuf> {
    Ok(base_folder("XDG_STATE_HOME", ".local/state")?.join("quartermaster").join("clusters"))
}

fn base_folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    let home = std::env::var_os("HOME").with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(PathBuf::from(home).join(below_home))
}

/// Takes an exclusive lock on a file, waiting for whoever holds it.
pub(crate) fn lock(path: &Path) -> Result<Flock<File>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    for _ in 0..LOCK_ATTEMPTS {
        let held = lock_once(path).with_context(|| format!("locking {}", path.display()))?;
        // Its last holder may have removed the file: then the lock is on nothing that others see.
        if fs::metadata(path).is_ok_and(|now| held.metadata().is_ok_and(|own| own.ino() == now.ino())) {
            return Ok(held);
        }
    }
    bail!("the lock {} was removed {LOCK_ATTEMPTS} times while it was waited for", path.display())
}

fn lock_once(path: &Path) -> Result<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(held),
        Err((file, _)) => {
            crate::progress::say(format!("waiting for another run that holds {}", path.display()));
            Ok(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?)
        }
    }
}

/// Writes a file so that readers see all of it or none.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= NAME_LENGTH;
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let ends = !name.starts_with('-') && !name.ends_with('-');
    ensure!(fits && letters && ends, "--name {name:?}: use at most {NAME_LENGTH} of a-z, 0-9 and inner hyphens");
    Ok(())
}

fn parse_record(text: &str) -> Result<Record> {
    let record: Record = serde_json::from_str(text).context("not the record of a cluster")?;
    check_name(&record.name)?;
    Ok(record)
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["quartermaster", "a", "test-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "A", "-a", "a-", "a b", &"x".repeat(41)] {
            assert!(check_name(bad).unwrap_err().to_string().contains("--name"), "{bad}");
        }
    }

    #[test]
    fn records_are_read_back_and_damage_is_named() {
        let record = Record { name: "one".to_owned(), slot: Slot::choose("one", &[], &[]).unwrap() };
        assert_eq!(parse_record(&serde_json::to_string(&record).unwrap()).unwrap(), record);
        assert!(parse_record("{\"name\": \"o").unwrap_err().to_string().contains("not the record"));
        assert!(parse_record("{\"name\": \"../o\", \"slot\": 1}").is_err());
    }

    #[test]
    fn identities_differ_and_fit_a_link_name() {
        let one = Layout { name: "one".to_owned(), root: PathBuf::from("/x/one") };
        let two = Layout { name: "two".to_owned(), root: PathBuf::from("/x/two") };
        assert_ne!(one.identity(), two.identity());
        assert!(one.identity().len() < 16);
    }

    #[test]
    fn a_lock_is_taken_anew_when_its_file_was_removed_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let first = lock(&path).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || lock(&path).unwrap()
        });
        fs::remove_file(&path).unwrap();
        drop(first);
        let held = waiting.join().unwrap();
        assert_eq!(held.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
        fs::write(&path, text).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.starts_with("line 88") && tail.ends_with("line 99"), "{tail}");
    }
}
