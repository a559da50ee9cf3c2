//! Who computes in the next step: continuous batching as a pure state machine.
//!
//! ```text
//! enqueue ─▶ queue (fair, bounded) ─ a place and KV room ─▶ prefill in chunks ─▶ decode ─▶ end
//!                ▲                                             └──── KV runs out ────┘
//!                └──────────── preempted: computed again later, nothing is lost ─────┘
//! ```
//! Each [`Scheduler::plan`] gives one row to every request that waits for its next token, then shares a budget of prompt
//! tokens among the others, oldest first. A prompt that begins like another one takes what that has computed; while
//! that is still being computed, it waits instead of computing the same twice. Where the KV cache runs out, first what is
//! only kept for later goes, then the least important and youngest request is put back into the queue; the oldest
//! never is, so that somebody always gets done.
//!
//! No clock, no I/O: time is an argument. The driver draws the tokens and says them with [`Scheduler::push`].

mod types;

use crate::kv::{KvOp, Pool, Sequence, common};
use crate::queue::{Queue, Waiting};
use crate::sampler::Token;
use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::kv::{KvCapacity, Sharing};
pub use crate::queue::{Flow, PRIORITY_MAX};

pub use types::{Begun, Capacity, Decoding, Refusal, Request, RequestId, Step, Work};

#[derive(Clone, Debug)]
struct Entry {
    /// Prompt and what was generated.
    tokens: Vec<Token>,
    /// How long the text may become.
    most: usize,
    flow: Flow,
    /// Whether it holds a place.
    running: bool,
    sequence: Option<Sequence>,
    computed: usize,
    /// Whether its answer has begun.
    answering: bool,
    /// What may follow on its text, for the next step.
    guesses: Vec<Token>,
    /// Tokens that held and are computed before they are said.
    ahead: usize,
}

impl Entry {
    fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Tokens that may be guessed to follow: whatever holds, one more is drawn.
    fn guesses_max(&self) -> usize {
        (self.most - self.tokens.len()).saturating_sub(1)
    }

    /// Waits for its next token, and so for the end of each step.
    fn decodes(&self) -> bool {
        self.sequence.is_some() && self.answering && self.left() == 1
    }
}

/// The state: requests by number, the queue, and the KV cache.
#[derive(Clone, Debug)]
pub struct Scheduler {
    capacity: Capacity,
    entries: BTreeMap<RequestId, Entry>,
    queue: Queue,
    pool: Pool,
    running: usize,
}

impl Scheduler {
    /// An idle scheduler. There are at least as many sequences as places.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let kv = KvCapacity { sequences: capacity.kv.sequences.max(capacity.places), ..capacity.kv };
        let capacity = Capacity { kv, ..capacity };
        let (entries, queue) = (BTreeMap::new(), Queue::default());
        Self { capacity, entries, queue, pool: Pool::new(kv), running: 0 }
    }

    /// Puts a request at the end of its flow.
    ///
    /// # Errors
    /// Where it can never run, or where too many wait already.
    pub fn enqueue(&mut self, request: Request) -> Result<(), Refusal> {
        let Request { id, tokens, generate, flow, deadline } = request;
        if tokens.is_empty() || generate == 0 {
            return Err(Refusal::Empty);
        }
        let most = tokens.len().saturating_add(generate);
        if most > self.capacity.context || most > self.capacity.kv.cells {
            return Err(Refusal::TooLarge);
        }
        if self.entries.contains_key(&id) {
            return Err(Refusal::Duplicate);
        }
        // What fits a free place waits only until the next plan.
        let free = self.capacity.places.saturating_sub(self.running);
        if self.queue.len() >= self.capacity.queue.saturating_add(free) {
            return Err(Refusal::QueueFull);
        }
        self.queue.push(Waiting { id, flow: flow.clone(), deadline });
        let (running, sequence, computed, answering, guesses, ahead) = (false, None, 0, false, Vec::new(), 0);
        self.entries.insert(id, Entry { tokens, most, flow, running, sequence, computed, answering, guesses, ahead });
        Ok(())
    }

    /// The next step at the time `now`, with at most `prefill` tokens of prompts in it. Assumes that the step will be
    /// computed as it says.
    pub fn plan(&mut self, prefill: usize, now: Duration) -> Step {
        let mut step = Step { expired: self.queue.expired(now), ..Step::default() };
        step.expired.iter().for_each(|id| self.end(*id));
        self.pool.settle();
        self.admit();
        self.plan_decodes(&mut step);
        self.plan_prompts(prefill.max(1), &mut step);
        step.ops = self.pool.take_ops();
        step
    }

    /// Gives places to those who are next, as long as the cache has room for their prompts beside the running ones.
    fn admit(&mut self) {
        while self.running < self.capacity.places
            && let Some(id) = self.queue.next().map(|next| next.id)
        {
            // Nobody overtakes: a large request waits for room, and those behind it with it, so that it is not starved.
            let promised: usize =
                self.entries.iter().filter(|(_, e)| e.running).map(|(id, e)| self.needs(*id, e)).sum();
            let needs = self.entries.get(&id).map_or(0, |entry| self.needs(id, entry));
            if self.running > 0 && needs > self.pool.room().saturating_sub(promised) {
                break;
            }
            self.queue.remove(id);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.running = true;
                self.running += 1;
            }
        }
    }

    /// Cells that a request will take until its next token: none for what an older one that runs holds or will hold.
    fn needs(&self, id: RequestId, entry: &Entry) -> usize {
        if entry.sequence.is_some() || self.capacity.kv.sharing == Sharing::Copies {
            return entry.left();
        }
        let older = self.entries.range(..id).filter(|(_, older)| older.running);
        let shared = older.map(|(_, older)| common(&older.tokens, &entry.tokens)).max().unwrap_or(0);
        entry.left() - shared.min(entry.left() - 1)
    }

    fn plan_decodes(&mut self, step: &mut Step) {
        let decoding: Vec<RequestId> =
            self.entries.iter().filter(|(_, entry)| entry.decodes()).map(|(id, _)| *id).collect();
        for id in decoding {
            while self.entries.get(&id).is_some_and(Entry::decodes) && !self.compute(id, 1, step) {
                if !self.preempt(step) {
                    break;
                }
            }
        }
    }

    fn plan_prompts(&mut self, prefill: usize, step: &mut Step) {
        let mut left = prefill;
        let running: Vec<RequestId> =
            self.entries.iter().filter(|(_, entry)| entry.running && !entry.decodes()).map(|(id, _)| *id).collect();
        let decoded: Vec<RequestId> = step.work.iter().map(|work| work.id).collect();
        for id in running.into_iter().filter(|id| !decoded.contains(id)) {
            if left == 0 {
                break;
            }
            if !self.begin(id, step) {
                continue;
            }
            let wanted = self.entries.get(&id).map_or(0, Entry::left).min(left);
            let mut count = wanted.min(self.pool.room());
            // The oldest must get on; the others wait for it.
            while count == 0 && wanted > 0 && self.is_oldest(id) && self.preempt(step) {
                count = wanted.min(self.pool.room());
            }
            if count > 0 && self.compute(id, count, step) {
                left -= count;
            }
        }
    }

    /// Sees that a request has a sequence. `false` while an older one computes a beginning that both share.
    fn begin(&mut self, id: RequestId, step: &mut Step) -> bool {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.running) else { return false };
        if entry.sequence.is_some() {
            return true;
        }
        if self.is_computed_elsewhere(id, entry) {
            return false;
        }
        let tokens = entry.tokens.clone();
        let Some((sequence, cached)) = self.pool.acquire(&tokens) else { return false };
        if let Some(entry) = self.entries.get_mut(&id) {
            (entry.sequence, entry.computed) = (Some(sequence), cached);
        }
        step.begun.push(Begun { id, cached });
        true
    }

    /// Whether an older request's prompt, which is still being computed, begins like more of this text than is there now.
    fn is_computed_elsewhere(&self, id: RequestId, entry: &Entry) -> bool {
        let most = entry.tokens.len() - 1;
        let cached = self.pool.cached(&entry.tokens);
        let mut prompts = self.entries.range(..id).filter(|(_, older)| older.sequence.is_some() && !older.answering);
        prompts.any(|(_, older)| common(&older.tokens, &entry.tokens).min(most) > cached)
    }

    fn is_oldest(&self, id: RequestId) -> bool {
        self.entries.iter().find(|(_, entry)| entry.running).is_some_and(|(oldest, _)| *oldest == id)
    }

    /// Puts tokens into the step; `false` where the cache has no room for them.
    fn compute(&mut self, id: RequestId, count: usize, step: &mut Step) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let Some(sequence) = entry.sequence else { return false };
        let from = entry.computed;
        let Some(tokens) = entry.tokens.get(from..from + count) else { return false };
        let mut guesses = std::mem::take(&mut entry.guesses);
        // Nothing that is kept for later goes for a guess.
        if self.pool.free() < count + guesses.len() {
            guesses.clear();
        }
        if !self.pool.grow(sequence, &[tokens, &guesses].concat()) {
            return false;
        }
        entry.computed += count;
        let yields = entry.left() == 0;
        let flow = entry.flow.clone();
        self.queue.charge(&flow, count);
        step.work.push(Work { id, sequence, from, count, yields, guesses });
        true
    }

    /// Puts the least important and youngest request back into the queue and frees what it held; never the oldest.
    /// `false` where there is only one.
    fn preempt(&mut self, step: &mut Step) -> bool {
        let holding = || self.entries.iter().filter(|(_, entry)| entry.running);
        let victim = holding().skip(1).min_by_key(|(id, entry)| (entry.flow.priority, u64::MAX - **id));
        let Some(id) = victim.map(|(id, _)| *id) else { return false };
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let sequence = entry.sequence.take();
        (entry.running, entry.computed) = (false, 0);
        entry.guesses.clear();
        self.running -= 1;
        // A request that ran once is not turned away for waiting.
        self.queue.push_back_in(Waiting { id, flow: entry.flow.clone(), deadline: None });
        if let Some(sequence) = sequence {
            self.pool.forget(sequence);
        }
        step.work.retain(|work| work.id != id);
        step.begun.retain(|begun| begun.id != id);
        step.preempted.push(id);
        true
    }

    /// A token was drawn for this request: it will be computed in the next step.
    pub fn push(&mut self, id: RequestId, token: Token) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.tokens.len() < entry.most
        {
            entry.tokens.push(token);
            entry.answering = true;
            if entry.ahead > 0 {
                entry.ahead -= 1;
                entry.computed += 1;
            }
        }
    }

    /// Requests that wait for their next token, in the order of their numbers.
    #[must_use]
    pub fn decoding(&self) -> Vec<Decoding> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.decodes());
        waiting.map(|(id, entry)| Decoding { id: *id, most: entry.guesses_max() }).collect()
    }

    /// What may follow on the text of a request that waits for its next token: the next step computes it along.
    pub fn guess(&mut self, id: RequestId, mut tokens: Vec<Token>) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.decodes()) {
            tokens.truncate(entry.guesses_max());
            entry.guesses = tokens;
        }
    }

    /// Of the guesses in a step's [`Work`], the first `held` did. They are still to be said with [`Scheduler::push`]; what was
    /// computed beyond them is forgotten.
    pub fn verified(&mut self, id: RequestId, held: usize) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(sequence) = entry.sequence else { return };
        entry.ahead = held;
        let (flow, kept) = (entry.flow.clone(), entry.computed + held);
        self.pool.truncate(sequence, kept);
        self.queue.charge(&flow, held);
    }

    /// Takes a request out, finished or given up, and frees all it held. What it computed stays for what begins like it.
    pub fn end(&mut self, id: RequestId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.queue.remove(id);
        self.queue.leave(&entry.flow);
        self.running -= usize::from(entry.running);
        if let Some(sequence) = entry.sequence {
            self.pool.release(sequence);
        }
    }

    /// After a failed step nobody knows what the engine holds: all that ran is taken out, and every sequence is emptied.
    /// Gives those taken out, and what the engine must do.
    pub fn lose_all(&mut self) -> (Vec<RequestId>, Vec<KvOp>) {
        let lost: Vec<RequestId> = self.entries.iter().filter(|(_, e)| e.running).map(|(id, _)| *id).collect();
        lost.iter().for_each(|id| self.end(*id));
        self.pool = Pool::new(self.capacity.kv);
        let ops = (0..self.capacity.kv.sequences).map(|sequence| KvOp::Keep { sequence, tokens: 0 });
        (lost, ops.collect())
    }

    /// Tokens of a request's text, prompt and answer.
    #[must_use]
    pub fn tokens(&self, id: RequestId) -> &[Token] {
        self.entries.get(&id).map_or(&[], |entry| &entry.tokens)
    }

    /// Requests that hold a place.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether someone waits for their next token, and so for the end of the step.
    #[must_use]
    pub fn is_decoding(&self) -> bool {
        self.entries.values().any(Entry::decodes)
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }

    /// The KV cache.
    #[must_use]
    pub fn kv(&self) -> &Pool {
        &self.pool
    }

    /// What the engine holds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }
}

#[cfg(test)]
mod tests;
