//! The tick: signals → snapshot → plan → gateways → orders → status. The only place where things are decided and done.

use crate::accounts::Accounts;
use crate::actuate::{Actuator, Announcer, Error, Guard, Order, Teller, orders, retire};
use crate::budgets::Fault;
use crate::build::Settings;
use crate::gateway::{Press, refresh_tokenizers};
use crate::keys::{self, Keys};
use crate::leader::Claim;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::server::admin::Debug;
use crate::state::informers::Shared;
use crate::state::snapshot::{Inputs, Seen, build, note_failures, note_refusal, span};
use crate::state::{Described, Index, Memory, Refusal};
use crate::status::{Draft, StatusWriter, Wrote, budget, class, model, policy};
use crate::telemetry::{Readings, Source};
use crate::{clock, limits};
use kube::Client;
use quartermaster_core::plan::{Plan, decide};
use quartermaster_core::snapshot::HardwareClass;
use quartermaster_core::units::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// What the planner works with.
pub struct Tools {
    /// The API server.
    pub client: Client,
    /// Everything else.
    pub http: reqwest::Client,
    /// The ledger, if one is named.
    pub ledger: Option<Ledger>,
    /// Where signals come from.
    pub signals: Source,
    /// About pods.
    pub settings: Settings,
    /// Our namespace.
    pub namespace: String,
    /// Our name.
    pub identity: String,
    /// Time between two ticks.
    pub tick: Duration,
    /// The cluster as watched.
    pub shared: Shared,
    /// Whether we lead.
    pub claim: Claim,
    /// Prints for gateways.
    pub press: Press,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Debug pages.
    pub debug: Debug,
}

/// The loop's state.
pub struct Planner {
    tools: Tools,
    epoch: Option<u64>,
    memory: Memory,
    readings: Readings,
    /// Of the last snapshot.
    classes: BTreeMap<String, HardwareClass>,
    keys: Option<Arc<Keys>>,
    salt: Option<Vec<u8>>,
    accounts: Accounts,
    /// Why the ledger has not the budgets as they stand.
    unsent: Option<String>,
    actuator: Actuator,
    refusals: mpsc::Receiver<Refusal>,
    statuses: StatusWriter,
}

impl Planner {
    /// A planner that has seen nothing yet.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let (teller, refusals) = Teller::new(tools.http.clone(), tools.shared.clone());
        let announcer = Announcer::new(tools.client.clone(), tools.identity.clone());
        Self {
            epoch: None,
            memory: Memory::default(),
            readings: Readings::default(),
            classes: BTreeMap::new(),
            keys: None,
            salt: None,
            accounts: Accounts::new(tools.ledger.clone()),
            unsent: None,
            actuator: Actuator::new(tools.client.clone(), tools.settings.clone(), tools.namespace.clone(), teller),
            refusals,
            statuses: StatusWriter::new(tools.client.clone(), announcer),
            tools,
        }
    }

    /// Ticks until `stop`. A gateway's wake and a replica that comes or goes bring the next tick forward.
    pub async fn run(mut self, mut wakes: mpsc::Receiver<String>, stop: CancellationToken) {
        let replicas = Arc::clone(&self.tools.shared.replicas);
        let mut interval = tokio::time::interval(self.tools.tick);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
                Some(key) = wakes.recv() => {
                    self.memory.wakes.insert(key, clock::now());
                    tokio::time::sleep(limits::TICK_MIN).await;
                }
                () = replicas.notified() => tokio::time::sleep(limits::TICK_MIN).await,
            }
            while let Ok(key) = wakes.try_recv() {
                self.memory.wakes.insert(key, clock::now());
            }
            match self.tools.claim.epoch() {
                Some(epoch) if self.tools.shared.with(Index::synced) => {
                    let begin = Instant::now();
                    self.enter(epoch);
                    self.tick(epoch).await;
                    self.tools.metrics.tick(begin.elapsed());
                }
                Some(_) => interval.reset_after(limits::TICK_MIN),
                None => {
                    if self.epoch.take().is_some() {
                        self.tools.press.withdraw();
                    }
                    interval.reset_after(limits::TICK_MIN);
                }
            }
        }
    }

    /// A new epoch begins without memory: another leader may have been at work.
    fn enter(&mut self, epoch: u64) {
        if self.epoch == Some(epoch) {
            return;
        }
        // A gateway that waits asks again, so not even wakes are kept.
        self.memory = Memory::default();
        self.readings = Readings::default();
        self.classes.clear();
        self.accounts.restart();
        self.actuator.forget();
        // What pods said, they said before another may have told them otherwise.
        self.tools.shared.write(Index::ask_anew);
        while self.refusals.try_recv().is_ok() {}
        self.statuses.forget();
        self.epoch = Some(epoch);
    }

    async fn tick(&mut self, epoch: u64) {
        let index = self.tools.shared.read();
        self.memory.keep(|key| index.models.contains_key(key));
        self.look(epoch, &index).await;
        let now = clock::now();
        self.note_failures(&index, now);
        let seen = build(&self.inputs(&index, now));
        self.classes.clone_from(&seen.snapshot.classes);
        let plan = decide(&seen.snapshot);
        self.remember(&index, &plan, now);
        if let Some(keys) = &self.keys {
            self.tools.press.load(epoch, &self.memory, keys);
        }
        let guard = Guard::new(self.tools.claim.clone(), epoch, self.tools.shared.clone());
        let (faults, unsent) = self.accounts.budgets(epoch, &index, now).await;
        if let Some(unsent) = &unsent {
            self.complain("ledger", &unsent.why);
            if unsent.stale {
                self.tools.claim.passed(epoch);
            }
        }
        self.unsent = unsent.filter(|unsent| !unsent.known).map(|unsent| unsent.why);
        let refused = self.act(&index, &plan, &guard, now).await;
        self.tell(&index, &seen, &plan, &faults, &refused, &guard, now).await;
        self.tools.metrics.plan(&seen.snapshot, &plan);
        self.tools.metrics.signals(&self.readings, now);
        self.tools.debug.decided(seen.snapshot, plan);
    }

    /// What did not start, and what replicas could not be told to serve.
    fn note_failures(&mut self, index: &Index, now: Millis) {
        note_failures(index, &self.tools.settings, now, &mut self.memory);
        while let Ok(refusal) = self.refusals.try_recv() {
            note_refusal(index, &self.tools.settings, now, &mut self.memory, refusal);
        }
    }

    fn inputs<'a>(&'a self, index: &'a Index, now: Millis) -> Inputs<'a> {
        let tick = i64::try_from(self.tools.tick.as_millis()).unwrap_or(i64::MAX);
        Inputs {
            index,
            memory: &self.memory,
            readings: &self.readings,
            last_classes: &self.classes,
            settings: &self.tools.settings,
            namespace: &self.tools.namespace,
            fresh_for: Millis(tick.saturating_mul(limits::SCRAPE_TICKS)),
            now,
        }
    }

    /// Everything that is read from outside, side by side.
    async fn look(&mut self, epoch: u64, index: &Index) {
        let now = clock::now();
        let before = self.memory.ledger_failed.clone();
        let Self { tools, readings, accounts, memory, .. } = self;
        let signals = tools.signals.collect(&tools.http, index, readings);
        tokio::join!(signals, accounts.round(epoch, index, &tools.namespace, now, memory));
        if let Some(why) = self.memory.ledger_failed.clone() {
            // Once, not with every tick.
            if before.as_ref() != Some(&why) {
                tracing::warn!(why, "the ledger does not answer: what was spent is not known, nothing new starts");
            }
            self.tools.metrics.error("ledger");
        }
        self.memory.measure(index.replicas(), &self.readings);
        refresh_tokenizers(&self.tools.http, index, &mut self.memory).await;
        self.read_keys(index, now).await;
    }

    /// Keys, when they are old or other budgets are there.
    async fn read_keys(&mut self, index: &Index, now: Millis) {
        let current = self
            .keys
            .as_ref()
            .is_some_and(|keys| now.since(keys.at) < limits::KEYS_EVERY && keys.found.keys().eq(index.budgets.keys()));
        if current {
            return;
        }
        match self.fetch_keys(index).await {
            Ok(keys) => {
                let before = self.keys.as_ref().map(|keys| &keys.unread);
                for (budget, fault) in
                    keys.unread.iter().filter(|(id, fault)| before.and_then(|all| all.get(*id)) != Some(*fault))
                {
                    tracing::warn!(budget, why = fault.message, "keys of this budget can't be read");
                }
                self.keys = Some(Arc::new(keys));
            }
            Err(error) => {
                if let keys::Error::Api { source, .. } = &error {
                    self.tools.metrics.error(crate::error::category(source));
                }
                tracing::warn!(error = %crate::error::chain(&error), "keys stay as they were");
            }
        }
    }

    async fn fetch_keys(&mut self, index: &Index) -> Result<Keys, keys::Error> {
        let salt = match &self.salt {
            Some(salt) => salt.clone(),
            None => keys::salt(&self.tools.client, &self.tools.namespace).await?,
        };
        self.salt = Some(salt.clone());
        keys::read(&self.tools.client, &salt, &index.budgets, self.keys.as_deref()).await
    }

    fn remember(&mut self, index: &Index, plan: &Plan, now: Millis) {
        for (key, planned) in &plan.models {
            let before =
                self.memory.models.get(key).and_then(|model| model.plan.as_ref()).map(|plan| plan.reason.name());
            if before != Some(planned.reason.name()) {
                tracing::info!(model = key, reason = planned.reason.name(), "{}", planned.reason);
            }
        }
        let spans = |key: &str| index.models.get(key).map_or(Millis::ZERO, |model| span(model));
        self.memory.plan(plan, now, spans);
        retire(index, plan, &mut self.memory, now);
    }

    /// Carries the plan out. Gives what a person must clear away, by model.
    async fn act(&mut self, index: &Index, plan: &Plan, guard: &Guard, now: Millis) -> BTreeMap<String, String> {
        let mut refused = BTreeMap::new();
        let described = Described { index, memory: &self.memory, settings: &self.tools.settings, now };
        for order in orders(&described, plan) {
            match self.actuator.carry_out(&order, index, guard, now).await {
                Ok(true) => {
                    self.tools.metrics.wrote();
                    tracing::info!(object = order.object(), ?order, "written");
                }
                Ok(false) => {}
                Err(error) => {
                    self.complain(error.category(), &crate::error::chain(&error));
                    if let Error::Deposed { .. } = error {
                        break;
                    }
                    let (Order::Model { model, .. } | Order::Group { model, .. }) = &order else { continue };
                    if matches!(error.category(), "foreign" | "build" | "invalid" | "forbidden") {
                        refused.insert(model.clone(), crate::error::chain(&error));
                    }
                }
            }
        }
        refused
    }

    #[expect(clippy::too_many_arguments, reason = "the tick's values, named where they are used")]
    async fn tell(
        &mut self,
        index: &Index,
        seen: &Seen,
        plan: &Plan,
        faults: &BTreeMap<String, Fault>,
        refused: &BTreeMap<String, String>,
        guard: &Guard,
        now: Millis,
    ) {
        let drafts = self.drafts(index, seen, plan, faults, refused, now);
        self.statuses.keep(&drafts);
        for draft in &drafts {
            match self.statuses.write(draft, guard, now).await {
                Ok(Wrote::Status) => self.tools.metrics.wrote(),
                Ok(Wrote::Nothing) => {}
                Err(error) => {
                    self.complain(error.category(), &crate::error::chain(&error));
                    if let Error::Deposed { .. } = error {
                        return;
                    }
                }
            }
        }
    }

    fn drafts(
        &self,
        index: &Index,
        seen: &Seen,
        plan: &Plan,
        faults: &BTreeMap<String, Fault>,
        refused: &BTreeMap<String, String>,
        now: Millis,
    ) -> Vec<Draft> {
        let memory = &self.memory;
        let classes = index.classes.values().map(|object| class::draft(object, index, memory, plan, now));
        let budgets = index.budgets.iter().map(|(id, object)| {
            let balances = memory.balances.as_ref().filter(|_| memory.ledger_failed.is_none());
            budget::draft(&budget::Facts {
                id,
                object,
                keys: self.keys.as_deref(),
                faults,
                balances: balances.map(|(rows, _)| rows.as_slice()),
                burn: &memory.burn,
                ledger_failed: memory.ledger_failed.as_deref(),
                unsent: self.unsent.as_deref(),
                now,
            })
        });
        let policies = index.policies.iter().map(|(key, object)| {
            policy::draft(&policy::Facts { key, object, seen, plan, namespace: &self.tools.namespace, now })
        });
        let models = index.models.iter().filter_map(|(key, object)| {
            Some(model::draft(&model::Facts {
                key,
                object,
                index,
                memory,
                snapshot: &seen.snapshot,
                model: seen.snapshot.models.get(key)?,
                plan: plan.models.get(key)?,
                ceilings: &plan.ceilings,
                settled: &seen.settled,
                blind: seen.blind.get(key),
                refused: refused.get(key).map(String::as_str),
                now,
            }))
        });
        let all = classes.chain(budgets).chain(policies).chain(models);
        all.filter_map(|draft| draft.map_err(|error| tracing::error!(%error, "a status can't be written as JSON")).ok())
            .collect()
    }

    fn complain(&self, category: &'static str, why: &str) {
        self.tools.metrics.error(category);
        if category == "outdated" {
            return tracing::debug!(why, "the next tick plans anew");
        }
        tracing::warn!(category, why, "tick");
    }
}
