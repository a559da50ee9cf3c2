//! quartermaster-gateway
