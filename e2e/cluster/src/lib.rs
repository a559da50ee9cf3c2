//! A real Kubernetes on one bare machine, for tests and the demo.
//!
//! In the way of data this crate stands before all others: it makes the cluster that they run on, and so depends on
//! nothing of ours. It may not touch the host's network, mounts or services: all it starts lives in namespaces that
//! end with their first process, and what it must make outside (one link, one cgroup, one state folder) it can find
//! again by name. Read on in `lifecycle` (up and down), then `namespace`, `component`, `cluster` (the handle for tests).

pub mod addresses;
pub mod build;
mod cgroups;
pub mod cli;
pub mod cluster;
pub mod component;
mod config;
mod defaults;
pub mod existing;
pub mod images;
pub mod kwok;
mod layout;
pub mod lifecycle;
mod limits;
mod namespace;
mod network;
pub mod oci_image;
mod pki;
mod prerequisites;
pub mod process;
mod progress;

pub use cluster::Cluster;
pub use component::Component;
pub use kwok::KwokNodes;
pub use lifecycle::Options;
