//! What the binaries say to each other: operator → gateway, gateway ↔ ledger, operator → inference pod.
//!
//! All of it is JSON. Readers ignore fields that they do not know, so an older reader survives a newer writer.

pub mod gateway;
pub mod ledger;
pub mod serve;
