//! The ledger: the book that budgets are kept in.
//!
//! ```text
//! gateway  ─ reserve, settle, release, extend ─▶ http ─▶ queue ─▶ writer ─▶ commands ─▶ book, window (pure)
//! operator ─ budgets, spend ───────────────────▶  │                 └─────────▶ store (SQLite, fsync) ─▶ answer
//!          ◀ balances, usage, spend ──────────────┴─▶ reader (committed rows only)
//! ```
//!
//! A request *attempt* holds an upper bound in every window of every budget that it names, all or none, and later
//! settles what it really used. At every step, per budget and window: settled + open holds + free = limit. The crate
//! decides nothing about requests, knows no price and calls nobody. Nothing is answered before it is on disk, and every
//! call can be sent again: the attempt's id makes it idempotent, other content under the same id is refused.
//!
//! # Rules of the book
//! * **Which window.** A hold, and what it settles, belongs for ever to the window in which it was *reserved*, also when
//!   it settles after the turn. So a window that has been admitted under its limit ends under it.
//! * **Partial holds.** Between `at_least` and `want`, unit by unit: as much as the tightest window affords. A unit of
//!   which nothing is wanted is not looked at.
//! * **Debt.** Settling more than was held makes free negative; it is carried until the window turns or, in a rolling
//!   one, until it has left. A lowered limit does the same. Nothing is clamped.
//! * **Leases.** A hold whose lease passes is charged in full (usage row with outcome `lease_expired`): nobody knows what
//!   was served. A later `settle` or `release` corrects it with a second row of the difference. `held` turns into
//!   `settled` at that moment, so how late the ledger notices changes no grant.
//! * **Ends.** An attempt ends once. A settlement of an unknown attempt is recorded in no budget. A release of an unknown
//!   attempt uses its id up, so that a reservation that it overtook on the way holds nothing.
//! * **Refusals** are not kept: the same id may be granted later. Unknown budgets refuse without a retry time.
//! * **Limits change, usage stays.** Sums are kept per budget and period: a new limit or a renamed window keeps them. A
//!   period that is new to a known budget counts what the budget used since the window began.
//! * **Calendar windows** follow the zone's clock: a day has 23 or 25 hours where it has, and an hour that a change of the
//!   clock cuts is two windows. **Rolling windows** move on in [`limits::ROLLING_SLOTS`] parts: usage leaves at most one
//!   part late, never early.
//! * **Usage rows** are append-only; per attempt they add up to its charge, per budget to what its windows have settled.
//! * **Spend** is cumulative per pod and hour; the largest figure wins. The book knows how far each pod is metered, so that
//!   a new operator prices no hour again. Budgets and spend are fenced by one epoch.
//! * **One ledger per data directory**, which a file lock sees to. The token is read at start: restart to change it.
//!
//! # Where to read next
//! [`window`] and [`book`] are the arithmetic, [`commands`] the calls, [`store`] what a database must do, [`sqlite`] the
//! one that does, [`writer`] the group commit, [`http`] the API, [`limits`] every bound.
#![forbid(unsafe_code)]

pub mod args;
pub mod auth;
pub mod book;
pub mod clock;
pub mod commands;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod reader;
pub mod server;
pub mod sqlite;
pub mod store;
pub mod window;
pub mod writer;
