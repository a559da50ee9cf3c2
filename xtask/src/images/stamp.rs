//! A file beside each tar that says from what it was made.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use quartermaster_cluster::oci_image::Image;
use sha2::{Digest, Sha256};

/// Grows when the way in which images are put together changes.
const RECIPE: u32 = 1;

/// Everything that an image is made from, as one hash.
#[derive(Default)]
pub(super) struct Ingredients(Sha256);

impl Ingredients {
    /// Adds a text.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the content of a file.
    pub(super) fn file(self, path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut Writer(&mut hasher)).with_context(|| format!("reading {}", path.display()))?;
        Ok(self.text(&hex::encode(hasher.finalize())))
    }

    fn finish(self) -> String {
        format!("{RECIPE} {}", hex::encode(self.0.finalize()))
    }
}

/// Writes the image unless the tar that is there was made from the same ingredients.
pub(super) fn write(tar: &Path, ingredients: Ingredients, image: impl FnOnce() -> Result<Image>) -> Result<()> {
    let stamp = tar.with_extension("stamp");
    let wanted = ingredients.finish();
    if tar.exists() && fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) {
        eprintln!("{} is up to date", tar.display());
        return Ok(());
    }
    if let Some(folder) = tar.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let image = image()?;
    image.write_tar(tar)?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))?;
    let size = fs::metadata(tar)?.len() >> 20;
    eprintln!("{} written: {}, {size} MiB", tar.display(), image.name);
    Ok(())
}

struct Writer<'a>(&'a mut Sha256);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quartermaster_cluster::oci_image::ImageFile;

    fn image(content: &str) -> Image {
        let files = vec![ImageFile::bytes("/file", 0o644, content)];
        Image { name: "example.com/x:dev".to_owned(), files, ..Image::default() }
    }

    #[test]
    fn a_tar_is_written_again_only_when_its_ingredients_change() {
        let folder = tempfile::tempdir().unwrap();
        let tar = folder.path().join("x.tar");
        write(&tar, Ingredients::default().text("a"), || Ok(image("a"))).unwrap();
        let first = fs::read(&tar).unwrap();
        write(&tar, Ingredients::default().text("a"), || panic!("made twice")).unwrap();
        write(&tar, Ingredients::default().text("b"), || Ok(image("b"))).unwrap();
        assert_ne!(fs::read(&tar).unwrap(), first);
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let one = Ingredients::default().text("ab").text("c").finish();
        assert_ne!(one, Ingredients::default().text("a").text("bc").finish());
    }
}
