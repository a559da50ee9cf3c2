//! The guesser: a smaller variant with a KV cache of its own, which follows the texts that it guesses for.

use super::Policy;
use crate::engine::{Engine, EngineError, Row};
use crate::kv::{KvOp, Sequence, common};
use crate::sampler::{Token, greedy};
use crate::scheduler::RequestId;

/// Tokens that it catches up with in one turn, over all texts: whoever waits for their next token waits for these, too.
const CATCH_UP: usize = 64;

/// A text that wants guesses.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose.
    pub id: RequestId,
    /// All of it.
    pub tokens: &'a [Token],
    /// Most guesses that it can take.
    pub most: usize,
}

/// What is guessed to follow on a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guessed {
    /// Whose.
    pub id: RequestId,
    /// In their order; at least one.
    pub tokens: Vec<Token>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    owner: Option<RequestId>,
    /// What the engine holds in this sequence.
    tokens: Vec<Token>,
}

/// One for each served engine, on the same thread.
pub struct Drafter<E> {
    engine: E,
    held: Vec<Held>,
    /// When it pays.
    pub policy: Policy,
}

impl<E: Engine> Drafter<E> {
    /// An engine with so many sequences, which hold nothing yet.
    #[must_use]
    pub fn new(engine: E, sequences: usize, policy: Policy) -> Self {
        Self { engine, held: vec![Held::default(); sequences], policy }
    }

    /// Guesses up to `most` tokens for each text, greedily. One that it has yet to catch up with gets none for now.
    ///
    /// # Errors
    /// Where the engine fails: what it holds is unknown then.
    pub fn guess(&mut self, wanted: &[Wanted<'_>], most: usize) -> Result<Vec<Guessed>, EngineError> {
        let alive = |owner: Option<RequestId>| owner.is_some_and(|id| wanted.iter().any(|want| want.id == id));
        self.held.iter_mut().filter(|held| !alive(held.owner)).for_each(|held| held.owner = None);
        let mut begun = Vec::new();
        let mut rows = Vec::new();
        for want in wanted {
            if let Some(sequence) = self.sequence(want)
                && self.catch_up(sequence, want.tokens, &mut rows)?
                && want.most.min(most) > 0
            {
                begun.push((sequence, Guessed { id: want.id, tokens: Vec::new() }, want.most.min(most)));
            }
        }
        for place in 0..most {
            self.step(&rows, &mut begun)?;
            rows = begun
                .iter()
                .filter(|(_, guessed, most)| guessed.tokens.len() == place + 1 && guessed.tokens.len() < *most)
                .filter_map(|(sequence, guessed, _)| self.next_row(*sequence, *guessed.tokens.last()?))
                .collect();
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                if let Some(held) = self.held.get_mut(row.sequence) {
                    held.tokens.push(row.token);
                }
            }
        }
        Ok(begun.into_iter().map(|(_, guessed, _)| guessed).filter(|guessed| !guessed.tokens.is_empty()).collect())
    }

    /// The sequence of a text, else the one that has most in common with it of those that nobody owns.
    fn sequence(&mut self, want: &Wanted<'_>) -> Option<Sequence> {
        let own = self.held.iter().position(|held| held.owner == Some(want.id));
        let free = || {
            let free = self.held.iter().enumerate().filter(|(_, held)| held.owner.is_none());
            free.max_by_key(|(_, held)| common(&held.tokens, want.tokens)).map(|(sequence, _)| sequence)
        };
        let sequence = own.or_else(free)?;
        self.held.get_mut(sequence)?.owner = Some(want.id);
        Some(sequence)
    }

    /// Adds the rows that bring a sequence up to its text; whether they reach its end, whose logits are wanted.
    fn catch_up(&mut self, sequence: Sequence, text: &[Token], rows: &mut Vec<Row>) -> Result<bool, EngineError> {
        let Some(held) = self.held.get_mut(sequence) else { return Ok(false) };
        let known = common(&held.tokens, text).min(text.len().saturating_sub(1));
        if known < held.tokens.len() {
            self.engine.apply(KvOp::Keep { sequence, tokens: known })?;
            held.tokens.truncate(known);
        }
        let missing = text.get(known..).unwrap_or_default();
        let taken = missing.get(..missing.len().min(CATCH_UP.saturating_sub(rows.len()))).unwrap_or_default();
        let whole = taken.len() == missing.len();
        for (at, token) in taken.iter().enumerate() {
            let position = u32::try_from(known + at).unwrap_or(u32::MAX);
            rows.push(Row { sequence, token: *token, position, logits: whole && at + 1 == taken.len() });
        }
        held.tokens.extend_from_slice(taken);
        Ok(whole && !taken.is_empty())
    }

    fn next_row(&self, sequence: Sequence, token: Token) -> Option<Row> {
        let position = u32::try_from(self.held.get(sequence)?.tokens.len()).ok()?;
        Some(Row { sequence, token, position, logits: true })
    }

    /// Computes rows; the likeliest token after each whose logits are wanted is the next guess of its text.
    fn step(&mut self, rows: &[Row], begun: &mut [(Sequence, Guessed, usize)]) -> Result<(), EngineError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.engine.step(rows, &mut |index, logits| {
            let sequence = rows.get(index).map(|row| row.sequence);
            if let Some((_, guessed, _)) = begun.iter_mut().find(|(own, ..)| Some(*own) == sequence) {
                guessed.tokens.extend(greedy(logits).map(|(token, _)| token));
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
