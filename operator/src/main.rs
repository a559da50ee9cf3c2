//! quartermaster-operator
fn main() {}
