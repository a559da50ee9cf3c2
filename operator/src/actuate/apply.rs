//! Carries orders out: server-side apply with one field manager, nothing that is as it should be already.

use super::Order;
use super::tell::{Call, Teller};
use crate::build::{self, Settings, Shape};
use crate::leader::Claim;
use crate::state::Index;
use crate::state::informers::Shared;
use crate::{ledger::fingerprint, limits, names};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;
use quartermaster_crds::v1alpha1::ModelDeployment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// What was applied is applied again after so long, should somebody have changed it behind our back.
const REFRESH: Millis = Millis(5 * 60_000);

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease went to another while we were at it.
    #[error("{what} {object}: this replica leads no more")]
    Deposed {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`.
        object: String,
    },
    /// The spec changed since the plan was made; the next tick plans anew.
    #[error("{what} {object}: the spec has changed since it was planned")]
    Outdated {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`.
        object: String,
    },
    /// Somebody else's object has the name.
    #[error(
        "{what} {kind} {object}: there is one already that does not belong to the ModelDeployment; rename one of them"
    )]
    Foreign {
        /// What was attempted.
        what: &'static str,
        /// Kind of the object.
        kind: String,
        /// `namespace/name`.
        object: String,
    },
    /// The object can't be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The class is gone.
    #[error("{what} {object}: there is no HardwareClass {class}")]
    Class {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`.
        object: String,
        /// The class.
        class: String,
    },
    /// The API server said no, or could not be reached.
    #[error("{what} {object}")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`.
        object: String,
        /// Why.
        source: kube::Error,
    },
    /// No answer in time.
    #[error("{what} {object}: no answer within {} s", limits::API_TIMEOUT.as_secs())]
    Timeout {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`.
        object: String,
    },
}

impl Error {
    /// For the metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Deposed { .. } => "deposed",
            Self::Outdated { .. } => "outdated",
            Self::Foreign { .. } => "foreign",
            Self::Build(_) => "build",
            Self::Class { .. } => "class",
            Self::Api { source, .. } => crate::error::category(source),
            Self::Timeout { .. } => "timeout",
        }
    }
}

/// Validates again, right before a write: we still lead in the epoch of the plan, and the spec is the planned one.
#[derive(Clone, Debug)]
pub struct Guard {
    claim: Claim,
    epoch: u64,
    shared: Shared,
}

impl Guard {
    /// For the writes of one tick.
    #[must_use]
    pub fn new(claim: Claim, epoch: u64, shared: Shared) -> Self {
        Self { claim, epoch, shared }
    }

    /// Whether we still lead.
    pub fn leads(&self, what: &'static str, object: &str) -> Result<(), Error> {
        let leads = self.claim.epoch() == Some(self.epoch);
        leads.then_some(()).ok_or_else(|| Error::Deposed { what, object: object.to_owned() })
    }

    fn current(&self, what: &'static str, model: &str, generation: i64) -> Result<(), Error> {
        let now = self.shared.with(|index| index.models.get(model).and_then(|model| model.metadata.generation));
        (now == Some(generation)).then_some(()).ok_or_else(|| Error::Outdated { what, object: model.to_owned() })
    }
}

/// The writer.
pub struct Actuator {
    client: Client,
    settings: Settings,
    /// Namespace of the release, where those are who may talk to pods.
    namespace: String,
    applied: BTreeMap<String, (String, Millis)>,
    teller: Teller,
}

impl Actuator {
    /// A writer that has applied nothing yet.
    #[must_use]
    pub fn new(client: Client, settings: Settings, namespace: String, teller: Teller) -> Self {
        Self { client, settings, namespace, applied: BTreeMap::new(), teller }
    }

    /// Forgets what was applied: another leader may have been at it.
    pub fn forget(&mut self) {
        self.applied.clear();
    }

    /// Carries one order out. True when something was written.
    pub async fn carry_out(&mut self, order: &Order, index: &Index, guard: &Guard, now: Millis) -> Result<bool, Error> {
        match order {
            Order::Model { model, generation } => {
                guard.current("applying what belongs to", model, *generation)?;
                let Some(object) = index.models.get(model) else { return Ok(false) };
                let service = self.apply(&build::service(object), object, guard, now).await?;
                let budget = self.apply(&build::disruption_budget(object), object, guard, now).await?;
                let scrapers = self.settings.scrapers.as_deref();
                let policy = match scrapers.map(|admitted| build::network_policy(object, &self.namespace, admitted)) {
                    Some(policy) => self.apply(&policy, object, guard, now).await?,
                    None => self.withdraw_policy(object, guard, now).await?,
                };
                Ok(service || budget || policy)
            }
            Order::Group { model, generation, placement, files, replicas, hold } => {
                guard.current("applying the replicas of", model, *generation)?;
                let Some(object) = index.models.get(model) else { return Ok(false) };
                if *hold {
                    return self.resize(&group_key(object, placement), *replicas, index, guard).await;
                }
                self.group(object, (placement, files), *replicas, index, guard, now).await
            }
            Order::Tell { model, generation, uid, pod, address, variant } => {
                let Some(object) = index.models.get(model) else { return Ok(false) };
                guard.leads("telling what to serve", &order.object())?;
                guard.current("telling the replicas of", model, *generation)?;
                let token = build::admin::token(&self.settings.admin_secret, object);
                let call =
                    Call { model, generation: *generation, uid, pod, address, token, placement: variant.as_ref() };
                Ok(self.teller.tell(&call) && variant.is_some())
            }
            Order::Stop { namespace, name } => self.stop(namespace, name, guard).await,
            Order::Delete { namespace, name } => self.delete(namespace, name, guard).await,
        }
    }

    async fn group(
        &mut self,
        object: &ModelDeployment,
        (placement, files): (&Placement, &[String]),
        replicas: u32,
        index: &Index,
        guard: &Guard,
        now: Millis,
    ) -> Result<bool, Error> {
        let key = group_key(object, placement);
        let Some(class) = index.classes.get(&placement.class) else {
            return self.resize(&key, replicas, index, guard).await;
        };
        let shape = Shape { model: object, class, placement, files, settings: &self.settings };
        let deployment = build::deployment(&shape, replicas);
        if matches!(deployment, Err(build::Error::Variant { .. })) {
            // What runs is no longer declared; it goes on as it is until its successor is ready.
            return self.resize(&key, replicas, index, guard).await;
        }
        let (deployment, config) = (deployment?, build::config_map(&shape)?);
        let wrote = self.apply(&config, object, guard, now).await?;
        // Somebody else's hand on replicas or template shows in the watch: ours is the only one that counts.
        let drifted = index.group(&key).is_none_or(|group| {
            let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
            let hash = template.and_then(|meta| meta.annotations.as_ref()?.get(names::CONFIG_HASH));
            group.wanted != replicas || Some(&group.config_hash) != hash
        });
        if drifted {
            self.applied.remove(&cache_key(&deployment));
        }
        Ok(self.apply(&deployment, object, guard, now).await? || wrote)
    }

    /// Changes the replicas of a group and leaves its pods as they are: it can't be built any more, or may not roll now.
    async fn resize(&self, key: &str, replicas: u32, index: &Index, guard: &Guard) -> Result<bool, Error> {
        match index.group(key) {
            Some(group) if group.wanted != replicas => {
                self.scale(&group.namespace, &group.name, replicas, guard).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    async fn stop(&self, namespace: &str, name: &str, guard: &Guard) -> Result<bool, Error> {
        self.scale(namespace, name, 0, guard).await.map(|()| true)
    }

    async fn scale(&self, namespace: &str, name: &str, replicas: u32, guard: &Guard) -> Result<(), Error> {
        let (what, object) = ("scaling", names::key(namespace, name));
        guard.leads(what, &object)?;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let patch = serde_json::json!({"spec": {"replicas": replicas}});
        let parameters = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        timely(what, &object, api.patch(name, &parameters, &Patch::Merge(patch))).await.map(|_| ())
    }

    async fn delete(&mut self, namespace: &str, name: &str, guard: &Guard) -> Result<bool, Error> {
        let (what, object) = ("deleting", names::key(namespace, name));
        guard.leads(what, &object)?;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let configs: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let background = DeleteParams::background();
        gone(timely(what, &object, deployments.delete(name, &background)).await)?;
        gone(timely(what, &object, configs.delete(name, &background)).await)?;
        self.applied.retain(|key, _| !key.ends_with(&format!(" {object}")));
        Ok(true)
    }

    /// Takes a model's NetworkPolicy away, of which an earlier operator may have been told; somebody else's stays.
    async fn withdraw_policy(&mut self, owner: &ModelDeployment, guard: &Guard, now: Millis) -> Result<bool, Error> {
        let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
        let (what, object) = ("deleting the NetworkPolicy of", names::key(&namespace, &name));
        let key = format!("{} {object}", NetworkPolicy::kind(&()));
        let known = self.applied.get(&key);
        if known.is_some_and(|(_, at)| now.since(*at) < REFRESH) {
            return Ok(false);
        }
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), &namespace);
        let found = timely(what, &object, api.get_opt(&name)).await?.filter(|found| belongs(found, owner));
        if found.is_some() {
            guard.leads(what, &object)?;
            gone(timely(what, &object, api.delete(&name, &DeleteParams::background())).await)?;
        }
        self.applied.insert(key, (String::new(), now));
        Ok(found.is_some())
    }

    /// Server-side apply, unless the very same was applied lately.
    async fn apply<K>(&mut self, built: &K, owner: &ModelDeployment, guard: &Guard, now: Millis) -> Result<bool, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let (key, hash) = (cache_key(built), fingerprint(built));
        let known = self.applied.get(&key);
        if known.is_some_and(|(applied, at)| *applied == hash && now.since(*at) < REFRESH) {
            return Ok(false);
        }
        let (namespace, name) = (built.namespace().unwrap_or_default(), built.name_any());
        let (what, object) = ("applying", names::key(&namespace, &name));
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        if known.is_none()
            && let Some(found) = timely(what, &object, api.get_opt(&name)).await?
            && !belongs(&found, owner)
        {
            return Err(Error::Foreign { what, kind: K::kind(&()).into_owned(), object });
        }
        guard.leads(what, &object)?;
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        timely(what, &object, api.patch(&name, &parameters, &Patch::Apply(built))).await?;
        self.applied.insert(key, (hash, now));
        Ok(true)
    }
}

fn group_key(object: &ModelDeployment, placement: &Placement) -> String {
    names::key(&object.namespace().unwrap_or_default(), &names::group_name(&object.name_any(), placement))
}

fn cache_key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}", K::kind(&()), names::key(&object.namespace().unwrap_or_default(), &object.name_any()))
}

/// Whether an object was made for this very ModelDeployment.
fn belongs<K: Resource>(object: &K, owner: &ModelDeployment) -> bool {
    object.owner_references().iter().any(|reference| Some(&reference.uid) == owner.metadata.uid.as_ref())
}

/// What is gone already need not be deleted.
fn gone<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A call to the API server, bounded in time.
pub(crate) async fn timely<T>(
    what: &'static str,
    object: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limits::API_TIMEOUT, call).await {
        Ok(result) => result.map_err(|source| Error::Api { what, object: object.to_owned(), source }),
        Err(_) => Err(Error::Timeout { what, object: object.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::model;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    /// What is asked of an API server, all of whose objects belong to the owner `uid`, when policies are switched off.
    async fn asked(uid: &'static str) -> Vec<String> {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let answer = move |request: axum::http::Request<kube::client::Body>| {
            seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            let owner = serde_json::json!({"apiVersion": "v1", "kind": "x", "name": "chat", "uid": uid});
            let metadata = serde_json::json!({"name": "chat", "ownerReferences": [owner]});
            let policy = serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata});
            let answer = axum::http::Response::new(kube::client::Body::from(policy.to_string().into_bytes()));
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        };
        let client = Client::new(tower::service_fn(answer), "demo");
        let (teller, _refusals) = Teller::new(reqwest::Client::new(), Shared::default());
        let mut actuator = Actuator::new(client, Settings::default(), "qm".into(), teller);
        let claim = Claim::default();
        claim.hold(1, Instant::now(), Duration::from_secs(60));
        let guard = Guard::new(claim, 1, Shared::default());
        for tick in 0..3 {
            actuator.withdraw_policy(&model("demo", "chat"), &guard, Millis(tick)).await.unwrap();
        }
        let asked = asked.lock().unwrap();
        asked.clone()
    }

    #[tokio::test]
    async fn policies_switched_off_are_taken_away_once_and_only_ours() {
        let path = "/apis/networking.k8s.io/v1/namespaces/demo/networkpolicies/chat";
        assert_eq!(asked("uid-chat").await, [format!("GET {path}"), format!("DELETE {path}")]);
        assert_eq!(asked("another").await, [format!("GET {path}")]);
    }
}
