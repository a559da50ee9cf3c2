//! quartermaster-cluster
