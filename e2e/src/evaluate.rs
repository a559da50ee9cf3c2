//! `evaluate`: how good the answers of an OpenAI endpoint are, at how many tokens, on tasks whose answers are exact.
//!
//! ```text
//! items ─▶ ask: every item at every budget ─▶ outcomes (JSON) ─▶ report: curves with intervals, pictures, tables
//!            └ verify: right or not           └ cost by the price book
//! ```

mod ask;
mod items;
mod outcome;
mod picture;
mod prices;
mod report;
mod served;
mod statistics;
mod verify;

pub use ask::{Asking, run};
pub use items::{Item, load};
pub use outcome::{Outcome, Run};
pub use prices::PriceBook;
pub use report::report;
pub use served::Served;
