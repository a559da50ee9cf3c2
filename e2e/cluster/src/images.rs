//! Images inside a cluster: the pause image, made here, and those that are loaded from tars.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::component::ctr_arguments;
use crate::config::PAUSE_IMAGE;
use crate::layout::cache_folder;
use crate::namespace::Namespace;
use crate::network::run;
use crate::oci_image::{Image, ImageFile, NamedImage, names_in_tar};
use crate::prerequisites::path_of;

const PAUSE_SOURCE: &str = include_str!("pause.rs.txt");

/// Compiles a Rust source into a static program, which runs in an image that holds nothing else.
pub fn compile_static(source: &str, output: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("making a folder to compile in")?;
    let file = folder.path().join("main.rs");
    fs::write(&file, source)?;
    let flags = ["--edition=2024", "-Copt-level=2", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"];
    run(Command::new("rustc").args(flags).arg(output).arg(&file)).context("compiling a static program")?;
    Ok(())
}

/// The tar of the pause image, made on first use.
pub fn pause_tar() -> Result<PathBuf> {
    let key = hex::encode(Sha256::digest(PAUSE_SOURCE));
    let folder = cache_folder()?.join(format!("pause-{}", &key[..16]));
    let tar = folder.join("pause.tar");
    if !tar.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let work = tempfile::tempdir_in(&folder)?;
        let program = work.path().join("pause");
        compile_static(PAUSE_SOURCE, &program)?;
        let image = Image {
            name: PAUSE_IMAGE.to_owned(),
            entrypoint: vec!["/pause".to_owned()],
            files: vec![ImageFile::host("/pause", 0o755, program)],
            ..Image::default()
        };
        image.write_tar(&tar)?;
    }
    Ok(tar)
}

/// Imports a tar, unless every image in it is there with the same digest. Returns the names it holds.
pub(crate) fn load(namespace: Namespace, snapshotter: &str, tar: &Path) -> Result<Vec<String>> {
    let wanted = names_in_tar(tar)?;
    let present = list(namespace)?;
    if wanted.is_empty() || wanted.iter().any(|image| !present.contains(image)) {
        let tar = fs::canonicalize(tar).with_context(|| format!("finding {}", tar.display()))?;
        let mut command = namespace.command(path_of("ctr")?);
        command.args(ctr_arguments()).args(["images", "import", "--snapshotter", snapshotter]).arg(&tar);
        run(&mut command).with_context(|| format!("importing {}", tar.display()))?;
    }
    Ok(wanted.into_iter().map(|image| image.name).collect())
}

/// Images that the node has.
pub(crate) fn list(namespace: Namespace) -> Result<Vec<NamedImage>> {
    let mut command = namespace.command(path_of("ctr")?);
    command.args(ctr_arguments()).args(["images", "list"]);
    Ok(parse_list(&String::from_utf8_lossy(&run(&mut command)?)))
}

fn parse_list(text: &str) -> Vec<NamedImage> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, _, digest) = (fields.next()?, fields.next()?, fields.next()?);
        Some(NamedImage { name: name.to_owned(), digest: digest.to_owned() })
    };
    text.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_images_is_read() {
        let text = "REF TYPE DIGEST SIZE PLATFORMS LABELS\nquartermaster.dev/pause:1 application/vnd.oci.image.manifest.v1+json sha256:ab 1.0 MiB linux/amd64 -\n";
        let expected = NamedImage { name: "quartermaster.dev/pause:1".to_owned(), digest: "sha256:ab".to_owned() };
        assert_eq!(parse_list(text), [expected]);
        assert!(parse_list("REF TYPE DIGEST\n").is_empty());
    }
}
