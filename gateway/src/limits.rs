//! Every bound of the gateway, with why.

use std::time::Duration;

/// Largest request body. A context of a million tokens is about this much text.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Of a body that is too large, so much is read and thrown away, so that the client gets to read the 413.
pub const DISCARD_BYTES_MAX: usize = 64 << 20;
/// From its connect on, a client has so long to send the headers of its first request: a slow one holds only its own
/// connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// After an answer, a connection stays open for so long until the headers of the next request are here. More than the
/// minute that most load balancers keep one: they have to be first, or they send a request into the end of it.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(120);
/// A client that takes nothing of its answer for so long is gone: what was streamed is settled.
pub const CLIENT_STALL: Duration = Duration::from_secs(60);
/// An HTTP/2 client is asked so often whether it is still there.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to say so.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to send its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that is not answered to the end after so long is ended, unless a flag says otherwise: longer than any
/// engine should take, shorter than a forgotten request should hold tokens.
pub const REQUEST_TIMEOUT_SECONDS: u64 = 600;
/// The most that the flag may say.
pub const REQUEST_TIMEOUT_SECONDS_MAX: u64 = 24 * 60 * 60;
/// A client that waits for its stream is told so after so long, and again: proxies cut what is silent, some after 15 s.
pub const WAITING_EVERY: Duration = Duration::from_secs(10);
/// Open client connections; more wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 4096;
/// Requests at the same time; more are refused with 503.
pub const REQUESTS_MAX: usize = 2048;
/// Requests that may wait for one model to wake.
pub const HELD_PER_MODEL_MAX: usize = 256;
/// A waiting request asks the operator again after so long: a restarted operator has forgotten the first wake.
pub const WAKE_REPEAT: Duration = Duration::from_secs(5);
/// Longest API key that is looked at.
pub const API_KEY_BYTES_MAX: usize = 512;
/// Most choices (`n`, `best_of`) of one request.
pub const CHOICES_MAX: u64 = 16;

/// One try of a call to the ledger.
pub const LEDGER_TIMEOUT: Duration = Duration::from_millis(1500);
/// Tries of a call to the ledger while a client waits.
pub const LEDGER_TRIES: u32 = 3;
/// Wait before the second try; doubles.
pub const LEDGER_BACKOFF: Duration = Duration::from_millis(50);
/// Answer of the ledger.
pub const LEDGER_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Life of a hold without extension. Longer than any pause of the gateway, short enough that a dead one's holds settle soon.
pub const LEASE: Duration = Duration::from_secs(60);
/// Open holds are extended so often: two extensions may fail before a lease runs out.
pub const EXTEND_EVERY: Duration = Duration::from_secs(20);
/// Settlements that the ledger has not taken; with more, new requests are refused.
pub const UNSETTLED_MAX: usize = 10_000;
/// Settlements on their way to the ledger at the same time.
pub const SETTLE_CONCURRENCY: usize = 16;
/// Longest wait between two tries to settle.
pub const SETTLE_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Notes that wait for the journal's thread. A request writes three at most, so this is never full.
pub const JOURNAL_QUEUE_MAX: usize = REQUESTS_MAX * 4 + UNSETTLED_MAX;
/// The journal is rewritten without what is done when it has grown by so much.
pub const JOURNAL_COMPACT_BYTES: u64 = 8 << 20;
/// Notes that share one fsync.
pub const JOURNAL_BATCH_MAX: usize = 512;

/// Longest that a request looks for a replica that takes it, apart from the wake.
pub const SEND_DEADLINE: Duration = Duration::from_secs(60);
/// Tries after an upstream took the request and failed before the client got anything.
pub const RESENDS_MAX: u32 = 2;
/// First wait before another try; doubles.
pub const RETRY_BACKOFF: Duration = Duration::from_millis(25);
/// Longest wait before another try.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// TCP connect to a replica.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until the first byte of an answer: queue and prefill on a slow CPU included.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two pieces of an answer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Idle connections kept per replica.
pub const IDLE_CONNECTIONS_PER_HOST: usize = 64;
/// An idle connection to a replica lives so long.
pub const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// Failures in a row before a replica is left out.
pub const FAILURES_BEFORE_EJECTION: u32 = 1;
/// How long a failing replica is left out; doubles with each further failure.
pub const EJECTION: Duration = Duration::from_millis(500);
/// Longest time out.
pub const EJECTION_MAX: Duration = Duration::from_secs(10);
/// Answer that is not streamed.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// One event of a stream.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Streamed text that is kept to count it when a stream breaks off.
pub const RECOUNT_BYTES_MAX: usize = 64 << 10;
/// Message taken over from an upstream's error.
pub const UPSTREAM_MESSAGE_CHARS_MAX: usize = 500;

/// Snapshot of the operator.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// One long poll; the operator answers within 25 s.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(35);
/// First wait after a failed poll; doubles.
pub const POLL_BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait after a failed poll.
pub const POLL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two polls, should the operator answer at once again and again.
pub const POLL_PAUSE: Duration = Duration::from_millis(50);
/// A wake call.
pub const WAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A tokenizer bundle; a vocabulary of 256k entries with merges is about 20 MB.
pub const BUNDLE_BYTES_MAX: usize = 64 << 20;
/// Fetch of a tokenizer bundle from one address.
pub const BUNDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Tokenizers in memory.
pub const TOKENIZERS_MAX: usize = 32;
/// Prompts longer than this are counted off the event loop.
pub const COUNT_INLINE_BYTES_MAX: usize = 8 << 10;

/// After the drain, so long for the last settlements.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// After SIGTERM, requests still come for so long: Kubernetes tells the routers only then.
pub const UNROUTE_LAG: Duration = Duration::from_secs(2);
