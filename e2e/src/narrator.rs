//! Tells the story on the terminal, for people.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints chapters, facts and what commands showed, with the time since the start.
#[derive(Debug)]
pub struct Narrator {
    start: Instant,
    bold: (&'static str, &'static str),
    to_stderr: bool,
}

impl Default for Narrator {
    fn default() -> Self {
        Self::new(std::io::stdout().is_terminal(), false)
    }
}

impl Narrator {
    /// For a program whose standard output is for machines.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self::new(std::io::stderr().is_terminal(), true)
    }

    fn new(on_terminal: bool, to_stderr: bool) -> Self {
        let bold = if on_terminal { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        Self { start: Instant::now(), bold, to_stderr }
    }

    /// A new chapter.
    pub fn chapter(&self, title: impl Display) {
        let (on, off) = self.bold;
        self.line(format_args!("\n{on}[{:>4} s] {title}{off}", self.start.elapsed().as_secs()));
    }

    /// Something that happened.
    pub fn say(&self, fact: impl Display) {
        self.line(format_args!("         {fact}"));
    }

    /// A command and what it printed.
    pub fn show(&self, command: &str, output: &str) {
        self.line(format_args!("         $ {command}"));
        for line in output.lines() {
            self.line(format_args!("         {line}"));
        }
    }

    fn line(&self, line: impl Display) {
        let mut out: Box<dyn Write> =
            if self.to_stderr { Box::new(std::io::stderr().lock()) } else { Box::new(std::io::stdout().lock()) };
        // A closed terminal must not stop the story: its end is an exit code.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
