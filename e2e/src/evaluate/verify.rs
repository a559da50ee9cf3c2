//! The right answers, worked out from the questions alone, by other code than that which drew them.

use anyhow::{Context, Result, bail};

/// The right answer to a question.
///
/// # Errors
/// Where the question is not of this kind.
pub(super) fn answer(kind: &str, question: &str) -> Result<String> {
    let answer = match kind {
        "sum" => sum(question),
        "story" => story(question),
        "list" => list(question),
        "hop" => hop(question),
        _ => bail!("no such kind of task: {kind}"),
    };
    answer.with_context(|| format!("no question of kind {kind}: {question}"))
}

/// The answer that a text gives, after its last equals sign; none where it breaks off before.
pub(super) fn said(text: &str) -> Option<&str> {
    text.rsplit_once('=').map(|(_, said)| said.trim()).filter(|said| !said.is_empty())
}

/// `last two digits of @12 a +4 b -5…`, or three of three.
fn sum(question: &str) -> Option<String> {
    let (count, rest) = question.strip_prefix("last ")?.split_once(" digits of @")?;
    let mut words = rest.split(' ');
    let (digits, mut total) = number(words.next()?)?;
    if !matches!((count, digits), ("two", 2) | ("three", 3)) {
        return None;
    }
    while let Some(word) = words.next() {
        name(word)?;
        let signed = words.next().filter(|signed| signed.starts_with(['+', '-']))?;
        total += signed.parse::<i64>().ok()?;
    }
    Some(format!("{:0digits$}", total.rem_euclid(10_i64.pow(u32::try_from(digits).ok()?))))
}

/// `Ann has @12 dollars a earns $5 b pays $3. How many?`
fn story(question: &str) -> Option<String> {
    let (_, rest) = question.strip_suffix(". How many?")?.split_once(" has @")?;
    let mut words = rest.split(' ');
    let (digits, mut count) = number(words.next()?)?;
    words.next().filter(|unit| *unit == "dollars")?;
    while let Some(word) = words.next() {
        name(word)?;
        let verb = words.next()?;
        let by: i64 = words.next()?.strip_prefix('$')?.parse().ok()?;
        count += match verb {
            "earns" | "finds" | "gets" | "wins" => by,
            "spends" | "loses" | "gives" | "pays" => -by,
            _ => return None,
        };
    }
    (count >= 0).then(|| format!("{count:0digits$}")).filter(|written| written.len() == digits)
}

/// How many digits it has, and its value.
fn number(digits: &str) -> Option<(usize, i64)> {
    Some((digits.len(), digits.parse().ok()?))
}

/// `order of @1234 a flip b left`
fn list(question: &str) -> Option<String> {
    let mut words = question.strip_prefix("order of @")?.split(' ');
    let mut items: Vec<char> = words.next()?.chars().collect();
    let last = items.len().checked_sub(1).filter(|last| *last >= 3)?;
    while let Some(word) = words.next() {
        name(word)?;
        match words.next()? {
            "flip" => items.reverse(),
            "left" => items.rotate_left(1),
            "right" => items.rotate_right(1),
            "front" => items.swap(0, 1),
            "back" => items.swap(last - 1, last),
            "ends" => items.swap(0, last),
            "halves" => items.rotate_left(last.div_ceil(2)),
            _ => return None,
        }
    }
    Some(items.into_iter().collect())
}

/// Of a step: one letter. None where it is something else.
fn name(word: &str) -> Option<char> {
    let mut letters = word.chars();
    letters.next().filter(|letter| letter.is_ascii_alphabetic() && letters.next().is_none())
}

/// `hops to c from @4 by 07 12…`: as many hops as the letter's place, `a` being the first; `07` leads from 0 to 7.
fn hop(question: &str) -> Option<String> {
    let (last, rest) = question.strip_prefix("hops to ")?.split_once(" from @")?;
    let (start, ways) = rest.split_once(" by ")?;
    let hops = ('a'..='z').chain('A'..='F').position(|name| last.chars().eq([name]))? + 1;
    let leads = |from: &str| ways.split(' ').find_map(|way| way.strip_prefix(from).filter(|to| to.len() == 1));
    let mut at = start;
    for _ in 0..hops {
        at = leads(at)?;
    }
    Some(at.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_worked_out() {
        for (kind, question, right) in [
            ("sum", "last two digits of @07", "07"),
            ("sum", "last two digits of @97 a +5 b -4", "98"),
            ("sum", "last two digits of @05 x -9", "96"),
            ("sum", "last three digits of @907 x +105", "012"),
            ("story", "Ann has @12 dollars b earns $5 c gives $9. How many?", "08"),
            ("story", "Ann has @012 dollars b earns $105. How many?", "117"),
            ("list", "order of @1234 a flip", "4321"),
            ("list", "order of @1234 a left b front c back d ends e halves f right", "2134"),
            ("list", "order of @123456 a back b ends c halves", "461523"),
            ("hop", "hops to c from @0 by 01 12 20", "0"),
            ("hop", "hops to b from @0 by 01 12 20", "2"),
            ("hop", "hops to F from @0 by 01 10", "0"),
        ] {
            assert_eq!(answer(kind, question).unwrap(), right, "{question}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (kind, question) in [
            ("sum", "order of @1234"),
            ("sum", "last two digits of @01 a +x"),
            ("sum", "last two digits of @01 a 2"),
            ("sum", "last two digits of @01 +2"),
            ("sum", "last two digits of @001 a +2"),
            ("story", "Ann has @12 dollars a eats $5. How many?"),
            ("story", "Ann has @12 dollars a pays 5. How many?"),
            ("story", "Ann has @12 pears a pays $5. How many?"),
            ("story", "Ann has @02 dollars a pays $3. How many?"),
            ("story", "Ann has @99 dollars a earns $3. How many?"),
            ("list", "order of @123 a flip"),
            ("list", "order of @1234 a turn"),
            ("hop", "hops to b from @3 by 01 12 20"),
            ("hop", "hops to ? from @0 by 00"),
            ("poem", "a rose"),
        ] {
            assert!(answer(kind, question).is_err(), "{question}");
        }
    }

    #[test]
    fn an_answer_stands_after_the_last_equals_sign() {
        assert_eq!((said("1 = 2 = 3"), said("1 ="), said("")), (Some("3"), None, None));
    }
}
