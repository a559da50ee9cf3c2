//! The bytes of an OCI layout. The layer is produced twice (once for its digest, once into the tar) so that images of
//! any size pass through without a second copy on disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Content, ImageFile};

const TAR_BLOCK: u64 = 512;

/// A blob of the layout: its digest and size, and its bytes unless it is the layer.
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) size: u64,
    bytes: Vec<u8>,
}

impl Blob {
    pub(super) fn json(value: &serde_json::Value) -> Result<Self> {
        let bytes = serde_json::to_vec(value).context("writing JSON")?;
        let mut meter = Meter::new(io::sink());
        meter.write_all(&bytes)?;
        let (digest, size) = meter.finish();
        Ok(Self { digest, size, bytes })
    }

    pub(super) fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.size })
    }
}

/// Digest and size of the layer that holds `entries`.
pub(super) fn digest_layer(entries: &BTreeMap<String, ImageFile>) -> Result<Blob> {
    let mut meter = Meter::new(io::sink());
    write_layer(&mut meter, entries)?;
    let (digest, size) = meter.finish();
    Ok(Blob { digest, size, bytes: Vec::new() })
}

/// Writes the whole layout beside `path` and renames it into place. The index comes first, so that readers find it at once.
pub(super) fn write_layout(
    path: &Path,
    index: &serde_json::Value,
    blobs: &[&Blob],
    layer: &Blob,
    entries: &BTreeMap<String, ImageFile>,
) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).context("making a temporary file")?;
    let mut outer = tar::Builder::new(BufWriter::new(temporary.as_file()));
    append(&mut outer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut outer, "index.json", &serde_json::to_vec(index)?)?;
    for blob in blobs {
        append(&mut outer, &blob_path(&blob.digest), &blob.bytes)?;
    }
    append_layer(&mut outer, layer, entries)?;
    outer.into_inner()?.flush()?;
    temporary.persist(path).context("moving the finished tar into place")?;
    Ok(())
}

fn append_layer<W: Write>(
    outer: &mut tar::Builder<W>,
    layer: &Blob,
    entries: &BTreeMap<String, ImageFile>,
) -> Result<()> {
    let mut header = file_header(0o644, layer.size);
    header.set_path(blob_path(&layer.digest))?;
    header.set_cksum();
    let out = outer.get_mut();
    out.write_all(header.as_bytes())?;
    let mut meter = Meter::new(&mut *out);
    write_layer(&mut meter, entries)?;
    let (digest, size) = meter.finish();
    ensure!(digest == layer.digest, "a file changed while it was read");
    let padding = usize::try_from((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK)?;
    out.write_all(&vec![0; padding])?;
    Ok(())
}

fn write_layer(out: impl Write, entries: &BTreeMap<String, ImageFile>) -> Result<()> {
    let mut layer = tar::Builder::new(out);
    for (path, file) in entries {
        append_entry(&mut layer, path, file).with_context(|| format!("entry {}", file.path))?;
    }
    layer.into_inner()?.flush()?;
    Ok(())
}

fn append_entry<W: Write>(layer: &mut tar::Builder<W>, path: &str, file: &ImageFile) -> Result<()> {
    match &file.content {
        Content::Bytes(bytes) => {
            let mut header = file_header(file.mode, u64::try_from(bytes.len())?);
            layer.append_data(&mut header, path, bytes.as_slice())?;
        }
        Content::Host(source) => {
            let opened = File::open(source).with_context(|| format!("opening {}", source.display()))?;
            let mut header = file_header(file.mode, opened.metadata()?.len());
            layer.append_data(&mut header, path, opened)?;
        }
        Content::Symlink(target) => {
            let mut header = file_header(file.mode, 0);
            header.set_entry_type(tar::EntryType::Symlink);
            layer.append_link(&mut header, path, target)?;
        }
        Content::Directory => {
            let mut header = file_header(file.mode, 0);
            header.set_entry_type(tar::EntryType::Directory);
            layer.append_data(&mut header, format!("{path}/"), io::empty())?;
        }
    }
    Ok(())
}

fn append<W: Write>(outer: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = file_header(0o644, u64::try_from(bytes.len())?);
    outer.append_data(&mut header, path, bytes).with_context(|| format!("writing {path}"))
}

fn file_header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Counts and hashes what passes through it.
struct Meter<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Meter<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (String, u64) {
        (format!("sha256:{}", hex::encode(self.hasher.finalize())), self.size)
    }
}

impl<W: Write> Write for Meter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size = self.size.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
