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

/// Whether a text gives this answer: what stands after its last equals sign.
pub(super) fn is_right(text: &str, answer: &str) -> bool {
    said(text) == Some(answer)
}

/// The answer that a text gives; none where it breaks off before.
pub(super) fn said(text: &str) -> Option<&str> {
    text.rsplit_once('=').map(|(_, said)| said.trim()).filter(|said| !said.is_empty())
}

/// `last two digits of 12a+34b-05…`
fn sum(question: &str) -> Option<String> {
    let mut terms = question.strip_prefix("last two digits of ")?.split(|c: char| c.is_ascii_alphabetic());
    let mut total: i64 = terms.next()?.parse().ok()?;
    for term in terms {
        // The sign is a part of the number: `+34` and `-05`.
        total += term.parse::<i64>().ok().filter(|_| term.starts_with(['+', '-']))?;
    }
    Some(format!("{:02}", total.rem_euclid(100)))
}

/// `Ann has 12 pears.`, a line such as `a: buys 05` for each step, `How many?`
fn story(question: &str) -> Option<String> {
    let mut lines = question.strip_suffix("\nHow many?")?.lines();
    let (_, rest) = lines.next()?.split_once(" has ")?;
    let mut count: i64 = rest.split_once(' ')?.0.parse().ok()?;
    for line in lines {
        let (_, event) = line.split_once(": ")?;
        let (verb, by) = event.split_once(' ')?;
        let by: i64 = by.parse().ok()?;
        count += match verb {
            "buys" | "finds" | "gets" | "wins" => by,
            "sells" | "loses" | "gives" | "drops" => -by,
            _ => return None,
        };
    }
    (0..100).contains(&count).then(|| format!("{count:02}"))
}

/// `order of 1234`, and a line such as `a: flip` for each step.
fn list(question: &str) -> Option<String> {
    let mut lines = question.strip_prefix("order of ")?.lines();
    let mut items: Vec<char> = lines.next()?.chars().collect();
    if items.len() != 4 {
        return None;
    }
    for line in lines {
        match line.split_once(": ")?.1 {
            "flip" => items.reverse(),
            "left" => items.rotate_left(1),
            "right" => items.rotate_right(1),
            "front" => items.swap(0, 1),
            "back" => items.swap(2, 3),
            "ends" => items.swap(0, 3),
            "halves" => items.rotate_left(2),
            _ => return None,
        }
    }
    Some(items.into_iter().collect())
}

/// `hops to c from 4: 0>7,1>2,…`: as many hops as the letter's place, `a` being the first.
fn hop(question: &str) -> Option<String> {
    let (last, rest) = question.strip_prefix("hops to ")?.split_once(" from ")?;
    let (start, arrows) = rest.split_once(": ")?;
    let hops = ('a'..='z').chain('A'..='F').position(|name| last.chars().eq([name]))? + 1;
    let leads = |from: &str| {
        arrows.split(',').filter_map(|arrow| arrow.split_once('>')).find(|(at, _)| *at == from).map(|(_, to)| to)
    };
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
            ("sum", "last two digits of 07", "07"),
            ("sum", "last two digits of 90a+15b-07", "98"),
            ("sum", "last two digits of 05a-99b+01", "07"),
            ("story", "Ann has 12 pears.\na: buys 05\nb: gives 10\nHow many?", "07"),
            ("list", "order of 1234\na: flip", "4321"),
            ("list", "order of 1234\na: left\nb: front\nc: back\nd: ends\ne: halves\nf: right", "2134"),
            ("hop", "hops to c from 0: 0>1,1>2,2>0", "0"),
            ("hop", "hops to b from 0: 0>1,1>2,2>0", "2"),
            ("hop", "hops to F from 0: 0>1,1>0", "0"),
        ] {
            assert_eq!(answer(kind, question).unwrap(), right, "{question}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (kind, question) in [
            ("sum", "order of 1234"),
            ("sum", "last two digits of 01a+x"),
            ("sum", "last two digits of 01a02"),
            ("story", "Ann has 12 pears.\na: eats 05\nHow many?"),
            ("story", "Ann has 12 pears.\na: drops 13\nHow many?"),
            ("list", "order of 123\na: flip"),
            ("list", "order of 1234\na: turn"),
            ("hop", "hops to b from 3: 0>1,1>2,2>0"),
            ("hop", "hops to ? from 0: 0>0"),
            ("poem", "a rose"),
        ] {
            assert!(answer(kind, question).is_err(), "{question}");
        }
    }

    #[test]
    fn an_answer_stands_after_the_last_equals_sign() {
        assert!(is_right("a12b17=07", "07"));
        assert!(is_right("= 07 ", "07"));
        assert!(!is_right("a12b17c07", "07"), "what breaks off is no answer");
        assert!(!is_right("= 7", "07"));
        assert_eq!((said("1 = 2 = 3"), said("1 ="), said("")), (Some("3"), None, None));
    }
}
