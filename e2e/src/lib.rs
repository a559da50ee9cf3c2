//! quartermaster-e2e
