//! The KV cache as the scheduler sees it: sequences, the tokens that each holds, and the cells that these take.
//!
//! ```text
//! acquire: prompt ─▶ longest beginning that is there ─ copy or take over ─▶ a sequence ─ grow … truncate ─▶ release
//!                                                                     idle, kept for its beginning ─ last used goes first
//! ```
//! A sequence is busy (a request computes in it), idle (kept, because a later prompt may begin like it) or free. What a
//! request shares with another sequence is not computed again. Where sequences share cells, a cell counts once however
//! many hold it; where each has cells of its own, sharing is a copy.
//!
//! No clock, no I/O: what the engine must do to follow is a list of [`KvOp`]s.

mod tree;

use crate::sampler::Token;
use tree::Tree;

/// A sequence of the engine, from 0.
pub type Sequence = usize;

/// Tokens of a block of the tree: short enough that little of a shared beginning is lost, long enough for a small tree.
pub const BLOCK_TOKENS: usize = 16;

/// How sequences hold what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One pool of cells for all (llama.cpp's unified cache): a shared cell is there once.
    Cells,
    /// Each sequence has cells of its own: what is shared is copied.
    Copies,
}

/// What the engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCapacity {
    /// Sequences, busy and idle.
    pub sequences: usize,
    /// Cells of all sequences together; one cell is one token's keys and values.
    pub cells: usize,
    /// How they are shared.
    pub sharing: Sharing,
}

/// What the engine must do, in this order, before it computes the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOp {
    /// The first `tokens` tokens of `from` are now in `to` as well, which was empty.
    Copy {
        /// Whose.
        from: Sequence,
        /// Where to.
        to: Sequence,
        /// How many.
        tokens: usize,
    },
    /// A sequence keeps its first `tokens` tokens and forgets the rest.
    Keep {
        /// Which.
        sequence: Sequence,
        /// How many.
        tokens: usize,
    },
}

type Cell = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Busy,
    /// Since this tick of the pool's own count.
    Idle(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    all: usize,
    busy: usize,
}

#[derive(Clone, Debug)]
struct Held {
    state: Use,
    tokens: Vec<Token>,
    /// One for each token.
    cells: Vec<Cell>,
    /// How many are computed and may be shared: those of the step in the making are not there yet.
    ready: usize,
}

/// All sequences and cells.
#[derive(Clone, Debug)]
pub struct Pool {
    capacity: KvCapacity,
    held: Vec<Held>,
    tree: Tree,
    /// How many sequences hold each cell, and how many of them are busy.
    holders: Vec<Holders>,
    free: Vec<Cell>,
    /// Cells that a busy sequence holds.
    busy: usize,
    ticks: u64,
    ops: Vec<KvOp>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(capacity: KvCapacity) -> Self {
        let empty = Held { state: Use::Free, tokens: Vec::new(), cells: Vec::new(), ready: 0 };
        Self {
            capacity,
            held: vec![empty; capacity.sequences],
            tree: Tree::new(BLOCK_TOKENS, capacity.sequences),
            holders: vec![Holders::default(); capacity.cells],
            free: (0..capacity.cells).rev().collect(),
            busy: 0,
            ticks: 0,
            ops: Vec::new(),
        }
    }

    /// A sequence for a text that begins with `tokens`, and how many of them it holds already: always fewer than there
    /// are, since the last one's logits are wanted. `None` where every sequence is busy or the copy finds no room.
    pub fn acquire(&mut self, tokens: &[Token]) -> Option<(Sequence, usize)> {
        let found = self.longest(tokens);
        let sequence = self.choose(found)?;
        let held = match found {
            Some((source, shared)) if source == sequence => {
                self.truncate(sequence, shared);
                shared
            }
            Some((source, shared)) => {
                self.truncate(sequence, 0);
                self.copy(source, sequence, shared)
            }
            None => {
                self.truncate(sequence, 0);
                0
            }
        };
        self.occupy(sequence);
        Some((sequence, held))
    }

    /// How many tokens of this text are here already.
    #[must_use]
    pub fn cached(&self, tokens: &[Token]) -> usize {
        self.longest(tokens).map_or(0, |(_, shared)| shared)
    }

    /// The sequence that shares most with a text, and how much: at least a block, and never all.
    fn longest(&self, tokens: &[Token]) -> Option<(Sequence, usize)> {
        let most = tokens.len().saturating_sub(1);
        let (blocks, holders) = self.tree.find(tokens)?;
        let whole = blocks * BLOCK_TOKENS;
        let shared = |sequence: &Sequence| {
            let held = self.held.get(*sequence).and_then(|held| held.tokens.get(whole..held.ready)).unwrap_or_default();
            (whole + common(held, tokens.get(whole..).unwrap_or_default())).min(most)
        };
        // An idle one first among equals: it may be taken over whole.
        let rank = |sequence: &Sequence| (shared(sequence), self.is_idle(*sequence), usize::MAX - sequence);
        let best = holders.iter().max_by_key(|sequence| rank(sequence))?;
        Some((*best, shared(best))).filter(|(_, shared)| *shared > 0)
    }

    /// Where a new request computes: in the found one itself where nothing of it is lost or no other is to be had, else
    /// in a free one, else in the idle one that was used longest ago.
    fn choose(&self, found: Option<(Sequence, usize)>) -> Option<Sequence> {
        let mine = found.filter(|(source, _)| self.is_idle(*source));
        if let Some((source, shared)) = mine
            && self.held.get(source).is_some_and(|held| held.tokens.len() == shared)
        {
            return Some(source);
        }
        let free = self.held.iter().position(|held| held.state == Use::Free);
        free.or_else(|| self.oldest(found.map(|(source, _)| source))).or(mine.map(|(source, _)| source))
    }

    /// The idle sequence that was used longest ago, but for one.
    fn oldest(&self, but: Option<Sequence>) -> Option<Sequence> {
        let idle = self.held.iter().enumerate().filter_map(|(sequence, held)| match held.state {
            Use::Idle(since) if Some(sequence) != but => Some((since, sequence)),
            _ => None,
        });
        idle.min().map(|(_, sequence)| sequence)
    }

    fn is_idle(&self, sequence: Sequence) -> bool {
        self.held.get(sequence).is_some_and(|held| matches!(held.state, Use::Idle(_)))
    }

    /// Shares the first tokens of `from` with the empty sequence `to`; 0 where there is no room for a copy.
    fn copy(&mut self, from: Sequence, to: Sequence, tokens: usize) -> usize {
        let Some(source) = self.held.get(from) else { return 0 };
        let text = source.tokens.get(..tokens).unwrap_or_default().to_vec();
        let shared = source.cells.get(..tokens).unwrap_or_default().to_vec();
        let cells = match self.capacity.sharing {
            Sharing::Cells => shared,
            Sharing::Copies if self.free.len() < tokens => return 0,
            Sharing::Copies => self.free.split_off(self.free.len() - tokens),
        };
        for cell in &cells {
            if let Some(holders) = self.holders.get_mut(*cell) {
                holders.all += 1;
            }
        }
        self.tree.extend(to, &text);
        if let Some(held) = self.held.get_mut(to) {
            (held.tokens, held.cells, held.ready) = (text, cells, tokens);
        }
        self.ops.push(KvOp::Copy { from, to, tokens });
        tokens
    }

    /// A request begins to compute in a sequence.
    fn occupy(&mut self, sequence: Sequence) {
        let Some(held) = self.held.get_mut(sequence) else { return };
        held.state = Use::Busy;
        for cell in &held.cells {
            if let Some(holders) = self.holders.get_mut(*cell) {
                self.busy += usize::from(holders.busy == 0);
                holders.busy += 1;
            }
        }
    }

    /// Cells that can be had: the free ones, and those that only idle sequences hold.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity.cells - self.busy
    }

    /// The next tokens of a busy sequence get their cells; idle sequences give way. They can be shared once they are
    /// computed ([`Pool::settle`]). `false`, and nothing done, where there is no room.
    pub fn grow(&mut self, sequence: Sequence, tokens: &[Token]) -> bool {
        while self.free.len() < tokens.len() {
            match self.oldest(None) {
                Some(idle) => self.forget(idle),
                None => return false,
            }
        }
        let cells = self.free.split_off(self.free.len() - tokens.len());
        for cell in &cells {
            if let Some(holders) = self.holders.get_mut(*cell) {
                *holders = Holders { all: 1, busy: 1 };
            }
        }
        self.busy += cells.len();
        if let Some(held) = self.held.get_mut(sequence) {
            held.tokens.extend_from_slice(tokens);
            held.cells.extend(cells);
        }
        true
    }

    /// All that sequences grew by is computed now.
    pub fn settle(&mut self) {
        for (sequence, held) in self.held.iter_mut().enumerate().filter(|(_, held)| held.ready < held.tokens.len()) {
            held.ready = held.tokens.len();
            self.tree.extend(sequence, &held.tokens);
        }
    }

    /// A sequence keeps only its first tokens.
    pub fn truncate(&mut self, sequence: Sequence, tokens: usize) {
        let Some(held) = self.held.get_mut(sequence) else { return };
        if held.tokens.len() <= tokens {
            return;
        }
        held.tokens.truncate(tokens);
        held.ready = held.ready.min(tokens);
        let busy = held.state == Use::Busy;
        for cell in held.cells.split_off(tokens) {
            let Some(holders) = self.holders.get_mut(cell) else { continue };
            holders.all = holders.all.saturating_sub(1);
            if busy {
                holders.busy = holders.busy.saturating_sub(1);
                self.busy -= usize::from(holders.busy == 0);
            }
            if holders.all == 0 {
                self.free.push(cell);
            }
        }
        self.tree.truncate(sequence, tokens);
        self.ops.push(KvOp::Keep { sequence, tokens });
    }

    /// A request is done with its sequence, which stays for what may begin like it.
    pub fn release(&mut self, sequence: Sequence) {
        self.settle();
        self.ticks += 1;
        if self.tokens(sequence).len() < BLOCK_TOKENS {
            self.forget(sequence);
            return;
        }
        let Some(held) = self.held.get_mut(sequence) else { return };
        held.state = Use::Idle(self.ticks);
        for cell in &held.cells {
            if let Some(holders) = self.holders.get_mut(*cell) {
                holders.busy = holders.busy.saturating_sub(1);
                self.busy -= usize::from(holders.busy == 0);
            }
        }
    }

    /// A sequence holds nothing and is free.
    pub fn forget(&mut self, sequence: Sequence) {
        self.truncate(sequence, 0);
        if let Some(held) = self.held.get_mut(sequence) {
            held.state = Use::Free;
        }
    }

    /// What the engine must do to follow, since the last call.
    pub fn take_ops(&mut self) -> Vec<KvOp> {
        std::mem::take(&mut self.ops)
    }

    /// Cells that nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Cells that any sequence holds.
    #[must_use]
    pub fn used(&self) -> usize {
        self.capacity.cells - self.free.len()
    }

    /// Cells that running requests hold: `used` without what is only kept.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Sequences in which a request computes.
    #[must_use]
    pub fn busy_sequences(&self) -> usize {
        self.held.iter().filter(|held| held.state == Use::Busy).count()
    }

    /// What it was made for.
    #[must_use]
    pub fn capacity(&self) -> KvCapacity {
        self.capacity
    }

    /// The tokens that a sequence holds.
    #[must_use]
    pub fn tokens(&self, sequence: Sequence) -> &[Token] {
        self.held.get(sequence).map_or(&[], |held| &held.tokens)
    }
}

/// How many tokens two texts have in common at their beginning.
#[must_use]
pub fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
