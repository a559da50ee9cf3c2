//! Recorded arrivals, scaled to a small machine.

use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Time since the start of the trace.
    pub at: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// How a trace is made smaller.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Keep every so-many-th request.
    pub keep_every: usize,
    /// Divide prompt lengths by so much.
    pub prompt_divisor: u64,
    /// Divide answer lengths by so much.
    pub output_divisor: u64,
}

/// The first three minutes of a recorded conversation service; source and licence stand in the file.
const AZURE_CONVERSATIONS: &str = include_str!("../traces/azure2023_conv_first_3min.csv");

/// The shipped trace, scaled.
pub fn azure_conversations(scale: Scale) -> Result<Vec<Arrival>> {
    parse(AZURE_CONVERSATIONS, scale)
}

fn parse(text: &str, scale: Scale) -> Result<Vec<Arrival>> {
    ensure!(scale.keep_every > 0 && scale.prompt_divisor > 0 && scale.output_divisor > 0, "a scale of zero");
    let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.step_by(scale.keep_every).map(|row| arrival(row, scale)).collect()
}

fn arrival(row: &str, scale: Scale) -> Result<Arrival> {
    let mut fields = row.split(',').map(str::parse::<u64>);
    let mut next = || fields.next().with_context(|| format!("too few fields in `{row}`"))?.context("no number");
    Ok(Arrival {
        at: Duration::from_millis(next()?),
        prompt_tokens: (next()? / scale.prompt_divisor).max(1),
        output_tokens: (next()? / scale.output_divisor).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_trace_is_sorted_and_scaled() {
        let whole = azure_conversations(Scale { keep_every: 1, prompt_divisor: 1, output_divisor: 1 }).unwrap();
        let tenth = azure_conversations(Scale { keep_every: 10, prompt_divisor: 16, output_divisor: 4 }).unwrap();
        assert_eq!(tenth.len(), whole.len().div_ceil(10));
        assert!(whole.is_sorted_by_key(|arrival| arrival.at));
        assert_eq!(tenth[1].prompt_tokens, whole[10].prompt_tokens / 16);
        assert!(whole.last().unwrap().at <= Duration::from_secs(180));
    }

    #[test]
    fn a_bad_row_is_named() {
        let scale = Scale { keep_every: 1, prompt_divisor: 1, output_divisor: 1 };
        assert!(parse("header\n1,2", scale).unwrap_err().to_string().contains("1,2"));
    }
}
