//! What we know: the cluster as watched ([`Index`]), what we remember of it ([`Memory`]), and the value that a decision
//! is made of ([`snapshot`]).

mod burn;
mod described;
mod failure;
mod index;
pub mod informers;
mod memory;
mod nodes;
pub mod snapshot;
mod views;

#[cfg(test)]
pub(crate) mod fixtures;

pub use burn::{Burn, Pace};
pub use described::Described;
pub use failure::{Failure, failure};
pub use index::{Index, Kind, Object};
pub use memory::{Failed, Memory, Refusal, Settled};
pub use nodes::{NodeView, devices};
pub use views::{GroupView, Known, PodView};
