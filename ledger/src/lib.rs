//! quartermaster-ledger
