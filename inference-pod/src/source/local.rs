//! Files that are on this machine already.

use super::digest::Hasher;
use super::{Digest, Kind, Result, SourceError};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file in the pod.
pub(super) fn file(path: &Path) -> Result<PathBuf> {
    let fix = "mount it there, or correct the path";
    regular(path, fix).map(|()| path.to_owned())
}

/// A file on a claim's volume. Links that lead out of the volume are not followed.
pub(super) fn claim(root: &Path, claim: &str, path: &Path) -> Result<PathBuf> {
    let volume = root.join(claim);
    let wrong = |what: String| {
        let fix = format!("mount the claim {claim} at {} (--pvc-root, QM_PVC_ROOT)", volume.display());
        SourceError::new(Kind::NotFound, format!("pvc://{claim}/{}", path.display()), what, fix)
    };
    let real = volume.canonicalize().map_err(|error| wrong(format!("{}: {error}", volume.display())))?;
    let found = volume.join(path);
    let target = found.canonicalize().map_err(|error| wrong(format!("{}: {error}", found.display())))?;
    if !target.starts_with(&real) {
        return Err(wrong(format!("{} leads out of the volume", found.display())));
    }
    regular(&target, "name a file").map(|()| target)
}

fn regular(path: &Path, fix: &str) -> Result<()> {
    let place = || path.display().to_string();
    let meta = path.metadata().map_err(|error| SourceError::new(Kind::NotFound, place(), error.to_string(), fix))?;
    meta.is_file().then_some(()).ok_or_else(|| SourceError::new(Kind::NotFound, place(), "it is no file", fix))
}

/// Checks a file that is used where it is.
pub(super) fn check(path: &Path, wanted: Digest) -> Result<()> {
    let mut hasher = Hasher::default();
    let read = File::open(path).and_then(|mut file| hasher.read(&mut file, u64::MAX));
    read.map_err(|error| SourceError::local("reading the file", path, &error))?;
    let digest = hasher.finish();
    if digest == wanted {
        return Ok(());
    }
    let what = format!("its SHA-256 is {digest}, not {wanted}");
    let fix = "correct the hash, if the file was replaced on purpose";
    Err(SourceError::new(Kind::WrongContent, path.display().to_string(), what, fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_claims_files_are_found_under_its_mount_only() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("models");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("m"), "x").unwrap();
        std::fs::write(root.path().join("secret"), "x").unwrap();
        symlink(root.path().join("secret"), volume.join("out")).unwrap();
        symlink("m", volume.join("in")).unwrap();
        for name in ["m", "in"] {
            let found = claim(root.path(), "models", Path::new(name)).unwrap();
            check(&found, Digest::of("x")).unwrap();
        }
        let error = claim(root.path(), "models", Path::new("out")).unwrap_err().to_string();
        assert!(error.contains("leads out") && error.contains("QM_PVC_ROOT"), "{error}");
        assert_eq!(claim(root.path(), "none", Path::new("m")).unwrap_err().kind, Kind::NotFound);
        assert_eq!(file(root.path()).unwrap_err().kind, Kind::NotFound);
        assert_eq!(check(&volume.join("m"), Digest::of("y")).unwrap_err().kind, Kind::WrongContent);
    }
}
