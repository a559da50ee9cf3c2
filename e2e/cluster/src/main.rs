//! quartermaster-cluster
fn main() {}
