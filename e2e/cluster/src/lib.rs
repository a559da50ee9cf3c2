//! A real Kubernetes on one bare machine, for tests and the demo.

pub mod oci_image;
