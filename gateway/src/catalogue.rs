//! The snapshot in use: compiled once, swapped whole, so that a request never sees half of a change.

use crate::metrics::{Metrics, ModelMetrics};
use arc_swap::ArcSwapOption;
use hmac::{Hmac, KeyInit, Mac};
use quartermaster_core::wire::gateway::{ApiKey, GatewaySnapshot, ModelRoute};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why a snapshot is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// From a leader that has been replaced.
    #[error("refusing the snapshot of epoch {got}: epoch {known} is already in use, so it comes from a deposed leader")]
    Deposed {
        /// Its epoch.
        got: u64,
        /// Ours.
        known: u64,
    },
    /// Without the salt no key can be recognised.
    #[error("reading the snapshot's keySalt: it is not hexadecimal")]
    Salt,
}

/// One snapshot, ready for look-ups.
pub struct View {
    /// As the operator sent it.
    pub snapshot: GatewaySnapshot,
    salted: Hmac<Sha256>,
    /// `namespace` and any name that clients may use → the key in `snapshot.models`.
    names: HashMap<String, HashMap<String, Arc<Model>>>,
}

/// One model with its series.
#[derive(Clone, Debug)]
pub struct Model {
    /// `namespace/name`.
    pub id: String,
    /// As the operator sent it.
    pub route: ModelRoute,
    /// Its series.
    pub metrics: Arc<ModelMetrics>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GatewaySnapshot { epoch, version, .. } = &self.snapshot;
        write!(f, "View(epoch {epoch}, version {version})")
    }
}

impl View {
    /// Compiles a snapshot; its models' series exist from now on.
    pub fn compile(snapshot: GatewaySnapshot, metrics: &Metrics) -> Result<Self, CatalogueError> {
        let salt = hex::decode(&snapshot.key_salt).map_err(|_| CatalogueError::Salt)?;
        let salted = Hmac::<Sha256>::new_from_slice(&salt).map_err(|_| CatalogueError::Salt)?;
        let mut names: HashMap<String, HashMap<String, Arc<Model>>> = HashMap::new();
        let models = snapshot.models.iter().map(|(id, route)| {
            let metrics = metrics.model(&route.namespace, &route.name);
            Arc::new(Model { id: id.clone(), route: route.clone(), metrics })
        });
        let models: Vec<_> = models.collect();
        // Names of objects first: a public name never hides the object of that name.
        for model in &models {
            let names = names.entry(model.route.namespace.clone()).or_default();
            names.insert(model.route.name.clone(), Arc::clone(model));
            names.insert(model.id.clone(), Arc::clone(model));
        }
        for model in models {
            let names = names.entry(model.route.namespace.clone()).or_default();
            names.entry(model.route.public_name.clone()).or_insert(model);
        }
        Ok(Self { snapshot, salted, names })
    }

    /// Whose key it is.
    pub fn key(&self, api_key: &str) -> Option<&ApiKey> {
        let mut mac = self.salted.clone();
        mac.update(api_key.as_bytes());
        self.snapshot.keys.get(&hex::encode(mac.finalize().into_bytes()))
    }

    /// A model by any of its names, as a key of `namespace` sees it.
    pub fn model(&self, namespace: &str, name: &str) -> Option<&Arc<Model>> {
        self.names.get(namespace)?.get(name)
    }
}

/// Holds the snapshot in use and tells waiting requests when it changes.
#[derive(Debug)]
pub struct Catalogue {
    view: ArcSwapOption<View>,
    changed: watch::Sender<()>,
    heard: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

impl Catalogue {
    /// Empty: the gateway is not ready until it has a snapshot.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { view: ArcSwapOption::empty(), changed: watch::channel(()).0, heard: Mutex::default(), metrics }
    }

    /// The snapshot in use.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes a snapshot into use. `false`: it is the one in use already.
    pub fn apply(&self, snapshot: GatewaySnapshot) -> Result<bool, CatalogueError> {
        if let Some(view) = self.view() {
            let (known, version) = (view.snapshot.epoch, view.snapshot.version);
            if snapshot.epoch < known {
                return Err(CatalogueError::Deposed { got: snapshot.epoch, known });
            }
            if (snapshot.epoch, snapshot.version) == (known, version) {
                return Ok(false);
            }
        }
        let view = View::compile(snapshot, &self.metrics)?;
        self.metrics.snapshot(view.snapshot.epoch, view.snapshot.version);
        self.metrics.keep_models(|namespace, name| view.model(namespace, name).is_some());
        self.view.store(Some(Arc::new(view)));
        self.changed.send_replace(());
        Ok(true)
    }

    /// The operator has just answered.
    pub fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Time since the operator last answered.
    pub fn age(&self) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quartermaster_core::units::{Millis, Tokens};
    use quartermaster_core::wire::gateway::TokenLimits;

    fn route(namespace: &str, name: &str, public_name: &str) -> (String, ModelRoute) {
        let route = ModelRoute {
            namespace: namespace.into(),
            name: name.into(),
            public_name: public_name.into(),
            limits: TokenLimits { max_context: Tokens(100), ..TokenLimits::default() },
            tokenizer: None,
            endpoints: vec![],
            wake_deadline: Millis::SECOND,
            unavailable_because: None,
        };
        (format!("{namespace}/{name}"), route)
    }

    fn snapshot(epoch: u64, version: u64) -> GatewaySnapshot {
        let models = [route("a", "x", "org/m"), route("a", "y", "x"), route("b", "x", "z")].into();
        let key = ApiKey { namespace: "a".into(), subject: "a/s".into(), budgets: vec![] };
        // HMAC-SHA256 of "Hi There" under 20 bytes of 0x0b: test case 1 of RFC 4231.
        let hash = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        GatewaySnapshot { epoch, version, key_salt: "0b".repeat(20), models, keys: [(hash.into(), key)].into() }
    }

    #[test]
    fn keys_are_found_by_their_salted_hash() {
        let view = View::compile(snapshot(1, 1), &Metrics::default()).unwrap();
        assert_eq!(view.key("Hi There").unwrap().subject, "a/s");
        assert!(view.key("hi there").is_none());
    }

    #[test]
    fn names_of_objects_go_before_public_names_and_namespaces_are_apart() {
        let view = View::compile(snapshot(1, 1), &Metrics::default()).unwrap();
        let find = |namespace, name| view.model(namespace, name).map(|m| m.id.as_str());
        assert_eq!(find("a", "x"), Some("a/x"));
        assert_eq!(find("a", "a/y"), Some("a/y"));
        assert_eq!(find("a", "org/m"), Some("a/x"));
        assert_eq!(find("a", "b/x"), None);
        assert_eq!(find("a", "z"), None);
        assert_eq!(find("b", "z"), Some("b/x"));
    }

    #[test]
    fn a_deposed_leader_is_refused_and_a_restarted_one_is_not() {
        let catalogue = Catalogue::new(Arc::default());
        assert_eq!(catalogue.apply(snapshot(2, 7)), Ok(true));
        assert_eq!(catalogue.apply(snapshot(2, 7)), Ok(false));
        assert_eq!(catalogue.apply(snapshot(1, 9)), Err(CatalogueError::Deposed { got: 1, known: 2 }));
        assert_eq!(catalogue.apply(snapshot(3, 1)), Ok(true));
        let mut broken = snapshot(4, 1);
        broken.key_salt = "no hex".into();
        assert_eq!(catalogue.apply(broken), Err(CatalogueError::Salt));
        assert_eq!(catalogue.view().unwrap().snapshot.epoch, 3);
    }
}
