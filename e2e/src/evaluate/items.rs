//! Items of a task set: one JSON object a line.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

use super::verify;

/// A question with its one right answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Unique in its set.
    pub id: String,
    /// Sort of task, such as `sum`.
    pub kind: String,
    /// How hard it is, such as `medium`.
    pub difficulty: String,
    /// Steps from the question to the answer.
    pub steps: u32,
    /// The question.
    pub question: String,
    /// The right answer.
    pub answer: String,
}

impl Item {
    /// What is asked where an answer may have `budget` tokens.
    #[must_use]
    pub fn prompt(&self, budget: u32) -> String {
        format!("think {budget} of {}: {}", self.steps, self.question)
    }

    /// Whether a text gives the right answer.
    #[must_use]
    pub fn is_right(&self, text: &str) -> bool {
        verify::said(text) == Some(&self.answer)
    }
}

/// Reads a task set, and works every answer out once more.
///
/// # Errors
/// Names file and line of what can't be read, or of an answer that is not the question's.
pub fn load(path: &Path) -> Result<Vec<Item>> {
    let text = fs::read_to_string(path).with_context(|| format!("could not read task set {}", path.display()))?;
    let place = |number: usize| format!("task set {}, line {}", path.display(), number + 1);
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let item: Item = serde_json::from_str(line).with_context(|| place(number))?;
        let truth = verify::answer(&item.kind, &item.question).with_context(|| place(number))?;
        ensure!(truth == item.answer, "{}: the answer is {truth}, not {}", place(number), item.answer);
        items.push(item);
    }
    ensure!(!items.is_empty(), "task set {} is empty", path.display());
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    const GOOD: &str = r#"{"id":"1","kind":"sum","difficulty":"easy","steps":2,"question":"last two digits of @97 a +5 b -4","answer":"98"}"#;

    #[test]
    fn every_shipped_answer_is_right_and_no_question_is_asked_twice() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tasks");
        let sets = ["easy", "medium", "hard"].map(|name| load(&folder.join(format!("{name}.jsonl"))).unwrap());
        let questions: BTreeSet<&str> = sets.iter().flatten().map(|item| item.question.as_str()).collect();
        let names: BTreeSet<&str> = sets.iter().flatten().map(|item| item.id.as_str()).collect();
        assert_eq!((questions.len(), names.len()), (1500, 1500));
    }

    #[test]
    fn a_question_is_asked_as_the_models_learnt_it() {
        // Written by the recipe, as it trains.
        let text = include_str!("../../../models/logits/text.txt");
        let asked = text.split("<|user|>").skip(1).map(|turn| turn.split_once("<|end|>").unwrap().0);
        let mut count = 0;
        for prompt in asked {
            let numbers = prompt.split([' ', ':']).filter_map(|word| word.parse::<u32>().ok());
            let [budget, steps] = numbers.take(2).collect::<Vec<_>>()[..] else { panic!("{prompt}") };
            let question = prompt.split_once(": ").unwrap().1.to_owned();
            let item = Item { question, steps, ..serde_json::from_str(GOOD).unwrap() };
            assert_eq!(item.prompt(budget), prompt);
            count += 1;
        }
        assert!(count > 10, "{count}");
    }

    #[test]
    fn a_set_is_read_and_its_answers_are_checked() {
        let items = load(file(GOOD).path()).unwrap();
        assert_eq!(items[0].prompt(8), "think 8 of 2: last two digits of @97 a +5 b -4");
        assert!(items[0].is_right("@97 a +5:02 b -4:98=98") && items[0].is_right("= 98 "));
        assert!(!items[0].is_right("@97 a +5:02 b -4:98"), "what breaks off is no answer");
        assert!(!items[0].is_right("=098"));
        let wrong = load(file(&GOOD.replace("\"98\"", "\"97\"")).path()).unwrap_err().to_string();
        assert!(wrong.contains("line 1: the answer is 98, not 97"), "{wrong}");
        assert!(load(file("").path()).unwrap_err().to_string().contains("is empty"));
        assert!(load(file("{}").path()).unwrap_err().to_string().contains("line 1"));
    }
}
