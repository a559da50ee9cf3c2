//! `evaluate`: how good the answers of an OpenAI endpoint are, at how many tokens, on tasks whose answers are exact.
//!
//! ```text
//! items ─▶ ask: every item at every budget ─▶ outcomes (JSON) ─▶ report: curves with intervals, pictures, tables, cards
//!            └ verify: right or not           └ cost by the price book
//! ```

mod ask;
mod cards;
mod claims;
mod curves;
mod example;
mod items;
mod journal;
mod outcome;
mod picture;
mod prices;
mod report;
mod served;
mod statistics;
mod tables;
#[cfg(test)]
mod tests;
mod training;
mod verify;

pub use ask::{Asking, CHOICES_MAX, run};
pub use items::{Item, load};
pub use journal::Journal;
pub use outcome::{Outcome, Run, ServedFile};
pub use prices::{Price, PriceBook};
pub use report::{Targets, report};
pub use served::Served;
