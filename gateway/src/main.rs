//! quartermaster-gateway
fn main() {}
