//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest request body: a prompt that fills the longest usual context, and no file.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How much of a body that is too large is taken in and thrown away, so that the client reads our answer.
pub const BODY_DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests that may wait for a slot, as a multiple of the slots; those beyond are refused with 429.
pub const QUEUE_PER_SLOT: usize = 16;
/// Most slots: beyond some tens a CPU gains nothing, and each slot holds a whole context.
pub const SLOTS_MAX: u32 = 256;
/// Longest context per request that a config may ask for.
pub const CONTEXT_TOKENS_MAX: u32 = 1 << 20;
/// Most variants in one config.
pub const VARIANTS_MAX: usize = 64;
/// Largest `serve.json`; a ConfigMap holds no more.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Tokens of newcomers' prompts that one step may take, at most; the engine's batch is this and one row per slot.
pub const PREFILL_TOKENS_MAX: u32 = 128;
/// ... and at least, so that a prompt always gets on.
pub const PREFILL_TOKENS_MIN: u32 = 16;
/// How long a step with a prompt in it should take: running answers wait no longer than about this.
pub const STEP_TARGET: Duration = Duration::from_millis(250);
/// Failed steps in a row after which the engine is given up.
pub const ENGINE_FAILURES_MAX: u32 = 3;
/// Longest warm-up measurement, and the most steps in it.
pub const WARM_UP_MAX: Duration = Duration::from_millis(1500);
/// Most steps of the warm-up.
pub const WARM_UP_STEPS_MAX: u32 = 64;
/// Prompt of the warm-up, per slot.
pub const WARM_UP_PROMPT_TOKENS: u32 = 4;
/// Stop texts per request, as in OpenAI's API (which takes four; some clients send more).
pub const STOPS_MAX: usize = 16;
/// Longest stop text: it bounds how much text is withheld.
pub const STOP_BYTES_MAX: usize = 1024;
/// `max_tokens` of `/v1/completions` where the request has none, as in OpenAI's API.
pub const COMPLETION_TOKENS_DEFAULT: u32 = 16;
/// Seconds that a refused client is asked to wait.
pub const RETRY_AFTER_SECONDS: u64 = 1;
/// Longest wait between two bytes of a request's body, so that slow senders hold no connection.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a stream sends a comment, so that proxies keep it open while it waits for a slot.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tokenizations at once: each may take a core.
pub const TOKENIZE_PARALLEL: usize = 2;
