//! Index + memory + keys → the snapshot. Pure.

use crate::budgets::chain;
use crate::keys::Keys;
use crate::limits;
use crate::state::{Index, Memory, PodView, snapshot as state};
use kube::ResourceExt;
use quartermaster_core::units::{Millis, Tokens};
use quartermaster_core::wire::gateway::{ApiKey, Endpoint, GatewaySnapshot, ModelRoute, TokenLimits, TokenizerRef};
use quartermaster_crds::v1alpha1::ModelDeployment;
use std::collections::BTreeMap;

/// A wake may take so many start-ups before a request gives up.
const WAKE_FACTOR: i64 = 3;
/// And so much more, for the tick and the scheduler.
const WAKE_SLACK: Millis = Millis(30_000);

/// Everything that the snapshot is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Fencing epoch.
    pub epoch: u64,
    /// The cluster.
    pub index: &'a Index,
    /// What is remembered.
    pub memory: &'a Memory,
    /// API keys.
    pub keys: &'a Keys,
}

/// The snapshot, without its version.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> GatewaySnapshot {
    let living = inputs.index.models.iter().filter(|(_, model)| model.metadata.deletion_timestamp.is_none());
    GatewaySnapshot {
        epoch: inputs.epoch,
        version: 0,
        key_salt: inputs.keys.salt.clone(),
        models: living.map(|(key, model)| (key.clone(), route(inputs, key, model))).collect(),
        keys: keys(inputs),
    }
}

fn route(inputs: &Inputs<'_>, key: &str, model: &ModelDeployment) -> ModelRoute {
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let remembered = inputs.memory.models.get(key);
    let retiring = |pod: &PodView| {
        let group = (pod.placement.class.clone(), pod.placement.devices);
        remembered.is_some_and(|model| model.retiring.contains_key(&group))
    };
    let serving =
        inputs.index.pods_of(&namespace, &name).filter(|pod| pod.ready_since.is_some() && pod.finished_at.is_none());
    let slots = u32::try_from(model.spec.serving.parallel_requests).unwrap_or(1);
    let mut endpoints: Vec<Endpoint> = serving
        .filter_map(|pod| {
            Some(Endpoint {
                address: pod.address()?,
                pod: pod.name.clone(),
                variant: pod.placement.variant.clone(),
                hardware_class: pod.placement.class.clone(),
                slots,
                draining: pod.deleting || retiring(pod),
            })
        })
        .collect();
    endpoints.sort_by(|a, b| a.pod.cmp(&b.pod));
    let serves = endpoints.iter().any(|endpoint| !endpoint.draining);
    ModelRoute {
        public_name: model.spec.model.clone(),
        limits: token_limits(model),
        tokenizer: tokenizer(remembered.and_then(|model| model.tokenizer.clone()), &endpoints),
        wake_deadline: wake_deadline(inputs, key, model),
        unavailable_because: (!serves).then(|| unavailable(inputs, key)),
        endpoints,
        namespace,
        name,
    }
}

fn token_limits(model: &ModelDeployment) -> TokenLimits {
    let tokens = |count: i64| Tokens(u64::try_from(count).unwrap_or(0));
    let limits = model.spec.tokens.as_ref().and_then(|tokens| tokens.limits.clone()).unwrap_or_default();
    let context = model.spec.serving.context_tokens;
    TokenLimits {
        max_prompt: limits.max_prompt_tokens.map(tokens),
        max_completion: limits.max_completion_tokens.map(tokens),
        max_context: tokens(limits.max_context_tokens.map_or(context, |most| most.min(context))),
    }
}

/// The tokenizer with the addresses of replicas that are up now.
fn tokenizer(known: Option<TokenizerRef>, endpoints: &[Endpoint]) -> Option<TokenizerRef> {
    let urls = endpoints.iter().filter(|endpoint| !endpoint.draining).take(limits::TOKENIZER_URLS_MAX);
    let urls = urls.map(|endpoint| format!("http://{}/tokenizer", endpoint.address)).collect();
    known.map(|known| TokenizerRef { urls, ..known })
}

/// How long a request may wait for the first replica: a few of the slowest start-ups that the spec allows.
fn wake_deadline(inputs: &Inputs<'_>, key: &str, model: &ModelDeployment) -> Millis {
    let planned =
        inputs.memory.models.get(key).and_then(|model| model.plan.as_ref()).and_then(|plan| plan.serve.clone());
    let declared = model.spec.variants.iter().flat_map(|variant| {
        variant.hardware.iter().map(|hardware| quartermaster_core::snapshot::Placement {
            variant: variant.name.clone(),
            class: hardware.class.clone(),
            devices: u32::try_from(hardware.devices_per_replica).unwrap_or(1),
        })
    });
    let candidates: Vec<_> = planned.map_or_else(|| declared.collect(), |planned| vec![planned]);
    let startups = candidates.iter().map(|placement| state::startup(inputs.index, inputs.memory, key, placement));
    let longest = startups.max().unwrap_or(limits::STARTUP_DEFAULT);
    Millis(longest.0.saturating_mul(WAKE_FACTOR)).saturating_add(WAKE_SLACK)
}

fn unavailable(inputs: &Inputs<'_>, key: &str) -> String {
    let plan = inputs.memory.models.get(key).and_then(|model| model.plan.as_ref());
    match plan {
        None => "the model is new and not planned yet".to_owned(),
        Some(plan) if plan.groups.iter().any(|group| group.replicas > 0) => "its replicas are starting".to_owned(),
        Some(plan) => plan.reason.to_string(),
    }
}

/// Keys with the budgets that pay. One that two budgets claim is given to none: nobody could say who pays.
fn keys(inputs: &Inputs<'_>) -> BTreeMap<String, ApiKey> {
    let owners = inputs.keys.owners();
    let mut keys = BTreeMap::new();
    for (budget, found) in &inputs.keys.found {
        let Some(object) = inputs.index.budgets.get(budget) else { continue };
        let (budgets, _) = chain(&inputs.index.budgets, budget);
        for key in found.iter().filter(|key| owners.get(key.hash.as_str()).is_some_and(|all| all.len() == 1)) {
            let namespace = object.namespace().unwrap_or_default();
            let owner = ApiKey { namespace, subject: key.subject.clone(), budgets: budgets.clone() };
            keys.insert(key.hash.clone(), owner);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Found;
    use crate::state::fixtures::{budget, class, model, ready_pod};
    use crate::state::{Kind, Object};
    use std::sync::Arc;

    fn index() -> Index {
        let mut index = Index::default();
        index.apply(Kind::HardwareClass, "cpu-small".into(), Object::HardwareClass(Arc::new(class("cpu-small"))));
        for name in ["chat", "idle"] {
            let object = Object::ModelDeployment(Arc::new(model("demo", name)));
            index.apply(Kind::ModelDeployment, format!("demo/{name}"), object);
        }
        for budget in [budget("demo", "leaf", "team-key", Some("team")), budget("demo", "team", "none", None)] {
            index.apply(
                Kind::TokenBudget,
                format!("demo/{}", budget.name_any()),
                Object::TokenBudget(Arc::new(budget)),
            );
        }
        let mut put = |name: &str, change: fn(&mut PodView)| {
            let mut pod = ready_pod("demo", "chat", "q4", "cpu-small", 1);
            pod.name = name.into();
            change(&mut pod);
            index.apply(Kind::Pod, format!("demo/{name}"), Object::Pod(pod));
        };
        put("c-ready", |_| {});
        put("b-starting", |pod| pod.ready_since = None);
        put("a-leaving", |pod| pod.deleting = true);
        put("d-v6", |pod| pod.ip = Some("fd00::7".into()));
        index
    }

    fn keys(owners: &[&str]) -> Keys {
        let found = || vec![Found { hash: "abcd".into(), subject: "demo/team-key".into() }];
        let found = owners.iter().map(|owner| ((*owner).to_owned(), found())).collect();
        Keys { salt: "00ff".into(), found, ..Keys::default() }
    }

    fn memory() -> Memory {
        let mut memory = Memory::default();
        let known = TokenizerRef { hash: "feed".into(), urls: vec!["http://gone/tokenizer".into()] };
        memory.models.entry("demo/chat".into()).or_default().tokenizer = Some(known);
        memory
    }

    #[test]
    fn a_snapshot() {
        let (index, memory, keys) = (index(), memory(), keys(&["demo/leaf"]));
        insta::assert_json_snapshot!(build(&Inputs { epoch: 7, index: &index, memory: &memory, keys: &keys }));
    }

    #[test]
    fn a_retiring_group_drains_before_it_goes() {
        let (index, mut memory) = (index(), memory());
        let retiring = [(("cpu-small".to_owned(), 1), Millis(0))].into();
        memory.models.entry("demo/chat".into()).or_default().retiring = retiring;
        let route =
            build(&Inputs { epoch: 7, index: &index, memory: &memory, keys: &Keys::default() }).models["demo/chat"]
                .clone();
        assert!(route.endpoints.iter().all(|endpoint| endpoint.draining));
        assert!(route.unavailable_because.is_some());
    }

    #[test]
    fn a_key_of_two_budgets_is_nobodys() {
        let (index, memory, keys) = (index(), memory(), keys(&["demo/leaf", "demo/team"]));
        assert!(build(&Inputs { epoch: 7, index: &index, memory: &memory, keys: &keys }).keys.is_empty());
    }
}
