//! quartermaster-core
