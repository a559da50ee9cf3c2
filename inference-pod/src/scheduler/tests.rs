use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: Duration = Duration::ZERO;

fn scheduler(places: usize, context: usize, cells: usize, queue: usize) -> Scheduler {
    let kv = KvCapacity { sequences: places + 2, cells, sharing: Sharing::Cells };
    Scheduler::new(Capacity { places, context, queue, kv })
}

fn request(id: RequestId, tokens: Vec<Token>, generate: usize) -> Request {
    Request { id, tokens, generate, flow: Flow { tenant: String::new(), priority: 500 }, deadline: None }
}

/// A prompt that begins like no other.
fn own(id: RequestId, length: usize) -> Vec<Token> {
    let id = Token::try_from(id).unwrap();
    (0..length).map(|at| id * 1000 + Token::try_from(at).unwrap()).collect()
}

fn rows(step: &Step) -> Vec<(RequestId, usize, usize, bool)> {
    step.work.iter().map(|work| (work.id, work.from, work.count, work.yields)).collect()
}

/// Plans a step and draws a token for each that yields one.
fn turn(s: &mut Scheduler, prefill: usize) -> Step {
    let step = s.plan(prefill, NOW);
    for work in step.work.iter().filter(|work| work.yields) {
        s.push(work.id, 7);
    }
    step
}

#[test]
fn decodes_go_on_while_a_newcomer_prefills_in_chunks() {
    let mut s = scheduler(2, 100, 200, 4);
    s.enqueue(request(1, own(1, 3), 10)).unwrap();
    assert_eq!(rows(&turn(&mut s, 8)), [(1, 0, 3, true)]);
    s.enqueue(request(2, own(2, 20), 10)).unwrap();
    assert_eq!(rows(&turn(&mut s, 8)), [(1, 3, 1, true), (2, 0, 8, false)]);
    assert_eq!(rows(&turn(&mut s, 8)), [(1, 4, 1, true), (2, 8, 8, false)]);
    assert_eq!(rows(&turn(&mut s, 8)), [(1, 5, 1, true), (2, 16, 4, true)]);
    assert_eq!(rows(&turn(&mut s, 8)), [(1, 6, 1, true), (2, 20, 1, true)]);
}

#[test]
fn the_queue_is_bounded_and_free_places_count_as_room() {
    let mut s = scheduler(1, 10, 10, 1);
    s.enqueue(request(1, own(1, 1), 1)).unwrap();
    s.enqueue(request(2, own(2, 1), 1)).unwrap();
    assert_eq!(s.enqueue(request(3, own(3, 1), 1)), Err(Refusal::QueueFull));
    s.plan(8, NOW);
    assert_eq!((s.running(), s.waiting()), (1, 1));
    s.end(2);
    s.enqueue(request(3, own(3, 1), 1)).unwrap();
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let mut s = scheduler(2, 10, 20, 4);
    assert_eq!(s.enqueue(request(1, own(1, 6), 5)), Err(Refusal::TooLarge));
    assert_eq!(s.enqueue(request(1, own(1, 6), usize::MAX)), Err(Refusal::TooLarge));
    assert_eq!(s.enqueue(request(1, Vec::new(), 5)), Err(Refusal::Empty));
    assert_eq!(s.enqueue(request(1, own(1, 5), 0)), Err(Refusal::Empty));
    s.enqueue(request(1, own(1, 5), 5)).unwrap();
    assert_eq!(s.enqueue(request(1, own(1, 5), 5)), Err(Refusal::Duplicate));
}

#[test]
fn who_waits_too_long_is_told_so() {
    let mut s = scheduler(1, 10, 10, 4);
    s.enqueue(request(1, own(1, 2), 5)).unwrap();
    s.enqueue(Request { deadline: Some(Duration::from_secs(2)), ..request(2, own(2, 2), 5) }).unwrap();
    assert!(s.plan(8, Duration::from_secs(1)).expired.is_empty());
    assert_eq!(s.plan(8, Duration::from_secs(2)).expired, [2]);
    assert_eq!((s.running(), s.waiting()), (1, 0));
}

#[test]
fn a_beginning_that_is_being_computed_is_waited_for_and_shared() {
    let mut s = scheduler(3, 200, 600, 4);
    let prompt = own(1, 40);
    s.enqueue(request(1, prompt.clone(), 4)).unwrap();
    s.enqueue(request(2, prompt.clone(), 4)).unwrap();
    s.enqueue(request(3, [prompt[..32].to_vec(), own(3, 8)].concat(), 4)).unwrap();
    assert_eq!(rows(&turn(&mut s, 16)), [(1, 0, 16, false)]);
    assert_eq!(rows(&turn(&mut s, 16)), [(1, 16, 16, false)]);
    let step = turn(&mut s, 32);
    assert_eq!(rows(&step), [(1, 32, 8, true), (3, 32, 8, true)]);
    assert_eq!(step.begun, [Begun { id: 3, cached: 32 }]);
    let step = turn(&mut s, 32);
    assert_eq!(rows(&step), [(1, 40, 1, true), (3, 40, 1, true), (2, 39, 1, true)]);
    assert_eq!(step.begun, [Begun { id: 2, cached: 39 }]);
    // Shared cells count once.
    assert_eq!(s.kv().used(), 40 + 1 + 8 + 1 + 1);
}

#[test]
fn what_a_finished_request_computed_serves_the_next() {
    let mut s = scheduler(1, 200, 200, 4);
    s.enqueue(request(1, own(1, 40), 2)).unwrap();
    turn(&mut s, 100);
    turn(&mut s, 100);
    s.end(1);
    assert_eq!((s.kv().used(), s.kv().busy()), (41, 0));
    let longer = [own(1, 40), vec![7, 8, 9]].concat();
    s.enqueue(request(2, longer, 2)).unwrap();
    let step = turn(&mut s, 100);
    assert_eq!(step.begun, [Begun { id: 2, cached: 41 }]);
    assert_eq!((rows(&step), step.ops), (vec![(2, 41, 2, true)], vec![]), "taken over whole, without a copy");
}

#[test]
fn kept_beginnings_give_way_to_requests_the_last_used_last() {
    let mut s = scheduler(1, 60, 100, 4);
    for id in 1..=2 {
        s.enqueue(request(id, own(id, 40), 1)).unwrap();
        turn(&mut s, 100);
        s.end(id);
    }
    s.enqueue(request(3, own(1, 41), 1)).unwrap();
    assert_eq!(turn(&mut s, 100).begun, [Begun { id: 3, cached: 40 }], "the first is used again");
    s.end(3);
    s.enqueue(request(4, own(4, 40), 1)).unwrap();
    turn(&mut s, 100);
    s.end(4);
    assert!(s.kv().cached(&own(2, 40)) == 0 && s.kv().cached(&own(1, 40)) == 39);
}

#[test]
fn where_the_cache_runs_out_the_youngest_of_the_least_important_waits_and_computes_again() {
    let mut s = scheduler(3, 40, 48, 4);
    for (id, priority) in [(1, 100), (2, 900), (3, 100)] {
        let flow = Flow { tenant: String::new(), priority };
        s.enqueue(Request { flow, ..request(id, own(id, 15), 20) }).unwrap();
    }
    turn(&mut s, 100);
    assert_eq!((s.running(), s.kv().busy()), (3, 45));
    turn(&mut s, 100);
    let step = turn(&mut s, 100);
    assert_eq!(step.preempted, [3]);
    assert_eq!(rows(&step), [(1, 16, 1, true), (2, 16, 1, true)]);
    assert_eq!((s.running(), s.waiting()), (2, 1));
    s.end(1);
    let step = turn(&mut s, 100);
    assert_eq!(rows(&step), [(2, 17, 1, true), (3, 0, 17, true)], "prompt and answer so far, in one go");
    assert_eq!(s.tokens(3).len(), 18);
}

#[test]
fn guesses_are_computed_along_and_those_that_held_are_not_computed_again() {
    let mut s = scheduler(1, 40, 40, 4);
    s.enqueue(request(1, own(1, 3), 6)).unwrap();
    turn(&mut s, 100);
    assert_eq!(s.decoding(), [Decoding { id: 1, most: 4 }]);
    s.guess(1, vec![8, 9, 10]);
    let step = s.plan(100, NOW);
    assert_eq!((rows(&step), &step.work[0].guesses[..], step.tokens()), (vec![(1, 3, 1, true)], &[8, 9, 10][..], 4));
    s.verified(1, 2);
    [8, 9, 77].into_iter().for_each(|token| s.push(1, token));
    assert_eq!(s.decoding(), [Decoding { id: 1, most: 1 }]);
    let step = s.plan(100, NOW);
    assert_eq!(rows(&step), [(1, 6, 1, true)], "77 alone");
    assert_eq!(step.ops, [KvOp::Keep { sequence: step.work[0].sequence, tokens: 6 }]);
    s.push(1, 78);
    s.guess(1, vec![1, 2]);
    assert!(s.plan(100, NOW).work[0].guesses.is_empty(), "nothing is left to guess");
}

#[test]
fn where_cells_are_scarce_nothing_is_guessed() {
    let mut s = scheduler(1, 20, 20, 4);
    s.enqueue(request(1, own(1, 17), 3)).unwrap();
    turn(&mut s, 100);
    s.guess(1, vec![8]);
    assert_eq!(s.plan(100, NOW).work[0].guesses, [8]);
    s.verified(1, 0);
    s.push(1, 9);
    s.guess(1, vec![8]);
    assert!(s.plan(100, NOW).work[0].guesses.is_empty());
}

#[test]
fn a_failed_step_empties_the_cache_and_keeps_those_who_wait() {
    let mut s = scheduler(1, 40, 40, 4);
    s.enqueue(request(1, own(1, 20), 5)).unwrap();
    s.enqueue(request(2, own(2, 20), 5)).unwrap();
    turn(&mut s, 100);
    let (lost, ops) = s.lose_all();
    assert_eq!((lost, ops.len(), s.kv().used()), (vec![1], 3, 0));
    assert_eq!(rows(&turn(&mut s, 100)), [(2, 0, 20, true)]);
}

#[test]
fn the_least_important_is_served_beside_a_flood_of_important_ones() {
    let mut s = scheduler(1, 40, 40, 100);
    let flow = |priority| Flow { tenant: "t".into(), priority };
    for id in 1..=2 {
        s.enqueue(Request { flow: flow(1000), ..request(id, own(id, 4), 1) }).unwrap();
    }
    s.enqueue(Request { flow: flow(0), ..request(3, own(3, 4), 1) }).unwrap();
    for id in 4..3000 {
        let step = turn(&mut s, 100);
        step.work.iter().for_each(|work| s.end(work.id));
        if step.work.iter().any(|work| work.id == 3) {
            return;
        }
        s.enqueue(Request { flow: flow(1000), ..request(id, own(id % 1000, 4), 1) }).unwrap();
    }
    panic!("it starves");
}

#[derive(Clone, Debug)]
enum Action {
    Enqueue { family: u64, shared: usize, length: usize, generate: usize, priority: u16, tenant: u8 },
    Step { prefill: usize, good: usize, bad: usize },
    Cancel { nth: usize },
    Lose,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let enqueue = (1_u64..4, 0_usize..50, 1_usize..60, 1_usize..30, 0_u16..10, 0_u8..3);
    let action = prop_oneof![
        6 => enqueue.prop_map(|(family, shared, length, generate, priority, tenant)| Action::Enqueue {
            family, shared, length, generate, priority: priority * 100, tenant
        }),
        12 => (1_usize..50, 0_usize..4, 0_usize..3).prop_map(|(prefill, good, bad)| Action::Step { prefill, good, bad }),
        2 => (0_usize..8).prop_map(|nth| Action::Cancel { nth }),
        1 => Just(Action::Lose),
    ];
    prop::collection::vec(action, 1..150)
}

/// What the properties know of a request, kept apart from the scheduler's own state.
#[derive(Clone)]
struct Known {
    text: Vec<Token>,
    prompt: usize,
    generate: usize,
}

/// Drives a scheduler and an engine that only remembers, and checks each step against both.
struct World {
    scheduler: Scheduler,
    known: BTreeMap<RequestId, Known>,
    /// What the engine holds in each sequence.
    engine: Vec<Vec<Token>>,
    next: RequestId,
}

impl World {
    fn new(places: usize, cells: usize, sharing: Sharing) -> Self {
        let sequences = places + 2;
        let cells = if sharing == Sharing::Copies { sequences * 100 } else { cells };
        let kv = KvCapacity { sequences, cells, sharing };
        let scheduler = Scheduler::new(Capacity { places, context: 100, queue: 5, kv });
        Self { scheduler, known: BTreeMap::new(), engine: vec![Vec::new(); sequences], next: 0 }
    }

    fn enqueue(&mut self, prompt: Vec<Token>, generate: usize, flow: Flow) {
        self.next += 1;
        let tokens = prompt.clone();
        if self.scheduler.enqueue(Request { flow, ..request(self.next, tokens, generate) }).is_ok() {
            self.known.insert(self.next, Known { prompt: prompt.len(), text: prompt, generate });
        }
    }

    fn apply(&mut self, ops: &[KvOp]) {
        for op in ops {
            match *op {
                KvOp::Copy { from, to, tokens } => {
                    assert!(self.engine[to].is_empty(), "a copy onto what is in use");
                    self.engine[to] = self.engine[from][..tokens].to_vec();
                }
                KvOp::Keep { sequence, tokens } => self.engine[sequence].truncate(tokens),
            }
        }
    }

    /// What comes after a text of this length.
    fn next(length: usize) -> Token {
        1_000_000 + Token::try_from(length).unwrap()
    }

    /// Guesses, of which the first `good` hold, for all who wait for their next token.
    fn guess(&mut self, good: usize, bad: usize) {
        for decoding in self.scheduler.decoding() {
            let length = self.known[&decoding.id].text.len();
            let right = (0..good).map(|at| Self::next(length + at));
            self.scheduler.guess(decoding.id, right.chain(std::iter::repeat_n(5, bad)).collect());
        }
    }

    fn step(&mut self, prefill: usize) {
        let waiting_for_tokens = self.scheduler.entries.iter().filter(|(_, entry)| entry.decodes());
        let waiting_for_tokens: BTreeSet<RequestId> = waiting_for_tokens.map(|(id, _)| *id).collect();
        let step = self.scheduler.plan(prefill, NOW);
        assert!(step.expired.is_empty());
        self.apply(&step.ops);
        let mut worked = BTreeSet::new();
        let mut prompt_tokens = 0;
        for work in &step.work {
            assert!(worked.insert(work.id) && work.count > 0, "each at most once, and something");
            let known = self.known.get_mut(&work.id).unwrap();
            let held = &mut self.engine[work.sequence];
            assert_eq!(held[..], known.text[..work.from], "it would compute on another text");
            held.extend_from_slice(&known.text[work.from..work.from + work.count]);
            assert_eq!(work.yields, held.len() == known.text.len());
            held.extend_from_slice(&work.guesses);
            assert!(work.yields || work.guesses.is_empty(), "a guess follows on the last token only");
            prompt_tokens += if waiting_for_tokens.contains(&work.id) { 0 } else { work.count };
            if work.yields {
                let length = known.text.len();
                let right = |(at, guess): (usize, &Token)| *guess == Self::next(length + at);
                let held = work.guesses.iter().enumerate().take_while(|each| right(*each)).count();
                if !work.guesses.is_empty() {
                    self.scheduler.verified(work.id, held);
                }
                for at in 0..=held {
                    known.text.push(Self::next(length + at));
                    self.scheduler.push(work.id, Self::next(length + at));
                }
                assert!(known.text.len() <= known.prompt + known.generate, "more than was asked for");
            }
        }
        assert!(prompt_tokens <= prefill, "the prompt budget is broken");
        for id in &waiting_for_tokens {
            assert!(worked.contains(id) || step.preempted.contains(id), "a running answer was made to wait");
        }
        assert!(!step.work.is_empty() || self.known.is_empty(), "there is work, and nobody computes");
        let done = self.known.iter().filter(|(_, known)| known.text.len() == known.prompt + known.generate);
        for id in done.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id);
        }
    }

    fn end(&mut self, id: RequestId) {
        self.known.remove(&id).unwrap();
        self.scheduler.end(id);
    }

    fn lose(&mut self) {
        let (lost, ops) = self.scheduler.lose_all();
        self.apply(&ops);
        for id in lost {
            self.known.remove(&id).unwrap();
        }
        assert_eq!((self.scheduler.running(), self.scheduler.kv().used()), (0, 0));
    }

    fn check(&self) {
        let (scheduler, kv) = (&self.scheduler, self.scheduler.kv());
        assert_eq!(scheduler.running() + scheduler.waiting(), self.known.len());
        assert!(scheduler.running() <= scheduler.capacity().places);
        assert!(kv.busy() <= kv.used() && kv.used() <= kv.capacity().cells, "KV is over-committed");
        let busy = scheduler.entries.values().filter(|entry| entry.sequence.is_some()).count();
        assert_eq!(kv.busy_sequences(), busy, "a sequence has leaked");
        let distinct: BTreeSet<_> = scheduler.entries.values().filter_map(|entry| entry.sequence).collect();
        assert_eq!(distinct.len(), busy, "a sequence is held twice");
    }
}

/// 32 beginnings in a family, then a text of its own.
fn prompt(family: u64, shared: usize, id: RequestId, length: usize) -> Vec<Token> {
    let mut tokens = own(family, shared.min(length));
    tokens.extend(own(50 + id, length - tokens.len()));
    tokens
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nothing_leaks_starves_is_mixed_up_or_over_committed(
        places in 1_usize..5, cells in 100_usize..260, copies: bool, actions in actions()
    ) {
        let sharing = if copies { Sharing::Copies } else { Sharing::Cells };
        let mut world = World::new(places, cells, sharing);
        for action in actions {
            match action {
                Action::Enqueue { family, shared, length, generate, priority, tenant } => {
                    let flow = Flow { tenant: tenant.to_string(), priority };
                    let prompt = prompt(family, shared, world.next, length);
                    world.enqueue(prompt, generate, flow);
                }
                Action::Step { prefill, good, bad } => {
                    world.guess(good, bad);
                    world.step(prefill);
                }
                Action::Cancel { nth } => {
                    if let Some(id) = world.known.keys().nth(nth).copied() {
                        world.end(id);
                    }
                }
                Action::Lose => world.lose(),
            }
            world.check();
        }
        // Left alone, it serves everyone in a bounded number of steps, preempted ones again.
        let owed: usize = world.known.values().map(|known| known.prompt + known.generate).sum();
        for _ in 0..=owed * 4 {
            if world.known.is_empty() {
                break;
            }
            world.step(8);
            world.check();
        }
        prop_assert!(world.scheduler.is_idle() && world.known.is_empty());
        prop_assert_eq!(world.scheduler.kv().busy(), 0);
        prop_assert!(world.scheduler.queue.is_empty());
    }
}
