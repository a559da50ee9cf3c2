//! Other programs, with errors that say what was run.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs a command whose output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; on failure, the error holds both its outputs.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", line(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}:\n{}{}", line(command), output.status, text, errors);
    }
    Ok(text)
}

/// Does a piece of work between a line that names it and one that says how long it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("== {name}: {verdict} in {:.1} s", start.elapsed().as_secs_f32());
    result
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo out; echo bad >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("out") && error.contains("bad"), "{error}");
        assert!(run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string().contains("exit status: 3"));
        assert!(run(&mut Command::new("no-such-program-at-all")).unwrap_err().to_string().contains("no-such-program"));
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(capture(Command::new("echo").arg("one")).unwrap(), "one\n");
    }
}
