//! The Kubernetes API of Quartermaster: Rust types of the four kinds, and the YAML that is generated from them.
//!
//! In the way of data this crate stands first: people write these objects, the operator reads them and writes their
//! status. It does no I/O and knows no cluster; it depends on no other crate of ours.
//!
//! Read next: `v1alpha1/model_deployment/mod.rs` for the largest kind, `condition.rs` for how a status speaks,
//! `limits.rs` for every bound. The rules across fields are CEL in the attributes; `tests/cel/` has a case for each.

pub mod condition;
mod decimal;
mod duration;
mod field_path;
pub mod limits;
mod money;
mod number;
pub mod quantity;
pub mod render;
#[cfg(feature = "testing")]
pub mod testing;
#[expect(unreachable_pub, reason = "KubeSchema copies each struct, `pub` and all, into the body of a function")]
#[expect(clippy::duplicated_attributes, reason = "every printer column has a name and a path of its own")]
pub mod v1alpha1;

pub use decimal::Error as DecimalError;
pub use duration::{Duration, Error as DurationError};
pub use field_path::FieldPath;
pub use money::{Balance, Currency, Money};
pub use number::{Coefficient, Score};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "quartermaster.dev";

/// Every CustomResourceDefinition, as it is installed. The only list of them.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        v1alpha1::HardwareClass::crd(),
        v1alpha1::ModelDeployment::crd(),
        v1alpha1::TokenBudget::crd(),
        v1alpha1::CostPolicy::crd(),
    ]
    .map(render::tidy)
    .into()
}
