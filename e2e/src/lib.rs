//! Scenarios on the real thing: a real Kubernetes, our chart, a real model, real requests.
//!
//! [`stage`] sets up, [`story`] is the demo (told by `demo`, asserted by `tests/`), [`load`] and [`trace`] make traffic,
//! [`openai`] is the client, [`bench`] measures speed and [`evaluate`] quality. Nothing here is part of the product; nothing here may be a mock of it.

pub mod bench;
pub mod evaluate;
pub mod load;
pub mod narrator;
pub mod openai;
pub mod stage;
pub mod story;
pub mod trace;
