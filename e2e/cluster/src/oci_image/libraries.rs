//! The shared libraries that a binary needs, as the dynamic linker names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::ImageFile;

/// Shared libraries (and the dynamic linker) of `binary`; none for a static one.
pub fn shared_libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(binary)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("running ldd on {}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("not a dynamic executable") || text.contains("statically linked") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {}: {}", binary.display(), text.trim());
    }
    parse(&text).with_context(|| format!("libraries of {}", binary.display()))
}

/// Image entries for the libraries of several binaries, each library once, at the path where the linker looks.
pub fn library_files(binaries: &[&Path]) -> Result<Vec<ImageFile>> {
    let mut libraries = BTreeSet::new();
    for binary in binaries {
        libraries.extend(shared_libraries(binary)?);
    }
    Ok(libraries.into_iter().map(|path| ImageFile::host(path.to_string_lossy(), 0o755, &path)).collect())
}

fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("{line}");
        }
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        if let Some(path) = place.split_whitespace().next().filter(|path| path.starts_with('/')) {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_paths_and_skips_the_virtual_library() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn names_the_library_that_is_missing() {
        let error = parse("\tlibfoo.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libfoo.so.1"));
    }

    #[test]
    fn asks_the_real_linker() {
        let libraries = shared_libraries(&std::env::current_exe().unwrap()).unwrap();
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{libraries:?}");
    }
}
