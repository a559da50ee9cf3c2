//! quartermaster-operator
