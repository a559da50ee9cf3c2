//! A folder that the pods of a node share.
//!
//! ```text
//! entries/SHA256        whole files, read only, named by their content
//! partial/KEY           a file on its way, and KEY.json: of which version, and how long it will be
//! known/URI             which content a URI led to the last time
//! .lock                 held while room is made
//! ```
//! Locks are `flock`s on the files themselves, so a killed process holds none. Who reads an entry holds it shared, who
//! writes a partial file holds it alone; who wants to delete either must hold it alone. Since a lock belongs to the file
//! and not to its name, whoever gets a lock looks whether the name still means that file.

mod room;

use super::{Digest, Kind, Result, SourceError};
use crate::limits::{CACHE_RACE_PAUSE, CACHE_RACES_MAX};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The shared folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Most bytes in it; none means what the disk holds.
    limit_bytes: Option<u64>,
}

/// A whole file. It is not evicted while this lives.
#[derive(Debug)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// What it is.
    pub digest: Digest,
    /// Held shared.
    _lock: File,
}

/// What a URI led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The content.
    pub(super) sha256: String,
    /// The version that the server named.
    pub(super) validator: Option<String>,
}

/// Of which version a partial file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// The version that the server named.
    pub(super) validator: Option<String>,
    /// How long the file will be.
    pub(super) bytes: u64,
    /// The boot of this machine in which it was written: what a crash of the machine leaves is not trusted.
    pub(super) boot: String,
}

/// A file on its way, held alone.
#[derive(Debug)]
pub(super) struct Partial {
    /// The file, opened for reading and writing.
    pub(super) file: File,
    path: PathBuf,
}

impl Cache {
    /// Opens a folder, and makes what is not there.
    ///
    /// # Errors
    /// `Local`: it can't be written.
    pub fn open(root: &Path, limit_bytes: Option<u64>) -> Result<Self> {
        let cache = Self { root: root.to_owned(), limit_bytes };
        for folder in ["entries", "partial", "known"] {
            let path = root.join(folder);
            fs::create_dir_all(&path)
                .map_err(|error| SourceError::local("making the cache's folder", &path, &error))?;
        }
        Ok(cache)
    }

    /// The entry with this content, held from now on.
    ///
    /// # Errors
    /// `Local`: it can't be read.
    pub fn get(&self, digest: Digest) -> Result<Option<Entry>> {
        let path = self.entry(digest);
        for _ in 0..CACHE_RACES_MAX {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(|error| SourceError::local("opening the cached file", &path, &error))?,
            };
            // Held alone for a moment: by its writer, or by one who is about to delete it.
            if locked(file.try_lock_shared(), &path)? && is_same(&file, &path) {
                let bytes = file.metadata().map_or(0, |meta| meta.len());
                if let Err(error) = file.set_modified(SystemTime::now()) {
                    tracing::debug!(path = %path.display(), %error, "noting that the cached file is in use");
                }
                return Ok(Some(Entry { path, bytes, digest, _lock: file }));
            }
            std::thread::sleep(CACHE_RACE_PAUSE);
        }
        Err(SourceError::new(
            Kind::Local,
            path.display().to_string(),
            "another process does not let go of the cached file",
            "look for a process that hangs in deleting it",
        ))
    }

    /// The partial file of this key, or `None` while another process writes it.
    pub(super) fn try_partial(&self, key: &str) -> Result<Option<Partial>> {
        let path = self.root.join("partial").join(key);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|error| SourceError::local("opening the partial file", &path, &error))?;
        Ok((locked(file.try_lock(), &path)? && is_same(&file, &path)).then_some(Partial { file, path }))
    }

    /// Makes a whole entry of a partial file.
    pub(super) fn keep(&self, partial: Partial, digest: Digest) -> Result<Entry> {
        let target = self.entry(digest);
        let failed = |attempt: &'static str| {
            let target = target.clone();
            move |error: io::Error| SourceError::local(attempt, &target, &error)
        };
        partial.file.sync_all().map_err(failed("writing the cached file to the disk"))?;
        partial.file.set_permissions(Permissions::from_mode(0o444)).map_err(failed("protecting the cached file"))?;
        fs::rename(&partial.path, &target).map_err(failed("renaming to the cached file"))?;
        remove(&plan_of(&partial.path));
        let folder = self.root.join("entries");
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("writing the cache's folder"))?;
        drop(partial);
        self.get(digest)?.ok_or_else(|| {
            let what = "the file was evicted before it was used";
            SourceError::new(Kind::NoSpace, target.display().to_string(), what, "raise the cache's limit")
        })
    }

    /// Gives an entry up and deletes it, unless somebody else uses it.
    pub(super) fn discard(&self, entry: Entry) {
        let path = entry.path.clone();
        drop(entry);
        if let Ok(file) = File::open(&path) {
            room::delete_if_unused(&file, &path);
        }
    }

    /// What a URI led to.
    pub(super) fn known(&self, uri: Digest) -> Option<Known> {
        read_json(&self.known_file(uri))
    }

    /// Notes what a URI led to. A note that can't be written only costs time later.
    pub(super) fn note(&self, uri: Digest, known: &Known) {
        let path = self.known_file(uri);
        if let Err(error) = write_json(&path, known) {
            tracing::warn!(path = %path.display(), %error, "noting what a source led to");
        }
    }

    fn entry(&self, digest: Digest) -> PathBuf {
        self.root.join("entries").join(digest.to_string())
    }

    fn known_file(&self, uri: Digest) -> PathBuf {
        self.root.join("known").join(uri.to_string())
    }
}

impl Partial {
    /// What was planned when the file was begun.
    pub(super) fn plan(&self) -> Option<Plan> {
        read_json(&plan_of(&self.path))
    }

    /// Notes the plan.
    pub(super) fn note(&self, plan: &Plan) -> Result<()> {
        let path = plan_of(&self.path);
        write_json(&path, plan).map_err(|error| SourceError::local("noting the download's plan", &path, &error))
    }

    /// Deletes the file: nothing of it is of use.
    pub(super) fn remove(self) {
        remove(&plan_of(&self.path));
        remove(&self.path);
    }

    /// A failure to write it.
    pub(super) fn failed(&self, attempt: &str, error: &io::Error) -> SourceError {
        SourceError::local(attempt, &self.path, error)
    }
}

/// Names this boot of the machine.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn plan_of(partial: &Path) -> PathBuf {
    partial.with_added_extension("json")
}

fn locked(result: Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(SourceError::local("locking the file", path, &error)),
    }
}

/// Whether the name still means this file.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "deleting a file of the cache");
        }
        _ => {}
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let beside = path.with_added_extension(format!("{}.tmp", std::process::id()));
    fs::write(&beside, serde_json::to_vec(value)?)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests;
