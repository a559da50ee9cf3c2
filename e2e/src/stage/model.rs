//! What a scenario asks of a ModelDeployment.

use quartermaster_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

/// A ModelDeployment as it was read.
#[derive(Debug)]
pub struct Model {
    generation: Option<i64>,
    status: ModelDeploymentStatus,
}

impl From<ModelDeployment> for Model {
    fn from(model: ModelDeployment) -> Self {
        Self { generation: model.metadata.generation, status: model.status.unwrap_or_default() }
    }
}

impl Model {
    /// The status; empty before the operator wrote one.
    #[must_use]
    pub fn status(&self) -> &ModelDeploymentStatus {
        &self.status
    }

    /// `Ready=True` for the spec as it is.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status.observed_generation == self.generation
            && self.condition("Ready").is_some_and(|(status, ..)| status == "True")
    }

    /// Status, reason and message of a condition.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<(&str, &str, &str)> {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == kind)?;
        Some((&found.status, &found.reason, &found.message))
    }

    /// Whether it has one replica, and that serves.
    #[must_use]
    pub fn runs_one(&self) -> bool {
        self.status.replicas == 1 && self.status.ready_replicas == 1
    }

    /// The plan's sentence.
    #[must_use]
    pub fn plan_message(&self) -> &str {
        self.status.plan.as_ref().map_or("no plan yet", |plan| &plan.message)
    }

    /// Why a variant is served or not.
    #[must_use]
    pub fn verdict(&self, variant: &str) -> Option<&str> {
        self.status
            .considered
            .iter()
            .find(|considered| considered.variant == variant)
            .map(|found| found.message.as_str())
    }

    /// Whether a variant has a ready replica on a class.
    #[must_use]
    pub fn serves(&self, variant: &str, class: &str) -> bool {
        self.status.replicas_by_pool.iter().any(|pool| pool.variant == variant && pool.class == class && pool.ready > 0)
    }

    /// Whether a variant on a class has ready replicas and nothing else has any.
    #[must_use]
    pub fn only_serves(&self, variant: &str, class: &str) -> bool {
        let others = self
            .status
            .replicas_by_pool
            .iter()
            .any(|pool| (pool.variant != variant || pool.class != class) && pool.replicas > 0);
        self.serves(variant, class) && !others
    }
}
