//! quartermaster-crds
