//! Who is next: weighted fair queueing over tenants and priorities, in tokens.
//!
//! A flow is a (tenant, priority). Each has a counter of the tokens that were computed for it, divided by its weight,
//! which doubles with every 100 of priority; the flow that is least ahead is served next, in it the oldest request. So a
//! tenant that floods the queue waits for itself, a higher priority is served far more often, and nobody starves.
//! A flow that comes back begins where the least served one stands: what it left unused is not saved up.
//! After "virtual token counters": Sheng et al., Fairness in Serving Large Language Models, OSDI 2024.

use crate::scheduler::RequestId;
use std::collections::BTreeMap;
use std::time::Duration;

/// The highest priority.
pub const PRIORITY_MAX: u16 = 1000;
/// Priority that doubles the weight.
const PRIORITY_PER_DOUBLING: u16 = 100;

/// Whose request, and how important.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Tenant, empty where none is named.
    pub tenant: String,
    /// 0 to [`PRIORITY_MAX`].
    pub priority: u16,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: RequestId,
    pub(crate) flow: Flow,
    /// Until when it may wait, on the scheduler's clock.
    pub(crate) deadline: Option<Duration>,
}

/// The queue and the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    waiting: Vec<Waiting>,
    /// Of the flows that wait or run, with how many of their requests do.
    flows: BTreeMap<Flow, Served>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    counter: u64,
    requests: usize,
}

impl Queue {
    /// A new request, at the end of its flow.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        let start = self.flows.values().map(|served| served.counter).min().unwrap_or(0);
        let served = self.flows.entry(waiting.flow.clone()).or_insert(Served { counter: start, requests: 0 });
        served.requests += 1;
        self.waiting.push(waiting);
    }

    /// A request that ran and must run again keeps its place by age.
    pub(crate) fn push_back_in(&mut self, waiting: Waiting) {
        let at = self.waiting.partition_point(|other| other.id < waiting.id);
        self.waiting.insert(at, waiting);
    }

    /// Who is next.
    pub(crate) fn next(&self) -> Option<&Waiting> {
        let rank = |at: &&Waiting| {
            let counter = self.flows.get(&at.flow).map_or(0, |served| served.counter);
            (counter, PRIORITY_MAX.saturating_sub(at.flow.priority), at.id)
        };
        self.waiting.iter().min_by_key(rank)
    }

    /// Takes a request out of the queue; its flow still counts it until [`Queue::leave`].
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(self.waiting.remove(at))
    }

    /// Requests whose deadline is over.
    pub(crate) fn expired(&self, now: Duration) -> Vec<RequestId> {
        let over = |waiting: &&Waiting| waiting.deadline.is_some_and(|deadline| deadline <= now);
        self.waiting.iter().filter(over).map(|waiting| waiting.id).collect()
    }

    /// So many tokens are computed for this flow.
    pub(crate) fn charge(&mut self, flow: &Flow, tokens: usize) {
        if let Some(served) = self.flows.get_mut(flow) {
            let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
            served.counter = served.counter.saturating_add(tokens.saturating_mul(token_cost(flow.priority)));
        }
    }

    /// A request of this flow is done for good.
    pub(crate) fn leave(&mut self, flow: &Flow) {
        if let Some(served) = self.flows.get_mut(flow) {
            served.requests = served.requests.saturating_sub(1);
            if served.requests == 0 {
                self.flows.remove(flow);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What a token adds to the counter: half as much for each doubling of the weight, and never nothing.
fn token_cost(priority: u16) -> u64 {
    let doublings = priority.min(PRIORITY_MAX) / PRIORITY_PER_DOUBLING;
    1 << (PRIORITY_MAX / PRIORITY_PER_DOUBLING - doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(tenant: &str, priority: u16) -> Flow {
        Flow { tenant: tenant.into(), priority }
    }

    fn push(queue: &mut Queue, id: RequestId, tenant: &str, priority: u16) {
        queue.push(Waiting { id, flow: flow(tenant, priority), deadline: None });
    }

    /// Serves `count` requests of 10 tokens each and says whose they were.
    fn serve(queue: &mut Queue, count: usize) -> Vec<RequestId> {
        let mut order = Vec::new();
        for _ in 0..count {
            let Some(next) = queue.next().cloned() else { break };
            queue.remove(next.id);
            queue.charge(&next.flow, 10);
            queue.leave(&next.flow);
            order.push(next.id);
        }
        order
    }

    #[test]
    fn one_flow_is_served_by_age() {
        let mut queue = Queue::default();
        (1..4).for_each(|id| push(&mut queue, id, "a", 500));
        assert_eq!(serve(&mut queue, 3), [1, 2, 3]);
        assert!(queue.is_empty() && queue.flows.is_empty());
    }

    #[test]
    fn a_flood_waits_for_itself() {
        let mut queue = Queue::default();
        (1..9).for_each(|id| push(&mut queue, id, "flood", 500));
        serve(&mut queue, 2);
        push(&mut queue, 20, "late", 500);
        push(&mut queue, 21, "late", 500);
        assert_eq!(serve(&mut queue, 4), [3, 20, 4, 21], "the newcomer takes turns from where the flood stands");
    }

    #[test]
    fn priority_weighs_and_does_not_starve() {
        let mut queue = Queue::default();
        (1..40).for_each(|id| push(&mut queue, id, "low", 0));
        (100..140).for_each(|id| push(&mut queue, id, "high", 300));
        let order = serve(&mut queue, 27);
        assert_eq!(order[0], 100, "among equals the more important one");
        let low = order.iter().filter(|id| **id < 100).count();
        assert_eq!(low, 3, "eight to one");
    }

    #[test]
    fn a_deadline_is_over_when_it_is_reached() {
        let mut queue = Queue::default();
        queue.push(Waiting { id: 1, flow: flow("a", 0), deadline: Some(Duration::from_secs(5)) });
        push(&mut queue, 2, "a", 0);
        assert!(queue.expired(Duration::from_millis(4999)).is_empty());
        assert_eq!(queue.expired(Duration::from_secs(5)), [1]);
    }

    #[test]
    fn one_that_must_run_again_keeps_its_age() {
        let mut queue = Queue::default();
        (1..4).for_each(|id| push(&mut queue, id, "a", 0));
        let first = queue.remove(1).unwrap();
        queue.push_back_in(first);
        assert_eq!(queue.next().unwrap().id, 1);
    }
}
