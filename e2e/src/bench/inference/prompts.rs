//! Prompts of a given length that share no beginning with each other, so that no cache helps.

use std::iter;

/// Each is one token of SmolLM2's vocabulary when a space stands before it.
const WORDS: [&str; 32] = [
    "ship", "north", "bread", "water", "days", "grey", "calm", "under", "house", "river", "stone", "night", "green",
    "money", "paper", "light", "horse", "table", "music", "winter", "garden", "market", "letter", "island", "bridge",
    "summer", "number", "people", "school", "street", "window", "story",
];

/// About `tokens` tokens of text; another text for every `seed`.
pub(in crate::bench) fn prompt(tokens: u64, seed: u64) -> String {
    let numbers = iter::successors(Some(mixed(seed)), |number| Some(mixed(*number)));
    let words = numbers.zip(0..tokens).filter_map(|(number, _)| WORDS.get(usize::try_from(number >> 59).ok()?));
    words.copied().collect::<Vec<_>>().join(" ")
}

/// How far SplitMix64's state goes on with each number.
pub(crate) const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's number after this state (Steele, Lea, Flood 2014).
pub(crate) fn mixed(state: u64) -> u64 {
    let sum = state.wrapping_add(STEP);
    let once = (sum ^ (sum >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let twice = (once ^ (once >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    twice ^ (twice >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn prompts_have_their_length_repeat_and_differ_early() {
        assert_eq!(prompt(64, 7).split(' ').count(), 64);
        assert_eq!(prompt(64, 7), prompt(64, 7));
        let begins: BTreeSet<String> =
            (0..200).map(|seed| prompt(4, seed).split(' ').collect::<Vec<_>>().join(" ")).collect();
        assert!(begins.len() > 195, "{} of 200 begin differently", begins.len());
    }

    #[test]
    fn a_longer_prompt_begins_like_the_shorter() {
        assert!(prompt(20, 3).starts_with(&prompt(10, 3)));
    }
}
