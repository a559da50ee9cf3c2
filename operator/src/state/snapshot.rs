//! Index + memory + readings + time → the value that a decision is made of. Pure.

mod classes;
mod replicas;

pub use classes::hardware;

use super::{Described, Failed, Index, Kind, Memory, PodView, Refusal};
use crate::build::{Fault, Settings, Source};
use crate::telemetry::Readings;
use crate::telemetry::signals::{self, Blind, Witness};
use crate::{calendar, limits};
use kube::ResourceExt;
use quartermaster_core::snapshot::{
    Candidate, Ceiling, HardwareClass, Load, Model, Objective, Placement, SNAPSHOT_FORMAT, Snapshot,
};
use quartermaster_core::units::{Millis, NanoUsd, QualityPpm};
use quartermaster_core::wire::ledger::CalendarUnit;
use quartermaster_crds::v1alpha1::cost_policy::{Mode, Scope};
use quartermaster_crds::v1alpha1::model_deployment::{EngineKind, Format, Hardware, ObjectiveKind, Variant};
use quartermaster_crds::v1alpha1::{CostPolicy, ModelDeployment, Period};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that a snapshot is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The cluster.
    pub index: &'a Index,
    /// What is remembered.
    pub memory: &'a Memory,
    /// What replicas and gateways said.
    pub readings: &'a Readings,
    /// Hardware classes of the snapshot before: what runs on one that was deleted keeps its price.
    pub last_classes: &'a BTreeMap<String, HardwareClass>,
    /// From the command line.
    pub settings: &'a Settings,
    /// The operator's own namespace.
    pub namespace: &'a str,
    /// A reading older than this is none.
    pub fresh_for: Millis,
    /// The tick's instant.
    pub now: Millis,
}

impl<'a> Inputs<'a> {
    /// What pods would be now.
    #[must_use]
    pub fn described(&self) -> Described<'a> {
        Described { index: self.index, memory: self.memory, settings: self.settings, now: self.now }
    }
}

/// A snapshot, and what the plan does not need but status does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// For the decision.
    pub snapshot: Snapshot,
    /// Why a model's load is not known.
    pub blind: BTreeMap<String, Blind>,
    /// What each model has cost in the period of a ceiling, in the order of the ceilings.
    pub settled: Vec<Arc<BTreeMap<String, NanoUsd>>>,
    /// Ceilings whose settled sum is not known, by `namespace/name` of the policy.
    pub unknown: BTreeMap<String, String>,
}

/// The snapshot of this instant.
#[must_use]
pub fn build(inputs: &Inputs<'_>) -> Seen {
    let mut seen = Seen::default();
    seen.snapshot.format = SNAPSHOT_FORMAT;
    seen.snapshot.now = inputs.now;
    seen.snapshot.classes = classes::classes(inputs);
    let mut hidden: Vec<(Option<String>, String)> = Vec::new();
    for (key, policy) in &inputs.index.policies {
        ceilings(inputs, key, policy, &mut seen, &mut hidden);
    }
    hidden.extend(unread_policies(inputs));
    for (key, object) in inputs.index.models.iter().filter(|(_, model)| model.metadata.deletion_timestamp.is_none()) {
        let namespace = object.namespace().unwrap_or_default();
        let binds = |(of, _): &&(Option<String>, String)| of.as_ref().is_none_or(|of| *of == namespace);
        let load = match hidden.iter().find(binds) {
            Some((_, why)) => Err(Blind::Missing(why.clone())),
            None => priced(inputs, object, &seen.snapshot.classes).and_then(|()| load(inputs, key, object)),
        };
        let model = model(inputs, key, object, load.as_ref());
        seen.snapshot.models.insert(key.clone(), model);
        if let Err(blind) = load {
            seen.blind.insert(key.clone(), blind);
        }
    }
    seen.snapshot.orphans = replicas::orphans(inputs, &seen.snapshot.models);
    seen
}

/// The calendar's unit of a period.
#[must_use]
pub fn unit(period: Period) -> CalendarUnit {
    match period {
        Period::Minute => CalendarUnit::Minute,
        Period::Hour => CalendarUnit::Hour,
        Period::Day => CalendarUnit::Day,
        Period::Week => CalendarUnit::Week,
        Period::Month => CalendarUnit::Month,
        Period::Quarter => CalendarUnit::Quarter,
        Period::Year => CalendarUnit::Year,
    }
}

/// The namespace that a policy binds (none: all of them), or none where it may not.
#[must_use]
pub fn bound(policy: &CostPolicy, own: &str) -> Option<Option<String>> {
    match policy.spec.scope {
        Scope::Namespace => Some(policy.namespace()),
        Scope::Cluster => (policy.namespace().as_deref() == Some(own)).then_some(None),
    }
}

/// Policies that were never readable: what they bind is not known, so nothing new starts where they may.
fn unread_policies(inputs: &Inputs<'_>) -> Vec<(Option<String>, String)> {
    let unread = inputs.index.invalid.iter().filter(|((kind, _), _)| *kind == Kind::CostPolicy);
    let never_read = unread.filter(|((_, key), _)| !inputs.index.policies.contains_key(key));
    never_read
        .map(|((_, key), why)| {
            let namespace = key.split('/').next().filter(|namespace| *namespace != inputs.namespace);
            (namespace.map(str::to_owned), format!("CostPolicy {key} can't be read: {why}"))
        })
        .collect()
}

/// Adds a policy's ceilings. One whose settled sum is not known hides its models: nothing new starts under it.
fn ceilings(
    inputs: &Inputs<'_>,
    key: &str,
    policy: &CostPolicy,
    seen: &mut Seen,
    hidden: &mut Vec<(Option<String>, String)>,
) {
    let Some(namespace) = bound(policy, inputs.namespace) else { return };
    let enforced = policy.spec.mode == Mode::Enforce;
    for ceiling in &policy.spec.ceilings {
        let span = calendar::period(unit(ceiling.period.into()), &ceiling.time_zone, inputs.now);
        let why = match (span, ceiling.amount.nanos()) {
            (Err(error), _) => error.to_string(),
            (_, Err(error)) => error.to_string(),
            (Ok((start, period_end)), Ok(amount)) => {
                if let Some(settled) = inputs.memory.settled(namespace.as_deref(), start, inputs.now) {
                    let (amount, policy) = (NanoUsd(amount), key.to_owned());
                    let period = format!("{:?}", ceiling.period);
                    let namespace = namespace.clone();
                    seen.settled.push(Arc::clone(&settled.models));
                    seen.snapshot.ceilings.push(Ceiling {
                        policy,
                        period,
                        namespace,
                        amount,
                        settled: settled.amount,
                        period_end,
                        enforced,
                    });
                    continue;
                }
                let because = inputs.memory.ledger_failed.as_deref().unwrap_or("the ledger has not answered yet");
                format!("the spend under CostPolicy {key} is not known: {because}")
            }
        };
        seen.unknown.insert(key.to_owned(), why.clone());
        if enforced {
            hidden.push((namespace.clone(), why));
        }
    }
}

/// What serves at a price that is not known is held: nothing may start beside it, and nothing says that it is idle.
fn priced(
    inputs: &Inputs<'_>,
    object: &ModelDeployment,
    classes: &BTreeMap<String, HardwareClass>,
) -> Result<(), Blind> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let mut ready = inputs.index.pods_of(&namespace, &name).filter(|pod| pod.ready());
    let unpriced = ready.find(|pod| !classes.contains_key(&pod.placement.class));
    unpriced.map_or(Ok(()), |pod| {
        let class = &pod.placement.class;
        Err(Blind::Missing(format!("there is no HardwareClass {class}: what its replicas cost is not known")))
    })
}

fn load(inputs: &Inputs<'_>, key: &str, object: &ModelDeployment) -> Result<Load, Blind> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let ready = inputs.index.pods_of(&namespace, &name).filter(|pod| pod.ready());
    let witnesses: Vec<Witness> = ready.map(|pod| Witness { uid: pod.uid.clone(), name: pod.name.clone() }).collect();
    let awake = inputs.memory.awake(key, inputs.now);
    match signals::load(inputs.readings, key, &witnesses, inputs.now, inputs.fresh_for) {
        Ok(load) if awake && load.running == 0 => Ok(Load { waiting: load.waiting.max(1), ..load }),
        // A gateway that asks for a model at zero is a signal of its own, and there is no replica to be blind about.
        Err(_) if awake && witnesses.is_empty() => Ok(Load { waiting: 1, ..Load::default() }),
        seen => seen,
    }
}

fn model(inputs: &Inputs<'_>, key: &str, object: &ModelDeployment, load: Result<&Load, &Blind>) -> Model {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let remembered = inputs.memory.models.get(key).cloned().unwrap_or_default();
    let spec = &object.spec;
    let scaling = &spec.scaling;
    let asleep = scaling.scale_to_zero.as_ref().filter(|zero| zero.enabled);
    Model {
        objective: match spec.objective.kind {
            ObjectiveKind::MinimizeCost => Objective::MinimizeCost,
            ObjectiveKind::MaximizeValue => Objective::MaximizeValue,
        },
        quality_floor: spec.quality_floor.as_ref().and_then(|floor| floor.millionths().ok()).map(QualityPpm),
        priority: natural(spec.priority),
        min: natural(scaling.min),
        max: natural(scaling.max),
        pinned: scaling.replicas.map(natural),
        idle_after: asleep.map(|zero| duration(&zero.idle_after)),
        scale_down_after: duration(&scaling.scale_down_after),
        candidates: candidates(inputs, key, object),
        groups: inputs.index.groups_of(&namespace, &name).map(|each| replicas::group(inputs, key, each)).collect(),
        load: load.ok().copied(),
        blind_because: load.err().map(|blind| blind.sentence().to_owned()),
        needs: remembered.needs.into_iter().collect(),
        observed_since: remembered.observed_since.unwrap_or(inputs.now),
        namespace,
        name,
    }
}

fn natural(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// A duration of a spec. The schema lets nothing else through, so zero is never read from a bad text.
fn duration(text: &quartermaster_crds::Duration) -> Millis {
    Millis(text.millis().ok().and_then(|millis| i64::try_from(millis).ok()).unwrap_or(0))
}

/// Every variant on every hardware of the spec, in its order.
fn candidates(inputs: &Inputs<'_>, key: &str, object: &ModelDeployment) -> Vec<Candidate> {
    let each = object
        .spec
        .variants
        .iter()
        .flat_map(|variant| variant.hardware.iter().map(move |hardware| (variant, placed(variant, hardware))));
    let candidates = each.map(|(variant, placement)| Candidate {
        quality: QualityPpm(variant.quality.score.millionths().unwrap_or(0)),
        quality_high: quality_high(variant),
        unusable: unusable(inputs, key, object, variant, &placement),
        capacity: inputs.memory.models.get(key).and_then(|model| model.capacity.get(&placement)).copied(),
        placement,
    });
    candidates.collect()
}

fn quality_high(variant: &Variant) -> QualityPpm {
    let quality = &variant.quality;
    let high = quality.interval.as_ref().map_or(&quality.score, |interval| &interval.high);
    QualityPpm(high.millionths().unwrap_or(0))
}

fn placed(variant: &Variant, hardware: &Hardware) -> Placement {
    Placement {
        variant: variant.name.clone(),
        class: hardware.class.clone(),
        devices: natural(hardware.devices_per_replica).max(1),
    }
}

/// Why a candidate can't run. That its class does not exist is the plan's to say.
fn unusable(
    inputs: &Inputs<'_>,
    key: &str,
    object: &ModelDeployment,
    variant: &Variant,
    placement: &Placement,
) -> Option<String> {
    if object.spec.engine.kind != EngineKind::Bundled {
        return Some(format!("spec.engine.kind {:?} is not implemented in this version", object.spec.engine.kind));
    }
    if variant.format != Format::GGUF {
        return Some(format!("spec.variants[{}].format {:?} is not implemented", variant.name, variant.format));
    }
    if let Err(error) = Source::parse(&variant.source) {
        return Some(format!("spec.variants[{}].{error}", variant.name));
    }
    let class = inputs.index.classes.get(&placement.class)?;
    if !class.spec.bundled_engine_computes_on_it() {
        let (name, kind) = (&placement.class, class.spec.accelerator.kind);
        return Some(format!(
            "HardwareClass {name} is of kind {kind:?}, not implemented: the engine computes on the CPU"
        ));
    }
    inputs.described().failed(key, placement).map(|failed| format!("{}: {}", failed.reason, failed.message))
}

/// Start-up time to expect: measured, else what the class declares, else the default.
#[must_use]
pub fn startup(index: &Index, memory: &Memory, key: &str, placement: &Placement) -> Millis {
    let measured = memory.models.get(key).and_then(|model| model.startup(placement));
    let declared = || {
        let startup = index.classes.get(&placement.class)?.spec.startup.clone()?;
        let parts = [startup.provision, startup.pull, startup.load].into_iter().flatten();
        Some(parts.map(|part| duration(&part)).fold(Millis::ZERO, Millis::saturating_add))
    };
    measured.or_else(declared).unwrap_or(limits::STARTUP_DEFAULT)
}

/// How long the needs of a model matter.
#[must_use]
pub fn span(model: &ModelDeployment) -> Millis {
    let scaling = &model.spec.scaling;
    let idle = scaling.scale_to_zero.as_ref().map_or(Millis::ZERO, |zero| duration(&zero.idle_after));
    duration(&scaling.scale_down_after).max(idle)
}

/// What broke: failures of pods whose placement has no pod that serves, into memory.
pub fn note_failures(index: &Index, settings: &Settings, now: Millis, memory: &mut Memory) {
    for (key, placement, failed) in failures(&Described { index, memory, settings, now }) {
        memory.models.entry(key).or_default().failures.insert(placement, failed);
    }
}

/// A replica could not be told to serve a variant: like one that does not start, but it keeps no pod from starting.
pub fn note_refusal(index: &Index, settings: &Settings, now: Millis, memory: &mut Memory, refusal: Refusal) {
    let Refusal { model, placement, generation, message } = refusal;
    let current = |object: &&Arc<ModelDeployment>| object.metadata.generation.unwrap_or(0) == generation;
    let Some(_) = index.models.get(&model).filter(current) else { return };
    let described = Described { index, memory, settings, now };
    let Some(config_hash) = described.alone(&model, &placement) else { return };
    let failed = Failed {
        reason: quartermaster_crds::condition::Reason::EngineFailing,
        message,
        fault: Fault::Swap,
        config_hash,
        generation,
        at: now,
    };
    memory.models.entry(model).or_default().failures.insert(placement, failed);
}

fn failures(described: &Described<'_>) -> Vec<(String, Placement, Failed)> {
    let mut found = Vec::new();
    for (key, object) in &described.index.models {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let pods: Vec<&PodView> = described.index.pods_of(&namespace, &name).filter(|pod| pod.live()).collect();
        for pod in &pods {
            let Some(failure) = &pod.failure else { continue };
            let variant = failure.variant.clone().unwrap_or_else(|| pod.placement.variant.clone());
            let placement = Placement { variant, ..pod.placement.clone() };
            let serves = pods.iter().any(|other| other.placement == placement && other.ready());
            // A file that nobody is served from: as long as others serve, it may be a bad moment of its registry.
            let unasked = placement != pod.placement && pods.iter().any(|other| other.ready());
            let blip = unasked && described.now.since(pod.created) < limits::FILE_GRACE;
            let waits = failure.reason == quartermaster_crds::condition::Reason::Unschedulable
                && failure.since.is_none_or(|since| described.now.since(since) < limits::UNSCHEDULABLE_AFTER);
            let group = described.group(key, &pod.placement);
            let expected = described.hash(key, group.map_or(&pod.placement, |group| &group.placement));
            if serves || blip || waits || expected.as_deref() != Some(&pod.config_hash) {
                continue;
            }
            let Some(config_hash) = described.alone(key, &placement) else { continue };
            let failed = Failed {
                reason: failure.reason,
                message: failure.message.clone(),
                fault: Fault::Start,
                config_hash,
                generation: object.metadata.generation.unwrap_or(0),
                at: described.now,
            };
            found.push((key.clone(), placement, failed));
        }
    }
    found
}

#[cfg(test)]
mod tests;
