//! A file out of an image's layers: each is fetched as a blob, looked through, and given up again.

use super::cache::{Entry, Partial, Plan};
use super::digest::Hasher;
use super::fetch::{Fetched, Fetcher, Turn};
use super::oci::layer;
use super::remote::{Facts, Remote};
use super::uri::Source;
use super::{Digest, Kind, Result, SourceError};
use std::fs::File;
use std::io::{self, Read, Seek, Write};

impl Fetcher<'_> {
    /// Looks through an image's layers, from the uppermost down.
    pub(super) async fn layers(&self, manifest: Digest, layers: Vec<(Remote, Facts)>) -> Result<Fetched> {
        let path = match self.source {
            Source::Oci(file) => file.file.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let facts = Facts { digest: self.wanted, validator: Some(manifest.to_string()), bytes: None };
        let key = Digest::of(&format!("{}\n{manifest}", self.uri)).to_string();
        let mut partial = match self.turn(&key, || self.present(&facts)).await? {
            Turn::Present(entry) => return Ok(Fetched::cached(entry, 0)),
            Turn::Ours(partial) => partial,
        };
        let mut fetched_bytes = 0;
        for (remote, facts) in layers {
            let mut layer = self.blob(&remote, &facts, false).await?;
            fetched_bytes += layer.fetched_bytes;
            let found = self.unpack(&layer, &path, &mut partial);
            if let Some(entry) = layer.entry.take() {
                self.cache.discard(entry);
            }
            match found? {
                (layer::Found::File, digest) => {
                    let entry = self.unpacked(partial, digest, manifest)?;
                    return Ok(Fetched::cached(entry, fetched_bytes));
                }
                (layer::Found::Missing, _) => {}
                (layer::Found::Deleted, _) => break,
                (layer::Found::Other(what), _) => {
                    partial.remove();
                    return Err(self.not_in_image(&format!("{path} is {what}")));
                }
            }
        }
        partial.remove();
        Err(self.not_in_image(&format!("the image has no {path}")))
    }

    fn unpack(&self, layer: &Fetched, path: &str, partial: &mut Partial) -> Result<(layer::Found, Digest)> {
        let broken = |what: String| {
            SourceError::new(
                Kind::WrongContent,
                self.place.as_str(),
                what,
                "push the image again: its layer is no good tar",
            )
        };
        let file =
            File::open(&layer.path).map_err(|error| SourceError::local("opening the layer", &layer.path, &error))?;
        let mut hasher = Hasher::default();
        let found = layer::extract::<Unpacking>(file, path, |bytes, content| {
            partial.note(&Plan { bytes, ..Plan::default() })?;
            self.cache.make_room(&self.place)?;
            partial.file.set_len(0).map_err(|error| partial.failed("emptying the partial file", &error))?;
            partial.file.rewind().map_err(|error| partial.failed("going to the beginning", &error))?;
            let copied = copy(content, partial, &mut hasher)?;
            if copied == bytes {
                Ok(())
            } else {
                Err(broken(format!("{path} ends after {copied} of {bytes} bytes")).into())
            }
        });
        let found = found.map_err(|error| match error {
            Unpacking::Source(error) => error,
            Unpacking::Tar(error) => broken(format!("its layer can't be unpacked: {error}")),
        })?;
        Ok((found, hasher.finish()))
    }

    fn unpacked(&self, partial: Partial, digest: Digest, manifest: Digest) -> Result<Entry> {
        match self.wanted.filter(|wanted| *wanted != digest) {
            Some(wanted) => {
                partial.remove();
                let what = format!("its SHA-256 is {digest}, not {wanted}: it was thrown away");
                let fix = "correct the hash, if the image was replaced on purpose; else do not trust the source";
                Err(SourceError::new(Kind::WrongContent, self.place.as_str(), what, fix))
            }
            None => {
                // Before the lock is free: who waits looks here.
                self.note(digest, Some(manifest.to_string()));
                self.cache.keep(partial, digest)
            }
        }
    }

    fn not_in_image(&self, what: &str) -> SourceError {
        SourceError::new(Kind::NotFound, self.place.as_str(), what, "name a regular file of the image behind #/")
    }
}

enum Unpacking {
    Source(SourceError),
    Tar(io::Error),
}

impl From<SourceError> for Unpacking {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<io::Error> for Unpacking {
    fn from(error: io::Error) -> Self {
        Self::Tar(error)
    }
}

fn copy(content: &mut dyn Read, partial: &mut Partial, hasher: &mut Hasher) -> Result<u64, Unpacking> {
    let (mut buffer, mut copied) = (vec![0; 1 << 17], 0);
    loop {
        let count = content.read(&mut buffer)?;
        let chunk = buffer.get(..count).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(copied);
        }
        hasher.update(chunk);
        partial.file.write_all(chunk).map_err(|error| partial.failed("writing what was unpacked", &error))?;
        copied += u64::try_from(count).unwrap_or_default();
    }
}
