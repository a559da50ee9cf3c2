//! Watches → index. One stream per kind; a broken one is taken up again with growing pauses, a bad object is set aside.

use super::{GroupView, Index, Kind, NodeView, Object, PodView};
use crate::{limits, names};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use quartermaster_crds::v1alpha1::{CostPolicy, HardwareClass, ModelDeployment, TokenBudget};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The index as the watches fill it, and a bell for what gateways should hear of at once.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    index: Arc<RwLock<Index>>,
    /// Rings when endpoints changed, for who tells the gateways.
    pub endpoints: Arc<Notify>,
    /// The same, for who looks at new replicas.
    pub replicas: Arc<Notify>,
}

impl Shared {
    /// A copy as of now. Objects are shared, so this is cheap.
    #[must_use]
    pub fn read(&self) -> Index {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the index in place.
    pub fn with<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the index.
    pub fn write<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Watches everything until `stop`.
pub fn spawn(client: &Client, shared: &Shared, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
    let ours = watcher::Config::default().labels(&names::managed_selector());
    let all = watcher::Config::default();
    let mut run = Spawner { client, shared, stop, tasks };
    run.own::<HardwareClass>(Kind::HardwareClass, Object::HardwareClass);
    run.own::<ModelDeployment>(Kind::ModelDeployment, Object::ModelDeployment);
    run.own::<TokenBudget>(Kind::TokenBudget, Object::TokenBudget);
    run.own::<CostPolicy>(Kind::CostPolicy, Object::CostPolicy);
    run.other(Kind::Deployment, ours.clone(), |object: &Deployment| GroupView::of(object).map(Object::Deployment));
    run.other(Kind::Pod, ours, |object: &Pod| PodView::of(object).map(Object::Pod));
    run.other(Kind::Node, all, |object: &Node| Some(Object::Node(NodeView::of(object))));
}

struct Spawner<'a> {
    client: &'a Client,
    shared: &'a Shared,
    stop: &'a CancellationToken,
    tasks: &'a mut JoinSet<()>,
}

impl Spawner<'_> {
    /// One of our kinds. What does not deserialize is known by its name and reason.
    fn own<K>(&mut self, kind: Kind, object: fn(Arc<K>) -> Object)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::Scope: Send,
    {
        let view = move |guard: &DeserializeGuard<K>| match &guard.0 {
            Ok(readable) => {
                let mut readable = readable.clone();
                readable.meta_mut().managed_fields = None;
                Some(object(Arc::new(readable)))
            }
            Err(invalid) => Some(Object::Invalid(invalid.error.clone())),
        };
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        self.run(api, kind, watcher::Config::default(), view);
    }

    /// An object of Kubernetes', cut down at once.
    fn other<K>(&mut self, kind: Kind, config: watcher::Config, view: fn(&K) -> Option<Object>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.run(api, kind, config, view);
    }

    fn run<K, V>(&mut self, api: Api<K>, kind: Kind, config: watcher::Config, view: V)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        V: Fn(&K) -> Option<Object> + Send + Sync + 'static,
    {
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let events = watcher(api, config.page_size(limits::LIST_PAGE)).default_backoff();
            pin_mut!(events);
            loop {
                let event = tokio::select! { () = stop.cancelled() => return, event = events.next() => event };
                match event {
                    Some(Ok(event)) => take(&shared, kind, event, &view),
                    Some(Err(error)) => {
                        tracing::warn!(?kind, error = %crate::error::chain(&error), "watch");
                    }
                    None => return,
                }
            }
        });
    }
}

fn take<K: Resource>(shared: &Shared, kind: Kind, event: watcher::Event<K>, view: &impl Fn(&K) -> Option<Object>) {
    let key = |object: &K| match object.meta().namespace.as_deref() {
        Some(namespace) => names::key(namespace, &object.name_any()),
        None => object.name_any(),
    };
    let ring = shared.write(|index| match event {
        watcher::Event::Init => {
            index.begin(kind);
            false
        }
        watcher::Event::InitDone => {
            index.done(kind);
            true
        }
        watcher::Event::Delete(object) => index.delete(kind, &key(&object)),
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => match view(&object) {
            Some(seen) => {
                if let Object::Invalid(why) = &seen {
                    tracing::warn!(?kind, object = key(&object), why, "an object can't be read and is left alone");
                }
                index.apply(kind, key(&object), seen)
            }
            None => index.delete(kind, &key(&object)),
        },
    });
    if ring {
        shared.endpoints.notify_one();
        shared.replicas.notify_one();
    }
}
