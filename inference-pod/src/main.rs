//! quartermaster-inference-pod
fn main() {}
