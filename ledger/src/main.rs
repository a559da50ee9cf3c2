//! quartermaster-ledger
fn main() {}
