//! Every bound of the operator, with why.

use quartermaster_core::plan::DRAIN_TIME;
use quartermaster_core::units::Millis;
use std::time::Duration;

/// Life of the lease. A dead leader is replaced after so long.
pub const LEASE: Duration = Duration::from_secs(15);
/// The leader renews so often: two renewals may fail before it steps back.
pub const LEASE_RENEW: Duration = Duration::from_secs(4);
/// After its last renewal a leader acts for so long; less than [`LEASE`], so that two never act at once.
pub const LEASE_CLAIM: Duration = Duration::from_secs(10);
/// One call about the lease.
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(4);

/// One call to the API server. Begun at the end of a claim, it is over before another leader can act.
pub const API_TIMEOUT: Duration = Duration::from_secs(4);
const _: () = assert!(LEASE_CLAIM.as_secs() + API_TIMEOUT.as_secs() < LEASE.as_secs());
/// Writes to the API server at the same time.
pub const API_CONCURRENCY: usize = 8;
/// Objects of one kind in one page of a list.
pub const LIST_PAGE: u32 = 250;

/// One scrape of a pod or gateway.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Scrapes at the same time.
pub const SCRAPE_CONCURRENCY: usize = 32;
/// Largest page of metrics.
pub const SCRAPE_BYTES_MAX: usize = 4 << 20;
/// A reading older than so many ticks is no reading.
pub const SCRAPE_TICKS: i64 = 3;
/// Gateways behind one name.
pub const GATEWAYS_MAX: usize = 64;

/// One call to the ledger.
pub const LEDGER_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer of the ledger: every balance of every budget.
pub const LEDGER_ANSWER_BYTES_MAX: usize = 16 << 20;
/// Budgets are sent again so often, changed or not: a ledger that lost them gets them back.
pub const BUDGETS_EVERY: Millis = Millis::MINUTE;
/// A settled sum older than this is not known.
pub const SETTLED_FRESH: Millis = Millis(30_000);
/// A new leader meters so many past hours at most, where nobody did.
pub const SPEND_BACKFILL_HOURS: i64 = 48;
/// Prices of one pod that are told apart within what is not sent yet.
pub const PRICES_MAX: usize = 64;
/// Entries of one spend report.
pub const SPEND_ENTRIES_MAX: usize = 5_000;

/// A tokenizer bundle; a vocabulary of 256k entries with merges is about 20 MB.
pub const TOKENIZER_BYTES_MAX: usize = 64 << 20;
/// Fetch of a tokenizer bundle.
pub const TOKENIZER_TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas that are named as sources of one tokenizer.
pub const TOKENIZER_URLS_MAX: usize = 8;

/// Longest wait of a gateway for a newer snapshot.
pub const LONG_POLL: Duration = Duration::from_secs(25);
/// Changes of endpoints are gathered for so long before the gateways hear of them.
pub const PUBLISH_DEBOUNCE: Duration = Duration::from_millis(200);
/// Open connections to one of our servers.
pub const CONNECTIONS_MAX: usize = 256;
/// Largest body that is taken: none of our endpoints reads one.
pub const BODY_BYTES_MAX: usize = 1 << 10;
/// Wakes that wait for the next tick.
pub const WAKES_MAX: usize = 256;
/// A wake counts as one waiting request for so long; the gateway repeats it while it holds the request.
pub const WAKE_FRESH: Millis = Millis(15_000);

/// Past needs kept per model: 30 minutes of 5-second ticks, thinned where the window is longer.
pub const NEEDS_MAX: usize = 720;
/// Needs are kept for so long at least where memory allows.
pub const NEEDS_SPAN: Millis = Millis(24 * 3_600_000);
/// Start-ups remembered per placement.
pub const STARTUPS_MAX: usize = 20;
/// Pods whose start-up has been counted.
pub const SEEN_PODS_MAX: usize = 10_000;
/// Past decisions kept per model.
pub const DECISIONS_MAX: usize = 10;
/// A placement that failed is tried again after so long.
pub const FAILURE_BACKOFF: Millis = Millis(10 * 60_000);
/// A pod without a node is a failure after so long: the cluster may be adding one.
pub const UNSCHEDULABLE_AFTER: Millis = Millis(5 * 60_000);
/// A file that nobody is served from keeps new pods from starting for so long before it is left out, while others serve:
/// leaving it out replaces them all.
pub const FILE_GRACE: Millis = Millis(3 * 60_000);
/// Restarts of an engine that count as failing.
pub const RESTARTS_FAILING: i32 = 3;
/// A replica that served for so long before it was killed for memory bars nothing, however often that happened before.
pub const OOM_APART: Millis = Millis(3_600_000);
/// CPU of the host that a device other than the CPU is fed with, in millicores.
pub const HOST_CPU_MILLIS: u64 = 1_000;
/// Memory of the host for the same: what the engine reads a model through.
pub const HOST_MEMORY_BYTES: u64 = 4 << 30;
/// Start-up to assume where the class says nothing.
pub const STARTUP_DEFAULT: Millis = Millis(60_000);

/// Replicas that are told what to serve at the same time.
pub const TOLD_AT_ONCE: usize = 16;
/// Replicas that are asked what they serve at the same time.
pub const ASKED_AT_ONCE: usize = 64;
/// A swap may take so long: its requests in flight end first where both variants don't fit, then the model is loaded.
pub const SWAP_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Status figures are written at most so often while nothing else changes.
pub const STATUS_EVERY: Millis = Millis(5 * 60_000);
/// A budget's figures that have stood still for a tick are written after so long: nothing more is about to change them.
pub const STATUS_STILL: Millis = Millis(30_000);
/// Longest note of an Event.
pub const EVENT_NOTE_BYTES_MAX: usize = 1_000;

/// Parents of a budget; a longer chain is a mistake.
pub const BUDGET_DEPTH_MAX: usize = 8;
/// Budgets that the ledger takes; one more and it refuses them all.
pub const LEDGER_BUDGETS_MAX: usize = 10_000;
/// Windows of one budget that it takes.
pub const LEDGER_WINDOWS_MAX: usize = 16;
/// Longest rolling window that it takes: ten years.
pub const LEDGER_ROLLING_MAX: Millis = Millis(10 * 366 * 86_400_000);
/// One read of Secrets.
pub const KEY_TIMEOUT: Duration = Duration::from_secs(3);
/// All reads of Secrets in one round, so that a slow API server doesn't hold up the tick.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(8);
/// Reads of Secrets at the same time.
pub const KEYS_CONCURRENCY: usize = 8;
/// API keys in one snapshot.
pub const KEYS_MAX: usize = 20_000;

/// A pod stays in service for so long after its deletion began, so that gateways stop sending to it first.
pub const PRE_STOP_SECONDS: i64 = 8;
/// A pod may take so long to finish its requests; the plan counts on its devices and its cost for as long.
pub const TERMINATION_SECONDS: i64 = DRAIN_TIME.0 / 1_000;
/// A pod that is there so long after its grace is lost with its node, and its devices with it.
pub const POD_OVERDUE: Millis = Millis(60_000);
/// What is left of it, after the wait and the drain, for the engine to end by itself.
pub const EXIT_SECONDS: i64 = 10;
/// The engine finishes its requests for so long after SIGTERM.
pub const DRAIN_SECONDS: i64 = TERMINATION_SECONDS - PRE_STOP_SECONDS - EXIT_SECONDS;
/// A replica may take so long to load its model before the kubelet restarts it.
pub const STARTUP_PROBE_SECONDS: i32 = 30 * 60;
/// Shutdown of servers and loops.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
/// A window with so little left, in parts per thousand of its limit, is called spent: hardly a request fits.
pub const BUDGET_LEFT_PER_MILLE: i128 = 20;
/// How fast a budget is spent is measured over so long.
pub const BURN_WINDOW: Millis = Millis(15 * 60_000);
/// It is not said before it was measured for so long.
pub const BURN_WINDOW_MIN: Millis = Millis::MINUTE;
/// Time between two samples of it that are kept.
pub const BURN_STEP: Millis = Millis(30_000);
/// Samples kept per budget: the window's, and two that move.
pub const BURN_SAMPLES_MAX: usize = 32;
/// A rolling window that moved by so much more or less than the clock has another length than before.
pub const BURN_DRIFT: Millis = Millis::MINUTE;
/// Keys are read again so often.
pub const KEYS_EVERY: Millis = Millis(15_000);
/// Balances are read so often.
pub const BALANCES_EVERY: Millis = Millis(5_000);
/// Shortest time between two ticks, should gateways ring again and again.
pub const TICK_MIN: Duration = Duration::from_millis(500);
