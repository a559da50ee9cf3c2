//! Writes statuses that are worth it, and announces what changed.

use super::needs_write;
use crate::actuate::{Announcer, Error, Guard, Note};
use crate::{limits, names};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource};
use quartermaster_core::units::Millis;
use quartermaster_crds::v1alpha1::TokenBudget;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A status as it should be.
#[derive(Clone, Debug)]
pub struct Draft {
    resource: ApiResource,
    object: ObjectReference,
    old: Value,
    new: Value,
    notes: Vec<Note>,
}

impl Draft {
    /// For `object`, whose status is `old` in the cluster.
    pub fn new<K, S>(object: &K, old: Option<&S>, new: &S, notes: Vec<Note>) -> serde_json::Result<Self>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let gvk = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
        let resource = ApiResource::from_gvk_with_plural(&gvk, &K::plural(&()));
        let old = old.map(serde_json::to_value).transpose()?.unwrap_or(Value::Null);
        let new = serde_json::to_value(new)?;
        Ok(Self { resource, object: object.object_ref(&()), old, new, notes })
    }

    fn key(&self) -> String {
        let (namespace, name) = (self.object.namespace.as_deref(), self.object.name.as_deref());
        format!("{} {}", self.resource.kind, names::key(namespace.unwrap_or_default(), name.unwrap_or_default()))
    }
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// It was not worth a write.
    Nothing,
    /// The status is written.
    Status,
}

/// What was last written, and when.
struct Last {
    uid: String,
    status: Value,
    at: Millis,
    /// What the last tick would have written.
    seen: Value,
}

/// What moves with time alone, also when nothing is spent.
const ESTIMATES: [&str; 2] = ["burnRateTokensPerHour", "exhaustedAt"];

/// How often a small change is worth a write. A budget's figures are compared with bills, so the last ones of a burst
/// don't wait as long as those that go on changing.
fn every(kind: &str, last: Option<&Last>, new: &Value) -> Millis {
    let stands = |last: &Last| same_figures(&last.seen, new) && !same_figures(&last.status, new);
    let still = kind == TokenBudget::kind(&()) && last.is_some_and(stands);
    if still { limits::STATUS_STILL } else { limits::STATUS_EVERY }
}

/// Whether two statuses differ in estimates at most.
fn same_figures(a: &Value, b: &Value) -> bool {
    figures(a).eq(figures(b))
}

fn figures(status: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = status.as_object().into_iter().flatten();
    fields.filter(|(field, _)| !ESTIMATES.contains(&field.as_str()))
}

/// The writer.
pub struct StatusWriter {
    client: Client,
    announcer: Announcer,
    last: BTreeMap<String, Last>,
}

impl StatusWriter {
    /// A writer that has written nothing yet.
    #[must_use]
    pub fn new(client: Client, announcer: Announcer) -> Self {
        Self { client, announcer, last: BTreeMap::new() }
    }

    /// Forgets what was written: another leader may have been at it.
    pub fn forget(&mut self) {
        self.last.clear();
    }

    /// Writes a status if it is worth it, then tells.
    pub async fn write(&mut self, draft: &Draft, guard: &Guard, now: Millis) -> Result<Wrote, Error> {
        let key = draft.key();
        let uid = draft.object.uid.clone().unwrap_or_default();
        // The watch may be behind our own last write.
        let last = self.last.get(&key).filter(|last| last.uid == uid);
        let old = last.map_or(&draft.old, |last| &last.status);
        let every = every(&draft.resource.kind, last, &draft.new);
        if !needs_write(old, &draft.new, last.map(|last| last.at), every, now) {
            if let Some(last) = self.last.get_mut(&key) {
                last.seen.clone_from(&draft.new);
            }
            return Ok(Wrote::Nothing);
        }
        let what = "writing the status of";
        guard.leads(what, &key)?;
        let name = draft.object.name.clone().unwrap_or_default();
        let api: Api<DynamicObject> = match draft.object.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &draft.resource),
            None => Api::all_with(self.client.clone(), &draft.resource),
        };
        let patch = json!({
            "apiVersion": draft.resource.api_version,
            "kind": draft.resource.kind,
            "metadata": {"name": name},
            "status": draft.new,
        });
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        crate::actuate::timely(what, &key, api.patch_status(&name, &parameters, &Patch::Apply(patch))).await?;
        self.last.insert(key, Last { uid, status: draft.new.clone(), at: now, seen: draft.new.clone() });
        for note in &draft.notes {
            self.announcer.announce(&draft.object, note).await;
        }
        Ok(Wrote::Status)
    }

    /// Forgets objects that are gone.
    pub fn keep(&mut self, drafts: &[Draft]) {
        let known: std::collections::BTreeSet<String> = drafts.iter().map(Draft::key).collect();
        self.last.retain(|key, _| known.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_stands_still_is_written_sooner() {
        let last =
            Last { uid: "u".into(), status: json!({"settled": 100}), at: Millis(0), seen: json!({"settled": 101}) };
        assert_eq!(every("TokenBudget", Some(&last), &json!({"settled": 101})), limits::STATUS_STILL);
        assert_eq!(every("TokenBudget", Some(&last), &json!({"settled": 102})), limits::STATUS_EVERY);
        assert_eq!(every("ModelDeployment", Some(&last), &json!({"settled": 101})), limits::STATUS_EVERY);
        assert_eq!(every("TokenBudget", None, &json!({})), limits::STATUS_EVERY);
    }

    #[test]
    fn estimates_neither_hold_a_write_back_nor_make_one() {
        let of = |settled: i64, rate: i64| json!({"settled": settled, "burnRateTokensPerHour": rate});
        let last = |status: Value, seen: Value| Last { uid: "u".into(), status, at: Millis(0), seen };
        let burst = last(of(100, 50), of(101, 60));
        assert_eq!(every("TokenBudget", Some(&burst), &of(101, 55)), limits::STATUS_STILL, "it stands still");
        let written = last(of(101, 60), of(101, 55));
        assert_eq!(every("TokenBudget", Some(&written), &of(101, 50)), limits::STATUS_EVERY, "only the estimate moves");
    }
}
