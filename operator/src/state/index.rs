//! The cluster as watched. Synchronous: a watch calls [`Index::apply`] and [`Index::delete`], a tick takes a copy.

use super::{GroupView, Known, NodeView, PodView};
use crate::names;
use quartermaster_core::snapshot::Placement;
use quartermaster_crds::v1alpha1::{CostPolicy, HardwareClass, ModelDeployment, TokenBudget};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    HardwareClass,
    ModelDeployment,
    TokenBudget,
    CostPolicy,
    Deployment,
    Pod,
    Node,
}

impl Kind {
    /// Every kind; all must have been listed before anything is decided.
    pub const ALL: [Self; 7] = [
        Self::HardwareClass,
        Self::ModelDeployment,
        Self::TokenBudget,
        Self::CostPolicy,
        Self::Deployment,
        Self::Pod,
        Self::Node,
    ];
}

/// One watched object.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Object {
    HardwareClass(Arc<HardwareClass>),
    ModelDeployment(Arc<ModelDeployment>),
    TokenBudget(Arc<TokenBudget>),
    CostPolicy(Arc<CostPolicy>),
    Deployment(GroupView),
    Pod(PodView),
    Node(NodeView),
    /// Of one of our kinds, but unreadable; why.
    Invalid(String),
}

/// Everything watched, by `namespace/name` (or name, where there is no namespace).
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Hardware classes.
    pub classes: BTreeMap<String, Arc<HardwareClass>>,
    /// Models.
    pub models: BTreeMap<String, Arc<ModelDeployment>>,
    /// Token budgets.
    pub budgets: BTreeMap<String, Arc<TokenBudget>>,
    /// Cost policies.
    pub policies: BTreeMap<String, Arc<CostPolicy>>,
    /// Deployments with our labels. Only those that the ModelDeployment controls are ours.
    groups: BTreeMap<String, GroupView>,
    pods: BTreeMap<String, PodView>,
    /// Nodes.
    pub nodes: BTreeMap<String, NodeView>,
    /// Objects that can't be read, and why. Nothing is done about them but to say so.
    pub invalid: BTreeMap<(Kind, String), String>,
    listing: BTreeMap<Kind, BTreeSet<String>>,
    listed: BTreeSet<Kind>,
}

impl Index {
    /// Whether every kind has been listed at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.listed.contains(kind))
    }

    /// A list of `kind` begins.
    pub fn begin(&mut self, kind: Kind) {
        self.listing.insert(kind, BTreeSet::new());
    }

    /// The list of `kind` is complete: what it did not name is gone.
    pub fn done(&mut self, kind: Kind) {
        let named = self.listing.remove(&kind).unwrap_or_default();
        for key in self.keys(kind).into_iter().filter(|key| !named.contains(key)) {
            self.delete(kind, &key);
        }
        self.listed.insert(kind);
    }

    /// An object is there, new or changed. Gives whether it matters to the gateways at once.
    pub fn apply(&mut self, kind: Kind, key: String, object: Object) -> bool {
        if let Some(listing) = self.listing.get_mut(&kind) {
            listing.insert(key.clone());
        }
        self.invalid.remove(&(kind, key.clone()));
        match object {
            Object::HardwareClass(class) => drop(self.classes.insert(key, class)),
            Object::ModelDeployment(model) => drop(self.models.insert(key, model)),
            Object::TokenBudget(budget) => drop(self.budgets.insert(key, budget)),
            Object::CostPolicy(policy) => drop(self.policies.insert(key, policy)),
            Object::Deployment(group) => self.put_group(key, group),
            Object::Node(node) => drop(self.nodes.insert(key, node)),
            Object::Pod(pod) => {
                let serving = |pod: &PodView| (pod.ready(), pod.deleting, pod.address());
                let pod = self.with_variant(&key, pod);
                let new = serving(&pod);
                return self.pods.insert(key, pod).is_none_or(|old| serving(&old) != new);
            }
            // What was last readable stays in force: a ceiling must not fall because a newer field can't be read.
            Object::Invalid(why) => drop(self.invalid.insert((kind, key), why)),
        }
        false
    }

    /// An object is gone. Gives whether it matters to the gateways at once.
    pub fn delete(&mut self, kind: Kind, key: &str) -> bool {
        self.invalid.remove(&(kind, key.to_owned()));
        match kind {
            Kind::HardwareClass => drop(self.classes.remove(key)),
            Kind::ModelDeployment => drop(self.models.remove(key)),
            Kind::TokenBudget => drop(self.budgets.remove(key)),
            Kind::CostPolicy => drop(self.policies.remove(key)),
            Kind::Deployment => drop(self.groups.remove(key)),
            Kind::Node => drop(self.nodes.remove(key)),
            Kind::Pod => return self.pods.remove(key).is_some(),
        }
        false
    }

    /// A pod said what it serves, or is about to be asked. Gives whether it matters to the gateways at once.
    pub fn told(&mut self, uid: &str, known: Known, variant: Option<&str>) -> bool {
        let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid) else { return false };
        pod.known = known;
        let Some(variant) = variant.filter(|variant| *variant != pod.placement.variant) else { return false };
        variant.clone_into(&mut pod.placement.variant);
        true
    }

    /// What pods said is an assumption from now on, until they say it again.
    pub fn ask_anew(&mut self) {
        self.pods.values_mut().filter(|pod| pod.known == Known::Said).for_each(|pod| pod.known = Known::Assumed);
    }

    /// A pod starts with what its group is to serve then; what is known of it since stays known until it starts again.
    fn with_variant(&self, key: &str, pod: PodView) -> PodView {
        if !pod.placement.variant.is_empty() {
            return pod;
        }
        let before = self.pods.get(key).filter(|old| old.uid == pod.uid && old.restarts == pod.restarts);
        let (variant, known) = match before {
            Some(old) => (old.placement.variant.clone(), old.known),
            None => (self.around(&pod).map(|group| group.placement.variant.clone()).unwrap_or_default(), pod.known),
        };
        PodView { placement: Placement { variant, ..pod.placement }, known, ..pod }
    }

    /// Pods that were listed before their group learn what they started with.
    fn put_group(&mut self, key: String, group: GroupView) {
        let of_group = |pod: &&mut PodView| {
            pod.placement.variant.is_empty()
                && names::key(&pod.namespace, &names::group_name(&pod.model, &pod.placement)) == key
        };
        for pod in self.pods.values_mut().filter(of_group) {
            pod.placement.variant.clone_from(&group.placement.variant);
        }
        self.groups.insert(key, group);
    }

    /// Every replica. Those of a model that is gone cost something as long as they are there.
    pub fn replicas(&self) -> impl Iterator<Item = &PodView> {
        self.pods.values().filter(move |pod| self.around(pod).is_none_or(|group| group.owner.is_some()))
    }

    /// Pods of a model.
    pub fn pods_of<'a>(&'a self, namespace: &'a str, model: &'a str) -> impl Iterator<Item = &'a PodView> {
        let named = self.pods.values().filter(move |pod| pod.namespace == namespace && pod.model == model);
        named.filter(move |pod| self.around(pod).is_none_or(|group| self.controlled(group)))
    }

    /// Deployments of a model.
    pub fn groups_of<'a>(&'a self, namespace: &'a str, model: &'a str) -> impl Iterator<Item = &'a GroupView> {
        let named = self.groups.values().filter(move |group| group.namespace == namespace && group.model == model);
        named.filter(move |group| self.controlled(group))
    }

    /// The Deployment `namespace/name` of a (model, class, devices).
    #[must_use]
    pub fn group(&self, key: &str) -> Option<&GroupView> {
        self.groups.get(key).filter(|group| self.controlled(group))
    }

    /// The Deployment of a pod, if it is still there.
    fn around(&self, pod: &PodView) -> Option<&GroupView> {
        self.groups.get(&names::key(&pod.namespace, &names::group_name(&pod.model, &pod.placement)))
    }

    /// Whether the ModelDeployment that there is controls a Deployment, and not an older one of its name.
    fn controlled(&self, group: &GroupView) -> bool {
        let model = self.models.get(&names::key(&group.namespace, &group.model));
        group.owner.is_some() && model.is_none_or(|model| model.metadata.uid == group.owner)
    }

    fn keys(&self, kind: Kind) -> Vec<String> {
        let mut keys: Vec<String> = match kind {
            Kind::HardwareClass => self.classes.keys().cloned().collect(),
            Kind::ModelDeployment => self.models.keys().cloned().collect(),
            Kind::TokenBudget => self.budgets.keys().cloned().collect(),
            Kind::CostPolicy => self.policies.keys().cloned().collect(),
            Kind::Deployment => self.groups.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
        };
        keys.extend(self.invalid.keys().filter(|(of, _)| *of == kind).map(|(_, key)| key.clone()));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{group, model, pod, ready_pod};
    use super::*;

    fn applied(index: &mut Index, name: &str) {
        let object = Object::ModelDeployment(Arc::new(model("demo", name)));
        index.apply(Kind::ModelDeployment, format!("demo/{name}"), object);
    }

    #[test]
    fn synced_once_every_kind_is_listed() {
        let mut index = Index::default();
        for kind in Kind::ALL {
            assert!(!index.synced());
            index.begin(kind);
            index.done(kind);
        }
        assert!(index.synced());
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let mut index = Index::default();
        index.begin(Kind::ModelDeployment);
        applied(&mut index, "a");
        applied(&mut index, "b");
        index.done(Kind::ModelDeployment);
        index.begin(Kind::ModelDeployment);
        applied(&mut index, "b");
        assert_eq!(index.models.len(), 2, "nothing goes before the list is complete");
        index.done(Kind::ModelDeployment);
        assert_eq!(index.models.keys().collect::<Vec<_>>(), ["demo/b"]);
    }

    #[test]
    fn an_unreadable_object_leaves_its_last_readable_self_in_force() {
        let mut index = Index::default();
        applied(&mut index, "a");
        index.apply(Kind::ModelDeployment, "demo/a".into(), Object::Invalid("missing field".into()));
        assert_eq!(index.models.keys().collect::<Vec<_>>(), ["demo/a"]);
        assert_eq!(index.invalid.values().collect::<Vec<_>>(), ["missing field"]);
        applied(&mut index, "a");
        assert!(index.invalid.is_empty());
        index.apply(Kind::ModelDeployment, "demo/a".into(), Object::Invalid("missing field".into()));
        index.delete(Kind::ModelDeployment, "demo/a");
        assert!(index.invalid.is_empty() && index.models.is_empty());
    }

    #[test]
    fn what_a_model_does_not_control_is_not_its_own() {
        let mut index = Index::default();
        let ours = |index: &Index| {
            let groups = index.groups_of("demo", "chat").count();
            assert_eq!(index.group("demo/chat-cpu-1").is_some(), groups == 1);
            (groups, index.pods_of("demo", "chat").count(), index.replicas().count())
        };
        index.apply(Kind::Pod, "demo/p".into(), Object::Pod(pod("demo", "chat", "q4", "cpu", 1)));
        applied(&mut index, "chat");
        assert_eq!(ours(&index), (0, 1, 1), "its Deployment may be listed later");
        let own = |index: &mut Index, owner: Option<&str>| {
            let view = GroupView { owner: owner.map(str::to_owned), ..group("demo", "chat", "q4", "cpu", 1) };
            index.apply(Kind::Deployment, "demo/chat-cpu-1".into(), Object::Deployment(view));
        };
        own(&mut index, Some("uid-chat"));
        assert_eq!(ours(&index), (1, 1, 1));
        own(&mut index, None);
        assert_eq!(ours(&index), (0, 0, 0), "somebody else's");
        own(&mut index, Some("uid-before"));
        assert_eq!(ours(&index), (0, 0, 1), "of a deleted model of the same name, whose pods still cost");
        index.delete(Kind::ModelDeployment, "demo/chat");
        assert_eq!(ours(&index), (1, 1, 1));
    }

    #[test]
    fn a_pod_serves_what_its_group_was_to_serve_until_it_says_or_starts_again() {
        let mut index = Index::default();
        let apply = |index: &mut Index, restarts| {
            let silent = PodView { known: Known::Assumed, restarts, ..pod("demo", "chat", "", "cpu", 1) };
            index.apply(Kind::Pod, "demo/p".into(), Object::Pod(silent));
        };
        let to_serve = |index: &mut Index, variant: &str| {
            let group = Object::Deployment(group("demo", "chat", variant, "cpu", 1));
            index.apply(Kind::Deployment, "demo/chat-cpu-1".into(), group);
        };
        let serves = |index: &Index| {
            let pod = index.pods_of("demo", "chat").next().unwrap();
            (pod.placement.variant.clone(), pod.known)
        };
        apply(&mut index, 0);
        to_serve(&mut index, "q8");
        assert_eq!(serves(&index), ("q8".into(), Known::Assumed), "it was listed before its group");
        to_serve(&mut index, "q4");
        apply(&mut index, 0);
        assert_eq!(serves(&index), ("q8".into(), Known::Assumed));
        let uid = pod("demo", "chat", "", "cpu", 1).uid;
        assert!(!index.told(&uid, Known::Asked, None));
        assert!(index.told(&uid, Known::Said, Some("q2")), "gateways name the variant");
        apply(&mut index, 0);
        assert_eq!(serves(&index), ("q2".into(), Known::Said));
        index.ask_anew();
        assert_eq!(serves(&index), ("q2".into(), Known::Assumed), "another leader may have been at it");
        apply(&mut index, 1);
        assert_eq!(serves(&index), ("q4".into(), Known::Assumed), "it reads what it is to serve when it starts");
        assert!(!index.told("gone", Known::Said, Some("q8")));
    }

    #[test]
    fn gateways_hear_of_a_pod_when_its_service_changes() {
        let mut index = Index::default();
        let mut apply = |pod: PodView| index.apply(Kind::Pod, "demo/p".into(), Object::Pod(pod));
        assert!(apply(pod("demo", "chat", "q4", "cpu", 1)));
        assert!(!apply(pod("demo", "chat", "q4", "cpu", 1)));
        let ready = ready_pod("demo", "chat", "q4", "cpu", 1);
        assert!(apply(ready.clone()));
        assert!(apply(PodView { deleting: true, ..ready }));
        assert!(index.delete(Kind::Pod, "demo/p"));
    }
}
