//! The images of our own programs: one layer of the program, the libraries it links, CA certificates and a user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use quartermaster_cluster::oci_image::{Image, ImageFile, library_files, shared_libraries};

use super::stamp::{self, Ingredients};
use super::{REGISTRY, TAG, copier};
use crate::shell;

/// Images, each with the program of the same name.
pub(super) const PARTS: [&str; 4] = ["operator", "gateway", "ledger", "inference-pod"];

const USER: &str = "65532:65532";
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
const NSSWITCH: &str = "hosts: files dns\n";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes the four tars into `folder`.
pub(super) fn write_all(built: &BTreeMap<String, PathBuf>, folder: &Path) -> Result<Vec<PathBuf>> {
    PARTS.iter().map(|part| write(part, built, folder)).collect()
}

fn write(part: &str, built: &BTreeMap<String, PathBuf>, folder: &Path) -> Result<PathBuf> {
    let program = format!("quartermaster-{part}");
    let binary = built.get(&program).with_context(|| format!("cargo built no {program}"))?;
    let tar = folder.join(format!("{part}.tar"));
    let mut ingredients = Ingredients::default().text(part).file(binary)?.file(Path::new(CERTIFICATES))?;
    for library in shared_libraries(binary)? {
        ingredients = ingredients.text(&library.to_string_lossy()).file(&library)?;
    }
    // The image that pods copy their model with.
    let extra = if part == "inference-pod" { Some(copier::build()?) } else { None };
    if let Some(extra) = &extra {
        ingredients = ingredients.file(extra)?;
    }
    let work = tempfile::tempdir().context("making a temporary folder")?;
    stamp::write(&tar, ingredients, || image(part, binary, extra.as_deref(), work.path()))?;
    Ok(tar)
}

fn image(part: &str, binary: &Path, extra: Option<&Path>, work: &Path) -> Result<Image> {
    if !Path::new(CERTIFICATES).exists() {
        bail!("{CERTIFICATES} is missing: install the package ca-certificates");
    }
    let stripped = work.join("program");
    shell::capture(Command::new("objcopy").arg("--strip-debug").arg(binary).arg(&stripped))?;
    let place = format!("/usr/local/bin/quartermaster-{part}");
    let mut files = library_files(&[binary])?;
    files.extend([
        ImageFile::host(&place, 0o755, stripped),
        ImageFile::host(CERTIFICATES, 0o644, CERTIFICATES),
        ImageFile::bytes("/etc/passwd", 0o644, PASSWD),
        ImageFile::bytes("/etc/group", 0o644, GROUP),
        ImageFile::bytes("/etc/nsswitch.conf", 0o644, NSSWITCH),
        ImageFile::directory("/tmp", 0o1777),
    ]);
    files.extend(extra.map(|path| ImageFile::host("/usr/local/bin/model-copy", 0o755, path)));
    Ok(Image {
        name: format!("{REGISTRY}/{part}:{TAG}"),
        entrypoint: vec![place],
        user: Some(USER.to_owned()),
        files,
        ..Image::default()
    })
}
