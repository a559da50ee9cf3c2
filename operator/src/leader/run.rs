//! The loop: look at the lease, do what the rule says, hold the claim.

use super::{Action, Claim, Lease, Observed, decide};
use crate::{clock, limits, names};
use k8s_openapi::api::coordination::v1::{Lease as KubeLease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use quartermaster_core::units::Millis;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Why a look at the lease, or a change of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or could not be reached.
    #[error("{what} lease {}", names::LEASE)]
    Api {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
    /// No answer in time.
    #[error("{what} lease {}: no answer within {} s", names::LEASE, limits::LEASE_TIMEOUT.as_secs())]
    Timeout {
        /// What was attempted.
        what: &'static str,
    },
}

/// One candidate.
#[derive(Debug)]
pub struct Elector {
    api: Api<KubeLease>,
    me: String,
    claim: Claim,
    observed: Option<Observed>,
}

impl Elector {
    /// A candidate named `me` in `namespace`; `claim` is what it fills.
    #[must_use]
    pub fn new(client: Client, namespace: &str, me: String, claim: Claim) -> Self {
        Self { api: Api::namespaced(client, namespace), me, claim, observed: None }
    }

    /// One look and one action; the time until the next.
    async fn step(&mut self) -> Result<Duration, Error> {
        let found = timely("reading", self.api.get_opt(names::LEASE)).await?;
        // Before the write, so that the claim never outlives the lease.
        let (from, now) = (Instant::now(), clock::now());
        self.observed = found.as_ref().map(|lease| Observed::update(self.observed.take(), view(lease), now));
        match (decide(self.observed.as_ref(), &self.me, now), found) {
            (Action::Create { epoch }, _) => {
                let lease = self.held(KubeLease::default(), epoch, true);
                timely("creating", self.api.create(&PostParams::default(), &lease)).await?;
                self.won(epoch, from)
            }
            (Action::Acquire { epoch }, Some(old)) => {
                let lease = self.held(old, epoch, true);
                timely("taking", self.api.replace(names::LEASE, &PostParams::default(), &lease)).await?;
                self.won(epoch, from)
            }
            (Action::Renew { epoch }, Some(old)) => {
                let epoch = self.claim.renewal(epoch);
                let lease = self.held(old, epoch, false);
                timely("renewing", self.api.replace(names::LEASE, &PostParams::default(), &lease)).await?;
                self.won(epoch, from)
            }
            (Action::Wait { at_least }, _) => {
                self.claim.drop_now();
                let wait = Duration::from_millis(u64::try_from(at_least.0).unwrap_or(0));
                Ok(wait.clamp(Duration::from_millis(200), limits::LEASE_RENEW))
            }
            (Action::Acquire { .. } | Action::Renew { .. }, None) => Ok(Duration::ZERO),
        }
    }

    fn won(&self, epoch: u64, from: Instant) -> Result<Duration, Error> {
        if self.claim.epoch() != Some(epoch) {
            tracing::info!(epoch, me = self.me, "leading");
        }
        self.claim.hold(epoch, from, limits::LEASE_CLAIM);
        Ok(limits::LEASE_RENEW)
    }

    /// The lease as held by us. The old `resourceVersion` stays, so that a lost race is a conflict.
    fn held(&self, mut lease: KubeLease, epoch: u64, new: bool) -> KubeLease {
        let now = MicroTime(Timestamp::now());
        lease.metadata.name = Some(names::LEASE.to_owned());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(limits::LEASE.as_secs()).ok();
        spec.lease_transitions = i32::try_from(epoch).ok();
        spec.renew_time = Some(now.clone());
        if new {
            spec.acquire_time = Some(now);
        }
        lease
    }

    /// Gives the lease back, so that the next leader need not wait.
    async fn release(&mut self) -> Result<(), Error> {
        if self.claim.epoch().is_none() {
            return Ok(());
        }
        self.claim.drop_now();
        let Some(mut lease) = timely("reading", self.api.get_opt(names::LEASE)).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return Ok(());
        };
        spec.holder_identity = None;
        timely("releasing", self.api.replace(names::LEASE, &PostParams::default(), &lease)).await?;
        tracing::info!("lease released");
        Ok(())
    }
}

/// Runs for office until `stop`, then gives the lease back.
pub async fn run(mut elector: Elector, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = elector.step().await.unwrap_or_else(|error| {
            tracing::warn!(error = %crate::error::chain(&error), "lease");
            Duration::from_secs(1)
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    if let Err(error) = elector.release().await {
        tracing::warn!(error = %crate::error::chain(&error), "the lease could not be released; it runs out by itself");
    }
}

fn view(lease: &KubeLease) -> Lease {
    let KubeLease { metadata: ObjectMeta { resource_version, .. }, spec } = lease;
    let spec = spec.clone().unwrap_or_default();
    Lease {
        holder: spec.holder_identity,
        transitions: u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0),
        duration: Millis::seconds(i64::from(spec.lease_duration_seconds.unwrap_or(0))),
        version: resource_version.clone().unwrap_or_default(),
    }
}

async fn timely<T>(what: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(limits::LEASE_TIMEOUT, call).await {
        Ok(result) => result.map_err(|source| Error::Api { what, source }),
        Err(_) => Err(Error::Timeout { what }),
    }
}
