//! Every bound of the ledger, with why.

use quartermaster_core::units::Millis;
use std::time::Duration;

/// Commands that wait for the writer. Beyond it callers get 503: a longer queue would only be answered too late.
pub const QUEUE: usize = 4096;
/// Commands in one transaction. Bounds how long the first waits for the last.
pub const BATCH: usize = 512;
/// Lapsed holds that are settled in one transaction, so that a great many don't delay the callers.
pub const LAPSED_PER_BATCH: u32 = 256;
/// How often lapsed holds are looked for while nobody calls.
pub const TICK: Duration = Duration::from_millis(500);
/// How often sums that no rolling window needs any more are deleted.
pub const PRUNE_EVERY: Millis = Millis(60_000);
/// A rolling window's sum stays this long after it has left the window.
pub const PRUNE_AFTER: Millis = Millis(2 * 86_400_000);

/// Bytes of a body that names one attempt.
pub const BODY: usize = 64 * 1024;
/// Bytes of a body that lists budgets or spend.
pub const BODY_LIST: usize = 8 * 1024 * 1024;
/// Longest that a request may take, the wait for the writer included.
pub const REQUEST: Duration = Duration::from_secs(10);
/// What a caller is told to wait when the queue is full or the store fails.
pub const RETRY_AFTER_BUSY_S: u32 = 1;
/// Longest wait for open requests after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Characters of an attempt's id.
pub const ATTEMPT_CHARS: usize = 200;
/// Characters of a budget's or window's name: `namespace/name` of Kubernetes fits.
pub const NAME_CHARS: usize = 320;
/// Budgets of one attempt, leaf to root.
pub const BUDGETS_PER_ATTEMPT: usize = 16;
/// Budgets in all.
pub const BUDGETS: usize = 10_000;
/// Windows of one budget.
pub const WINDOWS: usize = 16;
/// Entries in one `POST /v1/spend`.
pub const SPEND_ENTRIES: usize = 20_000;
/// Models in one answer about spend, the costliest first.
pub const SPEND_MODELS: u32 = 10_000;
/// Pods in one answer about how far they are metered, the last metered first: more than a cluster runs at a time.
pub const METERED_PODS: u32 = 100_000;
/// Rows of one page of usage.
pub const USAGE_PAGE: u32 = 1000;
/// Most tokens in one attempt: far above any context, far below what a sum could overflow with.
pub const ATTEMPT_TOKENS: u64 = 1_000_000_000_000;
/// Most nano-USD in one attempt: a million dollars.
pub const ATTEMPT_NANO_USD: i64 = 1_000_000_000_000_000;
/// Longest lease: a hold whose owner is gone must not block a budget for longer than a day.
pub const LEASE: Millis = Millis(86_400_000);
/// Longest rolling window: ten years.
pub const ROLLING: Millis = Millis(10 * 366 * 86_400_000);
/// Parts that a rolling window moves on by. Usage leaves it late by at most this fraction, never early.
pub const ROLLING_SLOTS: i64 = 240;
/// Wait that is advised when only the open holds of others stand in the way: they settle any moment.
pub const RETRY_WHILE_HELD: Millis = Millis(1000);

/// Connections that read, beside the one that writes.
pub const READERS: usize = 2;
/// Pages of the log before it is folded into the database: 4 MiB.
pub const WAL_PAGES: u32 = 1000;
/// Wait for a lock of the database, which only a backup tool could hold.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
