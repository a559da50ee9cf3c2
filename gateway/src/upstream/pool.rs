//! Least-loaded replica first; one that fails is left out for a while, but never the last one.

use crate::limits;
use quartermaster_core::wire::gateway::Endpoint;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What this gateway knows about one replica.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    in_flight: u32,
    failures: u32,
    out_until: Option<Instant>,
}

/// All replicas that requests have been sent to, by address.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    loads: HashMap<String, Load>,
    turn: usize,
}

/// A place at a replica; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    /// The replica.
    pub endpoint: Endpoint,
    pool: Pool,
}

impl Pool {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The least-loaded replica by requests per slot, and a place there. One that failed lately or that `last` names comes
    /// only when there is no other; equal ones take turns.
    pub fn pick(&self, endpoints: &[Endpoint], last: Option<&str>, now: Instant) -> Option<Place> {
        let endpoint = self.with(|state| {
            state.turn = state.turn.wrapping_add(1);
            let turn = state.turn;
            let count = endpoints.len();
            let (_, best) = endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.draining).min_by_key(
                |(at, endpoint)| {
                    let load = state.loads.get(&endpoint.address).copied().unwrap_or_default();
                    let out = load.out_until.is_some_and(|until| until > now);
                    let just_tried = last == Some(endpoint.address.as_str());
                    // Thousandths of a slot, with this request on it.
                    let busy = (u64::from(load.in_flight) + 1) * 1000 / u64::from(endpoint.slots.max(1));
                    (out, just_tried, busy, (at + turn) % count)
                },
            )?;
            let load = state.loads.entry(best.address.clone()).or_default();
            load.in_flight = load.in_flight.saturating_add(1);
            Some(best.clone())
        })?;
        Some(Place { endpoint, pool: self.clone() })
    }

    /// Forgets replicas that are gone and have nothing in flight.
    pub fn keep(&self, known: impl Fn(&str) -> bool) {
        self.with(|state| state.loads.retain(|address, load| load.in_flight > 0 || known(address)));
    }
}

impl Place {
    /// The replica answered: it is well.
    pub fn well(&self) {
        self.load(|load| (load.failures, load.out_until) = (0, None));
    }

    /// The replica failed: leave it out, longer each time.
    pub fn failed(&self, now: Instant) {
        self.load(|load| {
            load.failures = load.failures.saturating_add(1);
            if load.failures >= limits::FAILURES_BEFORE_EJECTION {
                load.out_until = Some(now + ejection(load.failures));
            }
        });
    }

    fn load(&self, work: impl FnOnce(&mut Load)) {
        self.pool.with(|state| state.loads.get_mut(&self.endpoint.address).map(work));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load(|load| load.in_flight = load.in_flight.saturating_sub(1));
    }
}

fn ejection(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(limits::FAILURES_BEFORE_EJECTION).min(10);
    limits::EJECTION.saturating_mul(1 << doublings).min(limits::EJECTION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, slots: u32) -> Endpoint {
        let (variant, hardware_class) = ("q8".into(), "cpu".into());
        Endpoint { address: address.into(), pod: address.into(), variant, hardware_class, slots, draining: false }
    }

    fn pick(pool: &Pool, endpoints: &[Endpoint], last: Option<&str>, now: Instant) -> Place {
        pool.pick(endpoints, last, now).unwrap()
    }

    #[test]
    fn load_is_spread_by_slots() {
        let (pool, now) = (Pool::default(), Instant::now());
        let endpoints = [endpoint("small", 1), endpoint("large", 3)];
        let places: Vec<_> = (0..8).map(|_| pick(&pool, &endpoints, None, now)).collect();
        let large = places.iter().filter(|place| place.endpoint.address == "large").count();
        assert_eq!(large, 6);
        drop(places);
        assert!(pool.with(|state| state.loads.values().all(|load| load.in_flight == 0)));
    }

    #[test]
    fn equal_replicas_take_turns() {
        let (pool, now) = (Pool::default(), Instant::now());
        let endpoints = [endpoint("a", 1), endpoint("b", 1)];
        let first = pick(&pool, &endpoints, None, now).endpoint.address.clone();
        let second = pick(&pool, &endpoints, None, now).endpoint.address.clone();
        assert_ne!(first, second);
    }

    #[test]
    fn a_failing_replica_is_left_out_for_a_while_but_not_when_it_is_the_last() {
        let (pool, now) = (Pool::default(), Instant::now());
        let endpoints = [endpoint("a", 1), endpoint("b", 9)];
        let place = pick(&pool, &endpoints[..1], None, now);
        place.failed(now);
        drop(place);
        let places: Vec<_> = (0..20).map(|_| pick(&pool, &endpoints, None, now)).collect();
        assert!(places.iter().all(|place| place.endpoint.address == "b"));
        assert_eq!(pick(&pool, &endpoints[..1], None, now).endpoint.address, "a");
        let later = now + limits::EJECTION;
        assert_eq!(pick(&pool, &endpoints, None, later).endpoint.address, "a");
    }

    #[test]
    fn another_try_goes_elsewhere_and_draining_ones_get_nothing() {
        let (pool, now) = (Pool::default(), Instant::now());
        let mut endpoints = [endpoint("a", 1), endpoint("b", 1)];
        assert_eq!(pick(&pool, &endpoints, Some("a"), now).endpoint.address, "b");
        assert_eq!(pick(&pool, &endpoints[..1], Some("a"), now).endpoint.address, "a");
        endpoints.iter_mut().for_each(|endpoint| endpoint.draining = true);
        assert!(pool.pick(&endpoints, None, now).is_none());
    }

    #[test]
    fn time_out_is_bounded() {
        assert_eq!(ejection(1), limits::EJECTION);
        assert_eq!(ejection(2), limits::EJECTION * 2);
        assert_eq!(ejection(u32::MAX), limits::EJECTION_MAX);
    }

    #[test]
    fn replicas_that_are_gone_are_forgotten() {
        let (pool, now) = (Pool::default(), Instant::now());
        drop(pick(&pool, &[endpoint("a", 1)], None, now));
        pool.keep(|_| false);
        assert!(pool.with(|state| state.loads.is_empty()));
    }
}
