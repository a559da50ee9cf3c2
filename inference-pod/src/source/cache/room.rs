//! Making room: what was used least recently goes first, what is in use never.

use super::{Cache, Digest, Known, Plan, is_same, plan_of, read_json, remove};
use crate::limits::{CACHE_ENTRIES_MAX, DISK_RESERVE_BYTES, PARTIAL_AGE_MAX};
use crate::source::{Kind, Result, SourceError};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file in the cache.
#[derive(Clone, Debug)]
struct Item {
    path: PathBuf,
    bytes: u64,
    /// What its writer, who lives, has still to write.
    missing_bytes: u64,
    used: SystemTime,
    partial: bool,
    busy: bool,
}

/// Deletes a file unless it is in use; says whether it did.
pub(super) fn delete_if_unused(file: &File, path: &Path) -> bool {
    let free = file.try_lock().is_ok() && is_same(file, path);
    if free {
        remove(&plan_of(path));
        remove(path);
    }
    free
}

impl Cache {
    /// Deletes what was used least recently until all that is here and on its way fits the limit and the disk; deletes
    /// nothing when that can't be had. What the caller has on its way is counted by the plan that it noted.
    pub(in crate::source) fn make_room(&self, for_what: &str) -> Result<()> {
        let path = self.root.join(".lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| SourceError::local("opening the cache's lock", &path, &error))?;
        lock.lock().map_err(|error| SourceError::local("locking the cache", &path, &error))?;
        let mut items = self.items()?;
        let idle_bytes = items.iter().filter(|item| !item.busy).map(|item| item.bytes).sum();
        if let Some(what) = self.lacking(&items, idle_bytes)? {
            return Err(no_room(for_what, &what, &items));
        }
        items.sort_by_key(|item| item.used);
        for at in 0..items.len() {
            let enough = self.lacking(&items, 0)?.is_none();
            let Some(item) = items.get_mut(at) else { break };
            if item.busy || (enough && !item.is_given_up()) {
                continue;
            }
            let deleted = File::open(&item.path).is_ok_and(|file| delete_if_unused(&file, &item.path));
            if deleted {
                tracing::info!(path = %item.path.display(), bytes = item.bytes, "evicted from the cache");
                item.bytes = 0;
            } else {
                item.busy = true;
            }
        }
        self.forget()?;
        self.lacking(&items, 0)?.map_or(Ok(()), |what| Err(no_room(for_what, &what, &items)))
    }

    /// What is lacking, in words, once `idle_bytes` are deleted.
    fn lacking(&self, items: &[Item], idle_bytes: u64) -> Result<Option<String>> {
        let missing = items.iter().fold(0_u64, |sum, item| sum.saturating_add(item.missing_bytes));
        let here: u64 = items.iter().map(|item| item.bytes).sum();
        let total = missing.saturating_add(here.saturating_sub(idle_bytes));
        if let Some(limit) = self.limit_bytes.filter(|limit| total > *limit) {
            return Ok(Some(format!("{total} bytes are wanted at once, and the cache's limit is {limit}")));
        }
        let free = free_bytes(&self.root)?.saturating_add(idle_bytes);
        let wanted = missing.saturating_add(if missing > 0 { DISK_RESERVE_BYTES } else { 0 });
        let short =
            format!("{missing} bytes and a reserve of {DISK_RESERVE_BYTES} are wanted, and the disk has {free}");
        Ok((wanted > free).then_some(short))
    }

    fn items(&self) -> Result<Vec<Item>> {
        let entries = files(&self.root.join("entries"))?.into_iter().filter_map(|path| item(path, false));
        let partial = files(&self.root.join("partial"))?.into_iter();
        let partial = partial.filter(|path| path.extension().is_none()).filter_map(|path| item(path, true));
        Ok(entries.chain(partial).collect())
    }

    /// Forgets URIs whose content is gone, and what a killed process left half written.
    fn forget(&self) -> Result<()> {
        for path in files(&self.root.join("known"))? {
            let known: Option<Known> = read_json(&path);
            let there = known.and_then(|known| Digest::parse(&known.sha256).ok()).map(|digest| self.entry(digest));
            let fresh = age(&path).is_none_or(|age| age < PARTIAL_AGE_MAX);
            if !there.is_some_and(|path| path.exists()) && !fresh {
                remove(&path);
            }
        }
        let orphan = |path: &PathBuf| path.extension().is_some() && !path.with_extension("").exists();
        for path in files(&self.root.join("partial"))?.iter().filter(|path| orphan(path)) {
            if age(path).is_some_and(|age| age > PARTIAL_AGE_MAX) {
                remove(path);
            }
        }
        Ok(())
    }
}

impl Item {
    /// Half a file that nobody went on with for long.
    fn is_given_up(&self) -> bool {
        self.partial && self.used.elapsed().is_ok_and(|age| age > PARTIAL_AGE_MAX)
    }
}

fn no_room(for_what: &str, what: &str, items: &[Item]) -> SourceError {
    let in_use: u64 = items.iter().filter(|item| item.busy).map(|item| item.bytes).sum();
    let what = format!("no room: {what}; {in_use} bytes of the cache are in use or half written");
    let fix = "raise the cache's limit, give its volume more room, or serve fewer models on this node";
    SourceError::new(Kind::NoSpace, for_what, what, fix)
}

fn age(path: &Path) -> Option<std::time::Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read =
        fs::read_dir(folder).map_err(|error| SourceError::local("reading the cache's folder", folder, &error))?;
    Ok(read.take(CACHE_ENTRIES_MAX).filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
}

fn item(path: PathBuf, partial: bool) -> Option<Item> {
    let meta = fs::metadata(&path).ok()?;
    let used = meta.modified().ok()?;
    let bytes = meta.len();
    let busy = File::open(&path).is_ok_and(|file| file.try_lock().is_err());
    let plan: Option<Plan> = if partial && busy { read_json(&plan_of(&path)) } else { None };
    let missing_bytes = plan.map_or(0, |plan| plan.bytes.saturating_sub(bytes));
    Some(Item { path, bytes, missing_bytes, used, partial, busy })
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder).map_err(|error| {
        SourceError::local("asking how much room the disk has", folder, &std::io::Error::from(error))
    })?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
