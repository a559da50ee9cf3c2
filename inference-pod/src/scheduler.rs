//! Who computes in the next step: continuous batching as a pure state machine.
//!
//! ```text
//! enqueue ─▶ queue (FIFO, bounded) ─ a slot and the whole KV need are free ─▶ prefill ─▶ decode ─▶ finish
//! ```
//! Each [`Scheduler::plan`] gives one row to every decoding request, then shares a budget of prompt tokens among the
//! newcomers, oldest first. A request's KV need, prompt and `max_tokens` together, is reserved when it is admitted and
//! given back when it ends, so nothing is ever evicted. Only the head of the queue is admitted: a large request waits
//! for room, and smaller ones behind it don't overtake, so none starves.
//!
//! No clock, no I/O, no tokens: only counts. The driver owns the contents.

use std::collections::{BTreeSet, VecDeque};

/// A request, numbered by the driver.
pub type RequestId = u64;
/// A sequence of the engine, `0..slots`.
pub type Slot = u32;

/// What the engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences side by side.
    pub slots: u32,
    /// Tokens of one sequence.
    pub context: u32,
    /// Tokens of all sequences together.
    pub kv_tokens: u64,
    /// Requests that may wait.
    pub queue: usize,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every slot is busy and the queue is full.
    #[error("the queue is full")]
    QueueFull,
    /// It would never fit.
    #[error("it needs more tokens than a sequence has")]
    TooLarge,
    /// No prompt, or nothing to generate.
    #[error("it has no prompt or nothing to generate")]
    Empty,
    /// The number is in use.
    #[error("its number is in use")]
    Duplicate,
}

/// What one request computes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub id: RequestId,
    /// In which sequence.
    pub slot: Slot,
    /// Position of the first token.
    pub from: u32,
    /// How many tokens, at least one.
    pub count: u32,
    /// Whether the last of them yields a new token: true for a decode and for the last chunk of a prompt.
    pub yields: bool,
}

/// One step: at most one [`Work`] for each running request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Requests that got their slot in this step.
    pub admitted: Vec<(RequestId, Slot)>,
    /// Rows, decodes first.
    pub work: Vec<Work>,
}

impl Step {
    /// Tokens in the batch.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.work.iter().map(|work| work.count).fold(0, u32::saturating_add)
    }
}

/// Where a request went when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It had this slot, whose KV must be cleared before the next step.
    Running(Slot),
    /// It was waiting.
    Waiting,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: RequestId,
    prompt: u32,
    generate: u32,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    id: RequestId,
    slot: Slot,
    prompt: u32,
    need: u32,
    /// Tokens in the KV cache.
    computed: u32,
}

impl Running {
    fn decoding(&self) -> bool {
        self.computed >= self.prompt
    }
}

/// The state: a queue, and who holds which slot.
#[derive(Clone, Debug)]
pub struct Scheduler {
    capacity: Capacity,
    queue: VecDeque<Waiting>,
    /// In the order of admission.
    running: Vec<Running>,
    /// The lowest is given first: llama.cpp computes neighbouring sequences in one go.
    free: BTreeSet<Slot>,
    reserved: u64,
}

impl Scheduler {
    /// An idle scheduler.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let free = (0..capacity.slots).collect();
        Self { capacity, queue: VecDeque::new(), running: Vec::new(), free, reserved: 0 }
    }

    /// Puts a request at the end of the queue.
    ///
    /// # Errors
    /// Where it can never run, or where too many wait already.
    pub fn enqueue(&mut self, id: RequestId, prompt: u32, generate: u32) -> Result<(), Refusal> {
        if prompt == 0 || generate == 0 {
            return Err(Refusal::Empty);
        }
        match prompt.checked_add(generate) {
            Some(need) if need <= self.capacity.context && u64::from(need) <= self.capacity.kv_tokens => {}
            _ => return Err(Refusal::TooLarge),
        }
        if self.queue.iter().any(|waiting| waiting.id == id) || self.running.iter().any(|running| running.id == id) {
            return Err(Refusal::Duplicate);
        }
        // What fits a free slot waits only until the next plan.
        if self.queue.len() >= self.capacity.queue.saturating_add(self.free.len()) {
            return Err(Refusal::QueueFull);
        }
        self.queue.push_back(Waiting { id, prompt, generate });
        Ok(())
    }

    /// The next step, with at most `prefill` prompt tokens in it. Assumes that the step will be computed as it says.
    pub fn plan(&mut self, prefill: u32) -> Step {
        let mut step = Step { admitted: self.admit(), work: Vec::with_capacity(self.running.len()) };
        for running in self.running.iter_mut().filter(|running| running.decoding()) {
            step.work.push(Work { id: running.id, slot: running.slot, from: running.computed, count: 1, yields: true });
            running.computed += 1;
        }
        let decoding: Vec<RequestId> = step.work.iter().map(|work| work.id).collect();
        let mut left = prefill.max(1);
        for running in self.running.iter_mut().filter(|running| !decoding.contains(&running.id)) {
            let count = left.min(running.prompt - running.computed);
            if count == 0 {
                break;
            }
            let from = running.computed;
            running.computed += count;
            left -= count;
            step.work.push(Work { id: running.id, slot: running.slot, from, count, yields: running.decoding() });
        }
        step
    }

    fn admit(&mut self) -> Vec<(RequestId, Slot)> {
        let mut admitted = Vec::new();
        while let Some(head) = self.queue.front().copied() {
            let need = head.prompt + head.generate;
            if self.reserved + u64::from(need) > self.capacity.kv_tokens {
                break;
            }
            let Some(slot) = self.free.pop_first() else { break };
            self.queue.pop_front();
            self.reserved += u64::from(need);
            self.running.push(Running { id: head.id, slot, prompt: head.prompt, need, computed: 0 });
            admitted.push((head.id, slot));
        }
        admitted
    }

    /// Takes a request out, finished or given up, and frees all it held. `None` where it is not known.
    pub fn end(&mut self, id: RequestId) -> Option<Ended> {
        if let Some(index) = self.running.iter().position(|running| running.id == id) {
            let gone = self.running.remove(index);
            self.reserved -= u64::from(gone.need);
            self.free.insert(gone.slot);
            return Some(Ended::Running(gone.slot));
        }
        let index = self.queue.iter().position(|waiting| waiting.id == id)?;
        self.queue.remove(index);
        Some(Ended::Waiting)
    }

    /// Requests that hold a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether this request holds a slot.
    #[must_use]
    pub fn is_running(&self, id: RequestId) -> bool {
        self.running.iter().any(|running| running.id == id)
    }

    /// Whether someone waits for their next token, and so for the end of the step.
    #[must_use]
    pub fn is_decoding(&self) -> bool {
        self.running.iter().any(Running::decoding)
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Tokens in the KV cache.
    #[must_use]
    pub fn kv_used(&self) -> u64 {
        self.running.iter().map(|running| u64::from(running.computed)).sum()
    }

    /// Tokens reserved by running requests: prompt and `max_tokens`.
    #[must_use]
    pub fn kv_reserved(&self) -> u64 {
        self.reserved
    }

    /// What the engine holds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn scheduler(slots: u32, context: u32, kv_tokens: u64, queue: usize) -> Scheduler {
        Scheduler::new(Capacity { slots, context, kv_tokens, queue })
    }

    fn work(id: RequestId, slot: Slot, from: u32, count: u32, yields: bool) -> Work {
        Work { id, slot, from, count, yields }
    }

    #[test]
    fn decodes_go_on_while_a_newcomer_prefills_in_chunks() {
        let mut s = scheduler(2, 100, 200, 4);
        s.enqueue(1, 3, 10).unwrap();
        assert_eq!(s.plan(8).work, [work(1, 0, 0, 3, true)]);
        s.enqueue(2, 20, 10).unwrap();
        assert_eq!(s.plan(8).work, [work(1, 0, 3, 1, true), work(2, 1, 0, 8, false)]);
        assert_eq!(s.plan(8).work, [work(1, 0, 4, 1, true), work(2, 1, 8, 8, false)]);
        assert_eq!(s.plan(8).work, [work(1, 0, 5, 1, true), work(2, 1, 16, 4, true)]);
        assert_eq!(s.plan(8).work, [work(1, 0, 6, 1, true), work(2, 1, 20, 1, true)]);
    }

    #[test]
    fn the_queue_is_bounded_and_free_slots_count_as_room() {
        let mut s = scheduler(1, 10, 10, 1);
        s.enqueue(1, 1, 1).unwrap();
        s.enqueue(2, 1, 1).unwrap();
        assert_eq!(s.enqueue(3, 1, 1), Err(Refusal::QueueFull));
        s.plan(8);
        assert_eq!((s.running(), s.waiting()), (1, 1));
        assert_eq!(s.enqueue(3, 1, 1), Err(Refusal::QueueFull));
        assert_eq!(s.end(2), Some(Ended::Waiting));
        s.enqueue(3, 1, 1).unwrap();
    }

    #[test]
    fn what_never_fits_is_refused_at_once() {
        let mut s = scheduler(2, 10, 20, 4);
        assert_eq!(s.enqueue(1, 6, 5), Err(Refusal::TooLarge));
        assert_eq!(s.enqueue(1, u32::MAX, 5), Err(Refusal::TooLarge));
        assert_eq!(s.enqueue(1, 0, 5), Err(Refusal::Empty));
        assert_eq!(s.enqueue(1, 5, 0), Err(Refusal::Empty));
        s.enqueue(1, 5, 5).unwrap();
        assert_eq!(s.enqueue(1, 5, 5), Err(Refusal::Duplicate));
    }

    #[test]
    fn a_large_head_is_not_overtaken() {
        let mut s = scheduler(3, 100, 120, 4);
        s.enqueue(1, 50, 30).unwrap();
        s.enqueue(2, 50, 10).unwrap();
        s.enqueue(3, 1, 1).unwrap();
        assert_eq!(s.plan(8).admitted, [(1, 0)]);
        assert_eq!(s.plan(8).admitted, []);
        assert_eq!(s.end(1), Some(Ended::Running(0)));
        assert_eq!(s.plan(8).admitted, [(2, 0), (3, 1)]);
        assert_eq!(s.end(9), None);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Enqueue { prompt: u32, generate: u32 },
        Step { prefill: u32 },
        Cancel { nth: usize },
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            3 => (1_u32..70, 1_u32..40).prop_map(|(prompt, generate)| Action::Enqueue { prompt, generate }),
            6 => (1_u32..40).prop_map(|prefill| Action::Step { prefill }),
            1 => (0_usize..8).prop_map(|nth| Action::Cancel { nth }),
        ];
        prop::collection::vec(action, 1..200)
    }

    /// What the properties know of a request, kept apart from the scheduler's own state.
    #[derive(Clone, Copy)]
    struct Known {
        prompt: u32,
        generate: u32,
        slot: Option<Slot>,
        computed: u32,
        made: u32,
    }

    /// Drives a scheduler and checks every step against an account of its own.
    struct World {
        scheduler: Scheduler,
        known: BTreeMap<RequestId, Known>,
        queue: VecDeque<RequestId>,
        next: RequestId,
    }

    impl World {
        fn new(slots: u32, kv_tokens: u64) -> Self {
            let scheduler = scheduler(slots, 100, kv_tokens, 5);
            Self { scheduler, known: BTreeMap::new(), queue: VecDeque::new(), next: 0 }
        }

        fn enqueue(&mut self, prompt: u32, generate: u32) {
            self.next += 1;
            if self.scheduler.enqueue(self.next, prompt, generate).is_ok() {
                self.known.insert(self.next, Known { prompt, generate, slot: None, computed: 0, made: 0 });
                self.queue.push_back(self.next);
            }
        }

        fn step(&mut self, prefill: u32) {
            let step = self.scheduler.plan(prefill);
            for (id, slot) in &step.admitted {
                assert_eq!(self.queue.pop_front(), Some(*id), "admitted out of order");
                self.known.get_mut(id).unwrap().slot = Some(*slot);
            }
            let decoding: BTreeSet<RequestId> = self
                .known
                .iter()
                .filter(|(_, k)| k.slot.is_some() && k.computed >= k.prompt)
                .map(|(id, _)| *id)
                .collect();
            let mut worked = BTreeSet::new();
            let mut prompt_tokens = 0;
            for work in &step.work {
                assert!(worked.insert(work.id), "two pieces of work for one request");
                let known = self.known.get_mut(&work.id).unwrap();
                assert_eq!((known.slot, known.computed), (Some(work.slot), work.from));
                assert!(work.count > 0);
                if !decoding.contains(&work.id) {
                    prompt_tokens += work.count;
                }
                known.computed += work.count;
                assert_eq!(work.yields, known.computed >= known.prompt);
                known.made += u32::from(work.yields);
            }
            assert!(decoding.is_subset(&worked), "a running answer was made to wait");
            assert!(prompt_tokens <= prefill, "the prompt budget is broken");
            let prefilling = self.known.values().any(|k| k.slot.is_some() && k.computed < k.prompt);
            assert!(!prefilling || prompt_tokens == prefill, "budget was left while a prompt waits");
            let done: Vec<_> = self.known.iter().filter(|(_, k)| k.made >= k.generate).map(|(id, _)| *id).collect();
            done.into_iter().for_each(|id| self.end(id));
        }

        fn end(&mut self, id: RequestId) {
            let known = self.known.remove(&id).unwrap();
            self.queue.retain(|waiting| *waiting != id);
            let ended = self.scheduler.end(id);
            assert_eq!(ended, Some(known.slot.map_or(Ended::Waiting, Ended::Running)));
        }

        fn check(&self) {
            let capacity = self.scheduler.capacity();
            let held: Vec<Slot> = self.known.values().filter_map(|k| k.slot).collect();
            let distinct: BTreeSet<Slot> = held.iter().copied().collect();
            assert_eq!(held.len(), distinct.len(), "a slot is held twice");
            assert!(distinct.iter().all(|slot| *slot < capacity.slots));
            assert_eq!(self.scheduler.running(), held.len());
            assert_eq!(self.scheduler.running() + self.scheduler.free.len(), usize::try_from(capacity.slots).unwrap());
            assert_eq!(self.scheduler.waiting(), self.queue.len());
            assert!(self.queue.len() <= capacity.queue + self.scheduler.free.len());
            let needs = self.known.values().filter(|k| k.slot.is_some()).map(|k| u64::from(k.prompt + k.generate));
            assert_eq!(self.scheduler.kv_reserved(), needs.sum::<u64>());
            assert!(self.scheduler.kv_reserved() <= capacity.kv_tokens, "KV is over-committed");
            assert!(self.scheduler.kv_used() <= self.scheduler.kv_reserved());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn nothing_leaks_starves_or_is_over_committed(
            slots in 1_u32..5, kv in 100_u64..300, actions in actions()
        ) {
            let mut world = World::new(slots, kv);
            for action in actions {
                match action {
                    Action::Enqueue { prompt, generate } => world.enqueue(prompt, generate),
                    Action::Step { prefill } => world.step(prefill),
                    Action::Cancel { nth } => {
                        if let Some(id) = world.known.keys().nth(nth).copied() {
                            world.end(id);
                        }
                    }
                }
                world.check();
            }
            // Left alone, it serves everyone in a bounded number of steps.
            let owed: u32 = world.known.values().map(|k| k.prompt + k.generate).sum();
            for _ in 0..=owed {
                world.step(8);
                world.check();
            }
            prop_assert!(world.scheduler.is_idle());
            prop_assert_eq!(world.scheduler.kv_reserved(), 0);
        }
    }
}
