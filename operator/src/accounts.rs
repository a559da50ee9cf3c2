//! One round with the ledger: what replicas cost goes there, settled sums and balances come back.

use crate::budgets::{Fault, for_ledger};
use crate::ledger::{Error, Ledger, fingerprint};
use crate::spend::Meter;
use crate::state::snapshot::{bound, hardware, unit};
use crate::state::{Index, Memory, Settled};
use crate::{calendar, limits};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::Budgets;
use std::collections::{BTreeMap, BTreeSet};

/// The ledger has not taken the budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Why.
    pub why: String,
    /// It took the very same before, so it only was not told again.
    pub known: bool,
    /// It has heard of a later epoch than ours.
    pub stale: bool,
}

/// Our side of the accounts.
#[derive(Debug)]
pub struct Accounts {
    ledger: Option<Ledger>,
    meter: Meter,
    /// What was sent last, and when.
    budgets: Option<(String, Millis)>,
}

impl Accounts {
    /// With the ledger, if one is named.
    #[must_use]
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self { ledger, meter: Meter::default(), budgets: None }
    }

    /// Begins a new epoch: budgets are sent again, and how far pods are metered is asked again.
    pub fn restart(&mut self) {
        self.meter = Meter::default();
        self.budgets = None;
    }

    /// Sends spend, reads settled sums and balances into memory. What could not be read is not known; it is never zero.
    pub async fn round(&mut self, epoch: u64, index: &Index, namespace: &str, now: Millis, memory: &mut Memory) {
        let price = |class: &str| hardware(index.classes.get(class)?).map(|class| class.price_per_hour);
        self.meter.observe(index.replicas(), price, now);
        let wanted = sums(index, namespace, now);
        memory.settled.retain(|key, _| wanted.contains(key));
        memory.ledger_failed = self.exchange(epoch, &wanted, now, memory).await.err();
    }

    async fn exchange(
        &mut self,
        epoch: u64,
        wanted: &BTreeSet<(Option<String>, Millis)>,
        now: Millis,
        memory: &mut Memory,
    ) -> Result<(), String> {
        let ledger = self.ledger.as_ref().ok_or("--ledger-url is not set")?;
        let say = |error: Error| crate::error::chain(&error);
        if !self.meter.resumed() {
            self.meter.resume(ledger.metered(Meter::oldest(now)).await.map_err(say)?);
        }
        let entries = self.meter.entries(now);
        if !entries.is_empty() {
            ledger.post_spend(epoch, &entries).await.map_err(say)?;
        }
        self.meter.sent(now);
        for (namespace, start) in wanted {
            let total = ledger.spend(*start, namespace.as_deref()).await.map_err(say)?;
            memory.settled.insert((namespace.clone(), *start), Settled::of(total, crate::clock::now()));
        }
        let due = memory.balances.as_ref().is_none_or(|(_, at)| now.since(*at) >= limits::BALANCES_EVERY);
        if due {
            memory.balance(ledger.balances().await.map_err(say)?, now);
        }
        Ok(())
    }

    /// Sends the budgets when they changed, and every minute. Gives what is wrong with them.
    pub async fn budgets(
        &mut self,
        epoch: u64,
        index: &Index,
        now: Millis,
    ) -> (BTreeMap<String, Fault>, Option<Unsent>) {
        let (budgets, faults) = for_ledger(&index.budgets);
        let Some(ledger) = &self.ledger else { return (faults, None) };
        let all = Budgets { epoch, budgets };
        let print = fingerprint(&all);
        let known = self.budgets.as_ref();
        if known.is_some_and(|(sent, at)| *sent == print && now.since(*at) < limits::BUDGETS_EVERY) {
            return (faults, None);
        }
        match ledger.put_budgets(&all).await {
            Ok(()) => {
                self.budgets = Some((print, now));
                (faults, None)
            }
            Err(error) => {
                let known = self.budgets.as_ref().is_some_and(|(sent, _)| *sent == print);
                (faults, Some(Unsent { why: crate::error::chain(&error), known, stale: error.stale_epoch() }))
            }
        }
    }
}

/// Every (namespace or all, start of the period) that a ceiling counts.
fn sums(index: &Index, own: &str, now: Millis) -> BTreeSet<(Option<String>, Millis)> {
    let each = index.policies.values().filter_map(|policy| Some((policy, bound(policy, own)?)));
    let starts = each.flat_map(|(policy, namespace)| {
        policy.spec.ceilings.iter().filter_map(move |ceiling| {
            let (start, _) = calendar::period(unit(ceiling.period.into()), &ceiling.time_zone, now).ok()?;
            Some((namespace.clone(), start))
        })
    });
    starts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::{class, pod, policy};
    use crate::state::{Kind, Object};
    use axum::extract::State;
    use axum::{Json, Router, routing::get, routing::post};
    use quartermaster_core::units::NanoUsd;
    use quartermaster_core::wire::ledger::{Metered, Spend};
    use std::sync::Arc;

    #[tokio::test]
    async fn without_a_ledger_nothing_is_known_and_it_says_why() {
        let mut memory = Memory::default();
        let mut accounts = Accounts::new(None);
        accounts.round(1, &Index::default(), "qm", Millis(0), &mut memory).await;
        assert_eq!(memory.ledger_failed.as_deref(), Some("--ledger-url is not set"));
        assert!(memory.balances.is_none());
    }

    #[derive(Clone, Default)]
    struct Book(Arc<std::sync::Mutex<Vec<Spend>>>);

    /// A ledger that knows the first half of the pod's first hour, at 7 nano-USD.
    async fn ledger(book: Book) -> Ledger {
        let pod = pod("demo", "chat", "q4", "cpu-small", 1).uid;
        let half = Metered { pod_uid: pod, hour_start: Millis(0), until: Millis(1_800_000), nano_usd: NanoUsd(7) };
        let record = |State(book): State<Book>, Json(spend): Json<Spend>| async move {
            book.0.lock().unwrap().push(spend);
        };
        let router = Router::new()
            .route("/v1/spend/metered", get(|| async { Json([half]) }))
            .route("/v1/spend", post(record))
            .route("/v1/balances", get(|| async { Json([(); 0]) }))
            .with_state(book);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ledger::new(reqwest::Client::new(), &url, "secret".into()).unwrap()
    }

    #[tokio::test]
    async fn a_new_epoch_goes_on_where_the_ledger_stands() {
        let mut index = Index::default();
        let class = class("cpu-small");
        index.apply(Kind::HardwareClass, "cpu-small".into(), Object::HardwareClass(Arc::new(class)));
        index.apply(Kind::Pod, "demo/p".into(), Object::Pod(pod("demo", "chat", "q4", "cpu-small", 1)));
        let (book, mut memory) = (Book::default(), Memory::default());
        let mut accounts = Accounts::new(Some(ledger(book.clone()).await));
        for epoch in [1, 2] {
            accounts.restart();
            accounts.round(epoch, &index, "qm", Millis(1_800_000 + 360_000), &mut memory).await;
            assert_eq!(memory.ledger_failed, None);
        }
        let spends = book.0.lock().unwrap();
        // A tenth of an hour at 0.01 USD an hour, beside what is known.
        assert_eq!(spends.iter().map(|spend| spend.entries[0].nano_usd.0).collect::<Vec<_>>(), [1_000_007; 2]);
    }

    #[test]
    fn one_sum_for_each_period_and_namespace() {
        let mut index = Index::default();
        for (namespace, name, scope) in [
            ("demo", "a", "Namespace"),
            ("demo", "b", "Namespace"),
            ("qm", "all", "Cluster"),
            ("demo", "no", "Cluster"),
        ] {
            let object = Object::CostPolicy(Arc::new(policy(namespace, name, scope, "1")));
            index.apply(Kind::CostPolicy, format!("{namespace}/{name}"), object);
        }
        let sums = sums(&index, "qm", Millis(5_000_000));
        let start = Millis(3_600_000);
        assert_eq!(sums, [(None, start), (Some("demo".to_owned()), start)].into());
    }
}
