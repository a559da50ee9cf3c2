//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest request body: a prompt that fills the longest usual context, and no file.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How much of a body that is too large is taken in and thrown away, so that the client reads our answer.
pub const BODY_DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests that may wait for a slot, as a multiple of the slots; those beyond are refused with 429.
pub const QUEUE_PER_SLOT: usize = 16;
/// Longest wait for a slot; then the client is told to try elsewhere.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(120);
/// Most slots: beyond some tens a CPU gains nothing, and each slot holds a whole context.
pub const SLOTS_MAX: u32 = 256;
/// Sequences that are kept for requests that begin like them, beside one for each slot: each costs a row of logits.
pub const KEPT_SEQUENCES: u32 = 16;
/// llama.cpp's own bound on sequences.
pub const SEQUENCES_MAX: u32 = 256;
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
pub const STEP_TARGET: Duration = Duration::from_millis(500);
/// Failed steps in a row after which the engine is given up.
pub const ENGINE_FAILURES_MAX: u32 = 3;
/// Longest warm-up measurement, and the most steps in it.
pub const WARM_UP_MAX: Duration = Duration::from_millis(1500);
/// Most steps of the warm-up.
pub const WARM_UP_STEPS_MAX: u32 = 3;
/// Prompt of the warm-up, per slot.
pub const WARM_UP_PROMPT_TOKENS: u32 = 4;
/// Stop texts per request, as in OpenAI's API (which takes four; some clients send more).
pub const STOPS_MAX: usize = 16;
/// Longest stop text: it bounds how much text is withheld.
pub const STOP_BYTES_MAX: usize = 1024;
/// Most choices of one request: each holds a place.
pub const CHOICES_MAX: u32 = 16;
/// Most likeliest tokens that a chat may ask for, as in OpenAI's API.
pub const TOP_LOGPROBS_MAX: u32 = 20;
/// Most likeliest tokens that a completion may ask for, as in OpenAI's API.
pub const COMPLETION_LOGPROBS_MAX: u32 = 5;
/// Most tokens that `logit_bias` may name: each is touched in every step.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// Most tokens of one text that is embedded: their KV cache is held beside the engine's.
pub const EMBEDDING_TOKENS_MAX: u32 = 512;
/// Rows of a batch that embeds. Half of the engine's, since logits are kept for each of them: twice the memory.
pub const EMBEDDING_ROWS: u32 = PREFILL_TOKENS_MAX / 2;
/// Most texts that one request may have embedded.
pub const EMBEDDING_INPUTS_MAX: usize = 256;
/// Most tools of one request, as in OpenAI's API.
pub const TOOLS_MAX: usize = 128;
/// Longest name of a tool, as in OpenAI's API.
pub const TOOL_NAME_BYTES_MAX: usize = 64;
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
/// Longest name of a tenant.
pub const TENANT_BYTES_MAX: usize = 256;
/// Longest schema, grammar or regular expression.
pub const GRAMMAR_BYTES_MAX: usize = 64 * 1024;
/// Most texts of a choice.
pub const GRAMMAR_ITEMS_MAX: usize = 1024;
/// Longest wait of a request for a variant that is being swapped in.
pub const SWAP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the requests of a variant that must go before the next one has room.
pub const SWAP_DRAIN_MAX: Duration = Duration::from_secs(300);
/// Longest measurement at a first start.
pub const PROFILE_MAX: Duration = Duration::from_secs(3);
/// Context at which it is measured what context costs.
pub const PROFILE_CONTEXT: u32 = 128;
/// Decode steps that are measured at each point.
pub const PROFILE_STEPS: u32 = 6;
/// Longest URI of a source.
pub const SOURCE_BYTES_MAX: usize = 4096;
/// Largest file that is fetched; the largest models of today are a tenth of it.
pub const FETCH_BYTES_MAX: u64 = 16 << 40;
/// What is booked on the disk, step by step, for a file whose server does not say how long it is.
pub const FETCH_STEP_BYTES: u64 = 1 << 30;
/// Longest time for a connection to a source.
pub const FETCH_CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest silence of a source.
pub const FETCH_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest time for one file, by default: a terabyte at 50 MB/s.
pub const FETCH_SECONDS_MAX: u64 = 6 * 3600;
/// Attempts in a row that bring nothing.
pub const FETCH_ATTEMPTS_MAX: u32 = 6;
/// Attempts in all for one file.
pub const FETCH_CUTS_MAX: u32 = 200;
/// Bytes from which on an attempt brought something.
pub const FETCH_GOT_ON_BYTES: u64 = 64 * 1024;
/// First pause between attempts; it doubles.
pub const FETCH_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest pause between attempts.
pub const FETCH_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Longest pause that a server may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// Times that a file may change while it is fetched.
pub const FETCH_CHANGES_MAX: u32 = 3;
/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;
/// How much of a server's refusal is read, to be shown.
pub const REFUSAL_BYTES_MAX: usize = 2048;
/// ... and how many letters of it are shown.
pub const REFUSAL_LETTERS_MAX: usize = 300;
/// Seconds between two lines of progress, by default.
pub const PROGRESS_SECONDS: u64 = 10;
/// Largest manifest of an artifact, as registries limit it.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest answer of a token server, and largest docker `config.json`.
pub const CREDENTIALS_BYTES_MAX: usize = 1024 * 1024;
/// Largest bundle of CA certificates.
pub const CA_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most layers that are looked through for a file.
pub const LAYERS_MAX: usize = 128;
/// Most entries of a layer that are looked through.
pub const LAYER_ENTRIES_MAX: usize = 1_000_000;
/// Most bytes that a layer may unpack to.
pub const LAYER_BYTES_MAX: u64 = FETCH_BYTES_MAX;
/// Pause between two looks whether another process is done.
pub const CACHE_POLL: Duration = Duration::from_millis(200);
/// Times that a lock on a cached file is tried for, each a moment's matter ...
pub const CACHE_RACES_MAX: u32 = 500;
/// ... and the pause between them.
pub const CACHE_RACE_PAUSE: Duration = Duration::from_millis(10);
/// Most files of each kind that the cache is looked through for.
pub const CACHE_ENTRIES_MAX: usize = 8192;
/// Room that stays free on the cache's disk: a full disk stops the node.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;
/// Age at which half a file that nobody goes on with is deleted.
pub const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
