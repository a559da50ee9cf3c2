//! One replica, step by step: continuous batching, prompts in chunks, a KV cache that fills, and a queue before it.
//!
//! Every sequence that decodes gets one token in every step, so a step need not look at each: those that end are found by
//! the number of the step in which they will.

use quartermaster_core::capacity::step::{StepCost, StepLoad};
use quartermaster_core::units::float;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// What its steps cost.
    pub cost: StepCost,
    /// Requests that it serves at once.
    pub slots: usize,
    /// Tokens that its KV cache holds.
    pub kv_tokens: u64,
    /// Tokens of a step: one for each sequence that decodes, the others of prompts.
    pub step_tokens: u64,
}

/// A request as it comes. It fits into the KV cache alone, prompt and answer: who would not is refused before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// The caller's own number for it.
    pub id: u64,
    /// When it came, in milliseconds.
    pub arrived_ms: f64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Of these, how many are in the cache already.
    pub cached_tokens: u32,
    /// Tokens of its answer, one at least.
    pub output_tokens: u32,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// The request.
    pub request: Request,
    /// When its first token came.
    pub first_token_ms: f64,
    /// When its last one did.
    pub finished_ms: f64,
}

impl Done {
    /// Time to the first token.
    #[must_use]
    pub fn ttft_ms(&self) -> f64 {
        self.first_token_ms - self.request.arrived_ms
    }

    /// Mean time between two tokens; none where there was one only.
    #[must_use]
    pub fn itl_ms(&self) -> Option<f64> {
        let gaps = self.request.output_tokens.saturating_sub(1);
        (gaps > 0).then(|| (self.finished_ms - self.first_token_ms) / f64::from(gaps))
    }
}

/// A step that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How long it took.
    pub duration_ms: f64,
    /// Sequences that got their next token in it.
    pub decoded: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: Request,
    /// Tokens of its answer that it had before it was put back; they are computed again with the prompt.
    made: u32,
    first_token_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Prompt {
    of: Waiting,
    /// Tokens of it that are computed.
    computed: u64,
    /// ... and of those in the step under way.
    in_step: u64,
}

#[derive(Clone, Copy, Debug)]
struct Decoding {
    of: Waiting,
    first_token_ms: f64,
    /// Grows with every sequence that begins to decode: the youngest goes first when the cache is full.
    age: u64,
    last_step: u64,
}

/// The replica's state.
#[derive(Clone, Debug)]
pub struct Replica {
    engine: Engine,
    now_ms: f64,
    waiting: VecDeque<Waiting>,
    prompts: VecDeque<Prompt>,
    /// By the step in which the last token comes; the second number names the place.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    places: Vec<Option<Decoding>>,
    free: Vec<usize>,
    decoding: u64,
    begun: u64,
    /// Tokens of context of all that decode.
    context: u64,
    /// Tokens in the KV cache.
    held: u64,
    step: u64,
    ends_ms: Option<f64>,
}

impl Replica {
    /// An idle one.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            now_ms: 0.0,
            waiting: VecDeque::new(),
            prompts: VecDeque::new(),
            ends: BinaryHeap::new(),
            places: Vec::new(),
            free: Vec::new(),
            decoding: 0,
            begun: 0,
            context: 0,
            held: 0,
            step: 0,
            ends_ms: None,
        }
    }

    /// Takes a request in.
    pub fn push(&mut self, request: Request) {
        let (prompt_tokens, output_tokens) = (request.prompt_tokens.max(1), request.output_tokens.max(1));
        let request = Request { prompt_tokens, output_tokens, ..request };
        self.waiting.push_back(Waiting { request, made: 0, first_token_ms: None });
    }

    /// Requests in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that are served.
    #[must_use]
    pub fn running(&self) -> usize {
        self.prompts.len() + usize::try_from(self.decoding).unwrap_or(usize::MAX)
    }

    /// Share of the KV cache that is taken.
    #[must_use]
    pub fn kv_share(&self) -> f64 {
        float(self.held) / float(self.engine.kv_tokens.max(1))
    }

    /// When the step under way ends.
    #[must_use]
    pub fn ends_ms(&self) -> Option<f64> {
        self.ends_ms
    }

    /// Begins a step where none is under way and there is something to do.
    pub fn begin(&mut self, now_ms: f64) {
        if self.ends_ms.is_some() {
            return;
        }
        self.now_ms = now_ms;
        self.make_room();
        self.admit();
        let load = self.fill();
        if load.sequences > 0.0 || load.prompt_tokens > 0.0 {
            self.ends_ms = Some(now_ms + self.engine.cost.of(load));
        }
    }

    /// Gives places to those who wait, in their order, as long as their prompts fit beside one more token of the others.
    fn admit(&mut self) {
        while let Some(next) = self.waiting.front().copied() {
            let needs = prompt_tokens(&next) + 1;
            if self.running() >= self.engine.slots || self.held + self.decoding + needs > self.engine.kv_tokens {
                return;
            }
            self.waiting.pop_front();
            self.held += prompt_tokens(&next);
            // At least the last token is computed: it yields the first one of the answer.
            let cached = u64::from(next.request.cached_tokens).min(prompt_tokens(&next).saturating_sub(1));
            self.prompts.push_back(Prompt { of: next, computed: cached, in_step: 0 });
        }
    }

    /// Puts the youngest back until the others have room for their next token; the oldest never is.
    fn make_room(&mut self) {
        while self.held + self.decoding > self.engine.kv_tokens {
            if let Some(prompt) = self.prompts.pop_back() {
                self.held -= prompt_tokens(&prompt.of);
                self.waiting.push_front(prompt.of);
            } else if self.decoding > 1 {
                self.put_back();
            } else {
                return;
            }
        }
    }

    /// Puts back who has been answered for the shortest time.
    fn put_back(&mut self) {
        let youngest = self.places.iter().enumerate().filter_map(|(at, each)| Some((each.as_ref()?.age, at))).max();
        let Some((_, at)) = youngest else { return };
        let Some(decoding) = self.places.get_mut(at).and_then(Option::take) else { return };
        let left = u32::try_from(decoding.last_step + 1 - self.step).unwrap_or(u32::MAX);
        let made = decoding.of.request.output_tokens.saturating_sub(left);
        self.free.push(at);
        self.ends.retain(|Reverse((_, place))| *place != at);
        self.leave(&decoding, made);
        let first_token_ms = Some(decoding.first_token_ms);
        self.waiting.push_front(Waiting { made, first_token_ms, ..decoding.of });
    }

    /// What the next step computes.
    fn fill(&mut self) -> StepLoad {
        let mut left = self.engine.step_tokens.saturating_sub(self.decoding).max(1);
        let (mut tokens, mut squares) = (0, 0.0);
        for prompt in &mut self.prompts {
            let count = (prompt_tokens(&prompt.of) - prompt.computed).min(left);
            prompt.in_step = count;
            let (from, to) = (float(prompt.computed), float(prompt.computed + count));
            tokens += count;
            squares += to * to - from * from;
            left -= count;
            if left == 0 {
                break;
            }
        }
        StepLoad {
            sequences: float(self.decoding),
            context_tokens: float(self.context),
            prompt_tokens: float(tokens),
            prompt_squares: squares,
        }
    }

    /// Ends the step under way; those whose last token came are added to `done`.
    pub fn end(&mut self, done: &mut Vec<Done>) -> Option<Step> {
        let ends_ms = self.ends_ms.take()?;
        let step = Step { duration_ms: ends_ms - self.now_ms, decoded: self.decoding };
        self.now_ms = ends_ms;
        self.held += self.decoding;
        self.context += self.decoding;
        self.end_answers(done);
        self.end_prompts(done);
        self.step += 1;
        Some(step)
    }

    fn end_answers(&mut self, done: &mut Vec<Done>) {
        while let Some(Reverse((last, at))) = self.ends.peek().copied().filter(|Reverse((last, _))| *last <= self.step)
        {
            self.ends.pop();
            let Some(decoding) = self.places.get_mut(at).and_then(Option::take) else { continue };
            debug_assert_eq!(decoding.last_step, last, "places are emptied together with their ends");
            self.free.push(at);
            self.leave(&decoding, decoding.of.request.output_tokens);
            let (request, first_token_ms) = (decoding.of.request, decoding.first_token_ms);
            done.push(Done { request, first_token_ms, finished_ms: self.now_ms });
        }
    }

    /// Frees what a sequence held that has made so many tokens: all but the last one are in the cache.
    fn leave(&mut self, decoding: &Decoding, made: u32) {
        let held = u64::from(decoding.of.request.prompt_tokens) + u64::from(made) - 1;
        self.held -= held;
        self.context -= held;
        self.decoding -= 1;
    }

    fn end_prompts(&mut self, done: &mut Vec<Done>) {
        for prompt in &mut self.prompts {
            prompt.computed += std::mem::take(&mut prompt.in_step);
        }
        while let Some(prompt) = self.prompts.front().filter(|prompt| prompt.computed >= prompt_tokens(&prompt.of)) {
            let of = prompt.of;
            self.prompts.pop_front();
            let first_token_ms = of.first_token_ms.unwrap_or(self.now_ms);
            let left = of.request.output_tokens.saturating_sub(of.made + 1);
            if left == 0 {
                self.held -= prompt_tokens(&of);
                done.push(Done { request: of.request, first_token_ms, finished_ms: self.now_ms });
                continue;
            }
            self.context += prompt_tokens(&of);
            self.decoding += 1;
            self.begun += 1;
            let last_step = self.step + u64::from(left);
            let decoding = Decoding { of, first_token_ms, age: self.begun, last_step };
            let at = self.free.pop().unwrap_or(self.places.len());
            match self.places.get_mut(at) {
                Some(place) => *place = Some(decoding),
                None => self.places.push(Some(decoding)),
            }
            self.ends.push(Reverse((last_step, at)));
        }
    }
}

/// What must be computed before the next token of an answer.
fn prompt_tokens(of: &Waiting) -> u64 {
    u64::from(of.request.prompt_tokens) + u64::from(of.made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: StepCost = StepCost {
        overhead_ms: 1.0,
        base_ms: 9.0,
        sequence_ms: 0.5,
        context_ms: 0.001,
        prompt_base_ms: 9.0,
        prompt_ms: 0.1,
        attention_ms: 0.0,
    };

    fn engine(slots: usize, kv_tokens: u64, step_tokens: u64) -> Engine {
        Engine { cost: COST, slots, kv_tokens, step_tokens }
    }

    fn request(id: u64, arrived_ms: f64, prompt_tokens: u32, output_tokens: u32) -> Request {
        Request { id, arrived_ms, prompt_tokens, cached_tokens: 0, output_tokens }
    }

    /// Runs until all is answered; what `look` sees after each step is for the test.
    fn run(engine: Engine, requests: &[Request], mut look: impl FnMut(&Replica)) -> Vec<Done> {
        let (mut replica, mut done, mut next) = (Replica::new(engine), Vec::new(), requests.iter().peekable());
        loop {
            let ends = replica.ends_ms();
            if let Some(request) = next.next_if(|request| ends.is_none_or(|ends| request.arrived_ms <= ends)) {
                replica.push(*request);
                replica.begin(request.arrived_ms);
            } else if let Some(ends) = ends {
                replica.end(&mut done).unwrap();
                look(&replica);
                replica.begin(ends);
            } else {
                return done;
            }
        }
    }

    #[test]
    fn one_request_takes_its_own_steps() {
        let done = run(engine(4, 1000, 64), &[request(7, 5.0, 100, 3)], |_| ());
        // Chunks of 64 and 36, then two tokens on 100 and 101 of context.
        let first = 5.0 + (10.0 + 6.4) + (10.0 + 3.6);
        let last = first + (10.5 + 0.1) + (10.5 + 0.101);
        assert_eq!(done.len(), 1);
        assert!((done[0].first_token_ms - first).abs() < 1e-9 && (done[0].finished_ms - last).abs() < 1e-9, "{done:?}");
        assert!((done[0].ttft_ms() - 30.0).abs() < 1e-9 && (done[0].itl_ms().unwrap() - 10.6005).abs() < 1e-9);
        assert_eq!(run(engine(4, 1000, 64), &[request(7, 0.0, 10, 1)], |_| ())[0].itl_ms(), None);
    }

    #[test]
    fn what_is_in_the_cache_is_not_computed_but_for_the_last_token() {
        let cached = Request { cached_tokens: 100, ..request(1, 0.0, 100, 1) };
        let done = run(engine(4, 1000, 64), &[cached], |_| ());
        assert!((done[0].finished_ms - 10.1).abs() < 1e-9, "{done:?}");
    }

    #[test]
    fn whoever_finds_no_slot_waits() {
        let requests = [request(1, 0.0, 10, 5), request(2, 0.0, 10, 5)];
        let done = run(engine(1, 1000, 64), &requests, |_| ());
        assert!(done[1].first_token_ms > done[0].finished_ms, "{done:?}");
        let both = run(engine(2, 1000, 64), &requests, |_| ());
        assert!(both[1].finished_ms < done[1].finished_ms);
    }

    #[test]
    fn where_the_cache_is_full_the_youngest_begins_again_and_nothing_is_lost() {
        let requests = [request(1, 0.0, 40, 30), request(2, 0.0, 40, 30)];
        let (mut both, mut put_back) = (false, false);
        let done = run(engine(2, 100, 64), &requests, |replica| {
            both |= replica.running() == 2;
            put_back |= both && replica.waiting() == 1;
        });
        assert_eq!((done.len(), done[0].request.id, both, put_back), (2, 1, true, true));
        let wide = run(engine(2, 1000, 64), &requests, |_| ());
        assert!(done[1].finished_ms > wide[1].finished_ms, "what was put back is computed once more");
        assert!((done[1].first_token_ms - wide[1].first_token_ms).abs() < 1e-9, "its first token was said before");
    }

    proptest! {
        #[test]
        fn all_are_answered_in_the_room_there_is(
            slots in 1..6_usize,
            spare in 0..200_u64,
            step_tokens in 1..100_u64,
            sizes in proptest::collection::vec((0.0..50.0_f64, 1..60_u32, 1..40_u32), 1..40),
        ) {
            let mut now = 0.0;
            let requests: Vec<Request> = (0..).zip(&sizes).map(|(id, (gap, prompt, output))| {
                now += gap;
                request(id, now, *prompt, *output)
            }).collect();
            // The largest fits alone.
            let engine = engine(slots, 101 + spare, step_tokens);
            let mut too_much = false;
            let done = run(engine, &requests, |replica| {
                too_much |= replica.kv_share() > 1.0 || replica.running() > slots;
            });
            prop_assert!(!too_much);
            let mut ids: Vec<u64> = done.iter().map(|each| each.request.id).collect();
            ids.sort_unstable();
            prop_assert_eq!(ids, (0..u64::try_from(sizes.len()).unwrap()).collect::<Vec<_>>());
            for each in &done {
                prop_assert!(each.ttft_ms() > 0.0 && each.finished_ms >= each.first_token_ms);
                prop_assert!(each.itl_ms().is_none_or(|itl| itl >= 10.5 - 1e-9), "a step takes at least so long");
            }
        }
    }
}
