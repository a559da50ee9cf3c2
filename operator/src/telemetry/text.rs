//! Prometheus' text format, as far as we read it: samples with labels. A page with one broken line is not trusted.

use std::collections::BTreeMap;

/// Why a page was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading line {line} of a metrics page: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; NaN and infinities as they stand.
    pub value: f64,
}

/// Samples by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page(BTreeMap<String, Vec<Sample>>);

impl Page {
    /// Reads a page; samples whose name `wanted` refuses are skipped unread.
    pub fn parse(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Self, ParseError> {
        let mut page = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |what| ParseError { line: number + 1, what };
            let end = line.find(['{', ' ', '\t']).ok_or_else(|| error("no value"))?;
            let (name, rest) = line.split_at(end);
            if wanted(name) {
                let sample = sample(rest).map_err(error)?;
                page.0.entry(name.to_owned()).or_default().push(sample);
            }
        }
        Ok(page)
    }

    /// Samples of that name.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Sum over the samples of that name; none when there is none or one is not a finite number.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        let samples = self.samples(name);
        let sum: f64 = samples.iter().map(|sample| sample.value).sum();
        (!samples.is_empty() && sum.is_finite()).then_some(sum)
    }
}

/// `{labels} value [timestamp]`, the labels optional.
fn sample(rest: &str) -> Result<Sample, &'static str> {
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().ok_or("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().map_err(|_| "the value is no number")?,
    };
    Ok(Sample { labels, value })
}

/// `name="value",…}` and what follows.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").ok_or("a label has no value")?;
        let (value, after) = quoted(after).ok_or("a label's value does not end")?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// A value up to its closing quote, escapes undone, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return text.get(at + 1..).map(|rest| (value, rest)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page::parse(text, |_| true).unwrap()
    }

    #[test]
    fn reads_samples_with_and_without_labels() {
        let page =
            page("# HELP x y\n# TYPE x gauge\nx 3\nx{a=\"1\", b=\"q\\\"}\\n\"} 4.5 1700000000\n\ny{} +Inf\n# EOF\n");
        assert_eq!(page.sum("x"), Some(7.5));
        assert_eq!(page.samples("x")[1].labels["b"], "q\"}\n");
        assert_eq!(page.sum("y"), None, "an infinity is no figure");
    }

    #[test]
    fn nan_and_absence_are_no_figure() {
        let page = page("x NaN\n");
        assert_eq!(page.sum("x"), None);
        assert_eq!(page.sum("z"), None);
    }

    #[test]
    fn a_broken_line_breaks_the_page() {
        for (text, line) in [("x 1\ny", 2), ("x{a=\"1} 2", 1), ("x{a} 2", 1), ("x one", 1), ("x{a=\"b\"}", 1)] {
            assert_eq!(Page::parse(text, |_| true).unwrap_err().line, line, "{text}");
        }
        assert!(Page::parse("other{ broken", |name| name == "x").is_ok(), "what is not wanted is not read");
    }
}
