//! From a token's bytes to text that a client may see: whole characters only, and nothing of a stop text.

/// Turns bytes into text and watches for stop texts across token boundaries.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    stops: Vec<String>,
    /// Bytes of a character that is not whole yet.
    partial: Vec<u8>,
    /// Text that may turn out to be the beginning of a stop text.
    withheld: String,
    stopped: bool,
}

/// Longest UTF-8 character.
const CHARACTER_BYTES_MAX: usize = 4;

impl TextStream {
    /// A stream that ends before any of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// Takes a token's bytes and returns the text that is now certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.partial.extend_from_slice(bytes);
        let decoded = self.take_whole();
        self.withheld.push_str(&decoded);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.withheld.find(stop.as_str())).min() {
            self.stopped = true;
            self.withheld.truncate(at);
            return std::mem::take(&mut self.withheld);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.withheld, stop)).max().unwrap_or(0);
        let rest = self.withheld.split_off(self.withheld.len() - keep);
        std::mem::replace(&mut self.withheld, rest)
    }

    /// Whether a stop text came.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text that was withheld and turned out to be no stop. A character that never became whole is dropped.
    pub fn finish(&mut self) -> String {
        self.partial.clear();
        std::mem::take(&mut self.withheld)
    }

    /// Takes the whole characters; bytes that can't be UTF-8 become U+FFFD.
    fn take_whole(&mut self) -> String {
        let mut out = String::new();
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, after) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(whole));
                    let Some(bad) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = after.split_at(bad).1;
                }
            }
        }
        debug_assert!(rest.len() < CHARACTER_BYTES_MAX);
        self.partial = rest.to_vec();
        out
    }
}

/// Length of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0).rev();
    ends.into_iter().find(|at| text.ends_with(stop.split_at(*at).0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut stream = TextStream::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out: Vec<String> = pieces.iter().map(|piece| stream.push(piece)).collect();
        out.push(stream.finish());
        (out, stream.stopped())
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let (out, _) = run(&[], &[b"a\xF0\x9F", b"\x98", b"\x80b"]);
        assert_eq!(out, ["a", "", "😀b", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_a_cut_one_is_dropped() {
        assert_eq!(run(&[], &[b"a\xFFb", b"\xE2\x82"]).0, ["a\u{FFFD}b", "", ""]);
    }

    #[test]
    fn a_stop_over_token_boundaries_is_withheld_and_cut() {
        let (out, stopped) = run(&["END"], &[b"one E", b"N", b"D two", b"three"]);
        assert_eq!((out.concat().as_str(), stopped), ("one ", true));
        assert_eq!(out[0], "one ");
    }

    #[test]
    fn a_false_start_is_given_back() {
        let (out, stopped) = run(&["END", "\n\n"], &[b"EN", b"EM", b"Y\n"]);
        assert_eq!((out.concat().as_str(), stopped), ("ENEMY\n", false));
        assert_eq!(run(&["aab"], &[b"aa", b"a", b"b!"]).0.concat(), "a");
    }

    #[test]
    fn the_first_of_several_stops_counts() {
        assert_eq!(run(&["c", "b"], &[b"abc"]).0.concat(), "a");
        assert_eq!(run(&[""], &[b"abc"]).0.concat(), "abc");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(text in "[ab€😀]{0,30}", stop in "[ab€]{1,3}", cuts in prop::collection::vec(1_usize..5, 1..40)) {
            let mut stream = TextStream::new(vec![stop.clone()]);
            let (mut out, mut rest, mut cuts) = (String::new(), text.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                out.push_str(&stream.push(piece));
                rest = after;
            }
            out.push_str(&stream.finish());
            prop_assert_eq!(out, text.split(&stop).next().unwrap());
            prop_assert_eq!(stream.stopped(), text.contains(&stop));
        }
    }
}
