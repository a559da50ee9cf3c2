//! Copies a model file into a pod's volume, out of any image, even one without a shell or a C library.
//!
//! ```text
//! model-copy --install DEST   copies itself, so that the next init container can run it from a shared volume
//! model-copy SRC DST          copies a file: written beside DST, synced, then renamed over it
//! ```
//! Only the standard library, one file, built static with plain `rustc`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: model-copy SRC DST | model-copy --install DEST";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [flag, destination] if flag == "--install" => install(Path::new(destination)),
        [flag] if flag == "--help" || flag == "-h" => say(USAGE),
        [source, destination] if !starts_with_dash(source) => bring(Path::new(source), Path::new(destination)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "model-copy: {problem}");
            let _ = fs::write("/dev/termination-log", &problem);
            ExitCode::FAILURE
        }
    }
}

fn starts_with_dash(argument: &OsString) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

fn say(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| format!("writing to the standard output: {error}"))
}

fn install(destination: &Path) -> Result<(), String> {
    let own = env::current_exe().map_err(|error| format!("finding this program's own file: {error}"))?;
    copy(&own, destination, 0o755)
}

/// Copies a model and notes beside it how long that took, for the server to export.
fn bring(source: &Path, destination: &Path) -> Result<(), String> {
    let begin = Instant::now();
    copy(source, destination, 0o644)?;
    let mut note = destination.as_os_str().to_owned();
    note.push(".pull-seconds");
    // Without the note nothing is lost but a figure.
    let _ = fs::write(&note, format!("{:.3}\n", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Copies by way of a file beside the destination, so that nobody ever sees half a model.
fn copy(source: &Path, destination: &Path, mode: u32) -> Result<(), String> {
    let failed = |what: &str, path: &Path, error: io::Error| format!("{what} {}: {error}", path.display());
    let mut from = File::open(source).map_err(|error| failed("opening", source, error))?;
    let meta = from.metadata().map_err(|error| failed("reading the size of", source, error))?;
    if !meta.is_file() {
        return Err(format!("{} is no regular file", source.display()));
    }
    let partial = beside(destination)?;
    let written = write(&mut from, &partial, mode, meta.len());
    if let Err(problem) = written {
        let _ = fs::remove_file(&partial);
        return Err(format!("copying {} to {}: {problem}", source.display(), destination.display()));
    }
    fs::rename(&partial, destination).map_err(|error| failed("renaming to", destination, error))?;
    let folder = partial.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("syncing", folder, error))?;
    say(&format!("{} -> {} ({} bytes)", source.display(), destination.display(), meta.len()))
}

fn beside(destination: &Path) -> Result<PathBuf, String> {
    let name = destination.file_name().ok_or_else(|| format!("{} names no file", destination.display()))?;
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    let folder = match destination.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    };
    Ok(folder.join(partial))
}

fn write(from: &mut File, partial: &Path, mode: u32, size: u64) -> Result<(), String> {
    let mut to = File::create(partial).map_err(|error| format!("creating {}: {error}", partial.display()))?;
    let copied = io::copy(from, &mut to).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => format!("the volume has no room for {size} bytes"),
        _ => error.to_string(),
    })?;
    if copied != size {
        return Err(format!("{copied} of {size} bytes came"));
    }
    to.set_permissions(Permissions::from_mode(mode)).map_err(|error| format!("setting the mode: {error}"))?;
    to.sync_all().map_err(|error| format!("syncing: {error}"))
}
