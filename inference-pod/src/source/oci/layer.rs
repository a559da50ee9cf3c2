//! A file inside a layer's tar.

use crate::limits::{LAYER_BYTES_MAX, LAYER_ENTRIES_MAX};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use tar::{Archive, EntryType};

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What a layer says of a path.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) enum Found {
    /// It was written.
    File,
    /// It, or a folder above it, is deleted here: layers below don't count.
    Deleted,
    /// It is something else than a file.
    Other(String),
    /// Nothing: layers below may have it.
    Missing,
}

/// Looks for `path`, which has no slash at its beginning, and passes its length and content to `write`.
pub(in crate::source) fn extract<E: From<io::Error>>(
    mut layer: File,
    path: &str,
    write: impl FnOnce(u64, &mut dyn Read) -> Result<(), E>,
) -> Result<Found, E> {
    let mut magic = [0; 2];
    let gzip = layer.read(&mut magic)? == magic.len() && magic == GZIP;
    layer.seek(SeekFrom::Start(0))?;
    let file = BufReader::with_capacity(1 << 17, layer);
    let plain: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = Archive::new(plain.take(LAYER_BYTES_MAX));
    let mut found = Found::Missing;
    for entry in archive.entries()?.take(LAYER_ENTRIES_MAX) {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./").trim_matches('/');
        if name == path {
            if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
                return Ok(Found::Other(kind(&entry)));
            }
            let bytes = entry.size();
            write(bytes, &mut entry)?;
            return Ok(Found::File);
        }
        // What is here beats what is deleted here.
        if deletes(name, path) {
            found = Found::Deleted;
        }
    }
    Ok(found)
}

fn kind<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    match entry.link_name() {
        Ok(Some(target)) => format!("a link to {}", target.display()),
        _ => "no file".to_owned(),
    }
}

/// Whether an entry is the whiteout of the path or of a folder above it.
fn deletes(name: &str, path: &str) -> bool {
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
    let under = |folder: &str| folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    match base.strip_prefix(".wh.") {
        Some(".wh..opq") => under(folder),
        Some(gone) => {
            let gone = if folder.is_empty() { gone.to_owned() } else { format!("{folder}/{gone}") };
            path == gone || under(&gone)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn tar(files: &[(&str, &str)], gzip: bool) -> File {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            if let Some(target) = text.strip_prefix("-> ") {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            } else {
                header.set_size(u64::try_from(text.len()).unwrap());
                builder.append_data(&mut header, name, text.as_bytes()).unwrap();
            }
        }
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        if gzip {
            let mut encoder = GzEncoder::new(&mut file, Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            file.write_all(&bytes).unwrap();
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    fn look(layer: File, path: &str) -> (Found, String) {
        let mut text = String::new();
        let found = extract::<io::Error>(layer, path, |bytes, content| {
            content.read_to_string(&mut text)?;
            assert_eq!(bytes, u64::try_from(text.len()).unwrap());
            Ok(())
        });
        (found.unwrap(), text)
    }

    #[test]
    fn a_file_is_found_in_plain_and_in_packed_tars() {
        let long = format!("{}/model.gguf", "folder/".repeat(40).trim_end_matches('/'));
        for gzip in [false, true] {
            let files = [("etc/x", "x"), ("./models/m.gguf", "weights"), (long.as_str(), "deep")];
            assert_eq!(look(tar(&files, gzip), "models/m.gguf"), (Found::File, "weights".into()));
            assert_eq!(look(tar(&files, gzip), &long), (Found::File, "deep".into()));
            assert_eq!(look(tar(&files, gzip), "m.gguf").0, Found::Missing);
        }
    }

    #[test]
    fn what_is_deleted_or_a_link_is_no_file() {
        for name in ["a/b/.wh.m", "a/.wh.b", ".wh.a", "a/b/.wh..wh..opq", ".wh..wh..opq"] {
            assert_eq!(look(tar(&[(name, "")], false), "a/b/m").0, Found::Deleted, "{name}");
        }
        for name in ["a/.wh.m", "a/b/.wh.mm", "c/.wh..wh..opq", "a/.wh.bb"] {
            assert_eq!(look(tar(&[(name, "")], false), "a/b/m").0, Found::Missing, "{name}");
        }
        assert_eq!(look(tar(&[("a/.wh..wh..opq", ""), ("a/m", "new")], false), "a/m").0, Found::File);
        assert_eq!(look(tar(&[("m", "-> /other")], false), "m").0, Found::Other("a link to /other".into()));
    }

    #[test]
    fn a_broken_tar_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0x1f, 0x8b, 1, 2, 3]).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert!(extract::<io::Error>(file, "m", |_, _| Ok(())).is_err());
    }
}
