//! OpenAI's own Python client against the binary with a tiny model. The client is installed once, in the user's cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::gguf::{Options, write};
use support::process::{Pod, write_config};

const OPENAI: &str = "openai==3.57.0";

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))),
    }
}

fn cache() -> PathBuf {
    let explicit = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = explicit.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    base.join("quartermaster").join(OPENAI.replace("==", "-"))
}

/// A Python that has the client: in an environment of its own, or, where Python comes without `venv`, beside it.
fn python(folder: &Path) -> Result<Command, String> {
    run(Command::new("python3").arg("--version"))?;
    let (environment, beside) = (folder.join("venv"), folder.join("packages"));
    let interpreter = environment.join("bin/python");
    let with_venv = || {
        let mut python = Command::new(&interpreter);
        python.env_remove("PYTHONPATH");
        python
    };
    let with_target = || {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", &beside);
        python
    };
    // Written last: an installation that was cut off is made again.
    let done = folder.join("done");
    if !done.exists() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", OPENAI];
        let venv = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
        match venv {
            Ok(_) => run(with_venv().args(pip)).expect("installing the client"),
            Err(venv) => {
                drop(std::fs::remove_dir_all(&environment));
                run(Command::new("python3").args(["-m", "pip", "--version"]))
                    .map_err(|pip| format!("{venv}\n{pip}"))?;
                run(Command::new("python3").args(pip).arg("--target").arg(&beside)).expect("installing the client")
            }
        };
        std::fs::write(&done, OPENAI).map_err(|error| error.to_string())?;
    }
    Ok(if environment.exists() { with_venv() } else { with_target() })
}

#[test]
fn openais_client_calls_pass_unchanged() {
    let mut python = match python(&cache()) {
        Ok(python) => python,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "CI needs python3 with venv or pip: {why}");
            eprintln!("skipped: this machine has no python3 with venv or pip: {why}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.gguf"), &Options::default());
    write_config(folder.path(), |_| {});
    let pod = Pod::start(folder, &["--linger-seconds", "0"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai_client.py");
    let output = run(python.arg(script).args([pod.ready().as_str(), "tiny"])).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
