//! What the pods of a group would be, were they described now, and what speaks against a placement. Pure.

use super::{Failed, GroupView, Index, Memory};
use crate::build::{self, Settings, Shape, config_hash};
use crate::names;
use kube::ResourceExt;
use quartermaster_core::snapshot::Placement;
use quartermaster_core::units::Millis;

/// All that a description is made of.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// The cluster.
    pub index: &'a Index,
    /// What is remembered.
    pub memory: &'a Memory,
    /// From the command line.
    pub settings: &'a Settings,
    /// The tick's instant.
    pub now: Millis,
}

impl<'a> Described<'a> {
    /// The failure that keeps a placement from being tried. It is of what pods with its file alone would be, so that it
    /// holds whatever other files they have beside it.
    #[must_use]
    pub fn failed(&self, key: &str, placement: &Placement) -> Option<&'a Failed> {
        let remembered = self.memory.models.get(key)?;
        remembered.failures.get(placement)?;
        let generation = self.index.models.get(key)?.metadata.generation.unwrap_or(0);
        remembered.failed(placement, &self.alone(key, placement)?, generation, self.now)
    }

    /// Hash of pods that hold the file of this variant and no other.
    #[must_use]
    pub fn alone(&self, key: &str, placement: &Placement) -> Option<String> {
        self.hash_with(key, placement, std::slice::from_ref(&placement.variant))
    }

    /// The variants whose files the pods of a placement hold, in the order of the spec.
    #[must_use]
    pub fn files(&self, key: &str, placement: &Placement) -> Vec<String> {
        let Some(model) = self.index.models.get(key) else { return Vec::new() };
        // Without a replica there is nothing to keep.
        let live = self.group(key, placement).filter(|group| group.wanted > 0).map(|group| group.files.as_slice());
        build::files(model, placement, live, |on| self.failed(key, on).map(|failed| failed.fault))
    }

    /// Hash of the pods of a placement as they would be described now; none where they can't be.
    #[must_use]
    pub fn hash(&self, key: &str, placement: &Placement) -> Option<String> {
        self.hash_with(key, placement, &self.files(key, placement))
    }

    /// The group on the hardware of a placement, as it stands.
    #[must_use]
    pub fn group(&self, key: &str, placement: &Placement) -> Option<&'a GroupView> {
        let model = self.index.models.get(key)?;
        let name = names::group_name(&model.name_any(), placement);
        self.index.group(&names::key(&model.namespace().unwrap_or_default(), &name))
    }

    fn hash_with(&self, key: &str, placement: &Placement, files: &[String]) -> Option<String> {
        let (model, class) = (self.index.models.get(key)?, self.index.classes.get(&placement.class)?);
        config_hash(&Shape { model, class, placement, files, settings: self.settings }).ok()
    }
}
