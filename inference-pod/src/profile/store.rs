//! Profiles on disk, by hardware, file and load, so that only the first start on a node measures.

use super::Profile;
use crate::gguf::Gguf;
use crate::memory::Load;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Places in the file that go into its name, beside its length and header.
const PROBES: u64 = 64;
/// Bytes of each.
const PROBE_BYTES: usize = 4096;

/// Grows when what is measured, or how, changes.
const METHOD: u32 = 4;

/// A folder of profiles; none where no folder is given.
#[derive(Clone, Debug, Default)]
pub struct Store(Option<PathBuf>);

#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the profile is of, for people who look into the folder.
    of: String,
    profile: Profile,
}

impl Store {
    /// Profiles in this folder, which is made when the first one is kept.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// The profile of an earlier start with the same hardware, file, load and threads.
    #[must_use]
    pub fn get(&self, gguf: &Gguf, load: Load, threads: usize) -> Option<Profile> {
        let text = fs::read(self.path(gguf, load, threads)?).ok()?;
        // One that can't be read is measured again.
        serde_json::from_slice::<Kept>(&text).ok().map(|kept| kept.profile)
    }

    /// Keeps a profile. Where that fails, the next start measures again; the log says why.
    pub fn put(&self, gguf: &Gguf, load: Load, threads: usize, profile: Profile) {
        let Some(path) = self.path(gguf, load, threads) else { return };
        let of = format!("{} on {} with {threads} threads", gguf.path.display(), processor());
        if let Err(error) = write(&path, &Kept { of, profile }) {
            tracing::warn!(path = %path.display(), %error, "the profile is not kept");
        }
    }

    fn path(&self, gguf: &Gguf, load: Load, threads: usize) -> Option<PathBuf> {
        let folder = self.0.as_ref()?;
        let mut name = Sha256::new();
        let version = env!("CARGO_PKG_VERSION");
        name.update(format!(
            "{version} {METHOD} {} {threads} {} {} {:?}\n",
            processor(),
            load.slots,
            load.context,
            load.kv
        ));
        name.update(fingerprint(&gguf.path, gguf.file_bytes).ok()?);
        Some(folder.join(format!("{}.json", hex::encode(name.finalize()))))
    }
}

/// Written beside and renamed, so that nobody reads half of it.
fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&beside, serde_json::to_vec(kept)?)?;
    fs::rename(&beside, path)
}

/// The processor's name and abilities, as Linux tells them.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let kept =
        lines.filter(|line| ["model name", "flags", "Features", "CPU part"].iter().any(|key| line.starts_with(key)));
    kept.collect::<Vec<_>>().join(" ")
}

/// Tells files apart without reading them whole: length, and bytes from all over.
fn fingerprint(path: &Path, length: u64) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut bytes = vec![0; PROBE_BYTES];
    for probe in 0..PROBES {
        file.seek(SeekFrom::Start(length / PROBES * probe))?;
        let count = file.read(&mut bytes)?;
        hash.update(bytes.get(..count).unwrap_or_default());
    }
    Ok(hash.finalize().into())
}
