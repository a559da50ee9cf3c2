//! Gateway and operator ↔ ledger: budgets, holds, settlements, spend.
//!
//! A request *attempt* reserves an upper bound, then settles what it really used. Both are idempotent by the attempt's
//! id: the same call again changes nothing, and one that says something else under the same id is refused with 409.
//! At every step, per budget and window: settled + open holds + free = limit. A hold belongs, for ever, to the window in
//! which it was reserved, whenever it settles.
//!
//! Every answer that is not 200 is a [`Refusal`]: 400 names the field, 401 wants the token, 409 is a conflict or an epoch
//! that has passed, 503 means that it may or may not have been done: say the same again under the same id.

use crate::units::{Millis, NanoUsd, Tokens};
use serde::{Deserialize, Serialize};

/// Tokens and money, held or spent together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amount {
    /// Tokens, prompt and completion together.
    pub tokens: Tokens,
    /// Money.
    pub nano_usd: NanoUsd,
}

/// `PUT /v1/budgets`: every budget there is. One that is left out stops granting; what it has spent stays on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// Fencing epoch of the operator that writes; the ledger refuses a lower one than it has seen.
    pub epoch: u64,
    /// The budgets.
    pub budgets: Vec<Budget>,
}

/// One budget, by its id `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// `namespace/name` of the TokenBudget.
    pub id: String,
    /// Every window must afford a request.
    pub windows: Vec<Window>,
}

/// One accounting window: it counts what was settled since its start, it does not refill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Unique in its budget. Usage is kept under it, so a changed limit does not reset usage.
    pub name: String,
    /// How long it is and when it starts.
    pub period: Period,
    /// Most tokens in one window.
    pub tokens: Option<Tokens>,
    /// Most money in one window.
    pub nano_usd: Option<NanoUsd>,
}

/// A calendar period in a time zone, or a rolling one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Period {
    /// From one turn of the calendar to the next, in an IANA time zone.
    Calendar {
        /// Its length.
        unit: CalendarUnit,
        /// IANA name, such as `Europe/Berlin`.
        time_zone: String,
    },
    /// The last so many milliseconds.
    Rolling {
        /// Its length.
        length: Millis,
    },
}

/// The calendar's units. Weeks start on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CalendarUnit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// `POST /v1/reserve`: all budgets or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserve {
    /// Id of the request attempt; the same id again returns the same grant. A refusal is not kept: asking again under
    /// the same id may be granted later.
    pub attempt: String,
    /// Budgets that must all afford it, from leaf to root.
    pub budgets: Vec<String>,
    /// What the request could use at most.
    pub want: Amount,
    /// The least that is of any use (the prompt and one token); a hold between the two is granted when less is left.
    pub at_least: Amount,
    /// How long the hold lives without `extend`. An expired hold is settled in full: nobody knows what was served.
    pub lease: Millis,
}

/// Answer to [`Reserve`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Reserved {
    /// The hold is on disk.
    Granted {
        /// What is held; between `at_least` and `want`.
        held: Amount,
    },
    /// Some window can't afford `at_least`. Nothing is held.
    Exhausted(Exhausted),
}

/// Which window said no, and when asking again makes sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exhausted {
    /// Budget id.
    pub budget: String,
    /// Window name.
    pub window: String,
    /// `tokens` or `nanoUsd`.
    pub unit: Unit,
    /// Limit, in that unit.
    pub limit: i64,
    /// Settled, in that unit.
    pub settled: i64,
    /// Held by other requests, in that unit.
    pub held: i64,
    /// Time until the window turns, or until enough has left a rolling one; short where only open holds stand in the
    /// way. None where waiting does not help: an unknown budget (its `window` is empty), or a request above the limit.
    pub retry_after: Option<Millis>,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Tokens.
    Tokens,
    /// Nano-USD.
    NanoUsd,
}

/// `POST /v1/settle`: what the attempt really used. More than was held is carried as debt, never clamped. After the
/// lease has lapsed it corrects what was charged in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settle {
    /// Id of the attempt.
    pub attempt: String,
    /// What it used.
    pub actual: Amount,
    /// The usage record, kept for ever under the attempt's id.
    pub usage: Usage,
}

/// What a settled attempt was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Whose key it was (`namespace/secret`).
    pub subject: String,
    /// Namespace of the model.
    pub namespace: String,
    /// Name of the ModelDeployment.
    pub model: String,
    /// Variant that served.
    pub variant: String,
    /// Hardware class that served.
    pub hardware_class: String,
    /// Prompt tokens.
    pub prompt: Tokens,
    /// Prompt tokens that came from the cache; part of `prompt`.
    pub cached: Tokens,
    /// Completion tokens.
    pub completion: Tokens,
    /// `stop`, `length`, `client_gone`, `upstream_error`, …
    pub outcome: String,
}

/// `POST /v1/extend` and `POST /v1/release` name an attempt. A release says that nothing was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Id of the attempt.
    pub attempt: String,
    /// For `extend`: the new life of the hold from now; the one it was reserved with, where none is given.
    #[serde(default)]
    pub lease: Option<Millis>,
}

/// Answer of `settle`, `release`, `extend`, `PUT /v1/budgets` and `POST /v1/spend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Done {
    /// Done now.
    Applied,
    /// The same call had been done before; nothing changed.
    AlreadyDone,
    /// There is no such hold. `settle` records the usage all the same, in no budget; after `release` the id is used up,
    /// so that a reservation that was overtaken by it holds nothing.
    Unknown,
}

/// `GET /v1/balances`: one row per budget and window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Budget id.
    pub budget: String,
    /// Window name.
    pub window: String,
    /// Start of the window.
    pub start: Millis,
    /// End of the window; none for a rolling one.
    pub resets_at: Option<Millis>,
    /// Limits.
    pub limit_tokens: Option<Tokens>,
    /// Limits.
    pub limit_nano_usd: Option<NanoUsd>,
    /// Settled since the start.
    pub settled: Amount,
    /// Sum of the open holds.
    pub held: Amount,
}

/// `POST /v1/spend`: what replicas have cost. Cumulative per pod and hour, so that sending it again changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spend {
    /// Fencing epoch, as in [`Budgets`].
    pub epoch: u64,
    /// The entries.
    pub entries: Vec<SpendEntry>,
}

/// Cost of one pod in one hour, so far. A larger figure replaces a smaller one; a smaller one is ignored. Of two equal
/// ones that which reaches further counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpendEntry {
    /// UID of the pod.
    pub pod_uid: String,
    /// Namespace of the model.
    pub namespace: String,
    /// Name of the ModelDeployment.
    pub model: String,
    /// Variant.
    pub variant: String,
    /// Hardware class.
    pub hardware_class: String,
    /// Start of the UTC hour.
    pub hour_start: Millis,
    /// How far the hour is metered; its end, once it has passed.
    pub until: Millis,
    /// Cost in that hour so far.
    pub nano_usd: NanoUsd,
}

/// `GET /v1/spend/metered?since_ms=`: for each pod its last hour that begins at `since_ms` or later. A new operator goes
/// on from there, so that time that has passed is not priced again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metered {
    /// UID of the pod.
    pub pod_uid: String,
    /// Start of the UTC hour.
    pub hour_start: Millis,
    /// How far it is metered.
    pub until: Millis,
    /// Cost in that hour until then.
    pub nano_usd: NanoUsd,
}

/// `GET /v1/spend?since_ms=&namespace=`: the sum over the UTC hours that end after `since_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpendTotal {
    /// The sum.
    pub nano_usd: NanoUsd,
    /// The same by model, the costliest first. One that is not named has cost next to nothing.
    pub models: Vec<ModelSpend>,
}

/// What one model has cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpend {
    /// Its namespace.
    pub namespace: String,
    /// Name of the ModelDeployment.
    pub model: String,
    /// The sum.
    pub nano_usd: NanoUsd,
}

/// `GET /v1/usage?since_ms=&after=`: usage rows in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePage {
    /// The rows.
    pub rows: Vec<UsageRow>,
    /// Where more may follow: `after` of the next page.
    pub next: Option<u64>,
}

/// One change of what an attempt is charged with. Rows are never changed; an attempt's rows add up to its charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// Grows from row to row.
    pub seq: u64,
    /// Id of the attempt.
    pub attempt: String,
    /// 0 for its first row. 1 corrects a row with outcome `lease_expired`, once it is known what was used.
    pub revision: u32,
    /// Budgets that are charged.
    pub budgets: Vec<String>,
    /// When it was reserved, which says which window it counts in; when it was settled, where nothing was reserved.
    pub reserved_at: Millis,
    /// When this row was written.
    pub settled_at: Millis,
    /// Tokens charged; negative where a correction gives back.
    pub tokens: i64,
    /// Money charged; negative where a correction gives back.
    pub nano_usd: NanoUsd,
    /// What it was.
    pub usage: Usage,
}

/// Body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what was wrong, and with what.
    pub message: String,
}

/// Why the ledger did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusalCode {
    /// 400: the request makes no sense.
    Invalid,
    /// 401: without the right bearer token.
    Unauthorized,
    /// 409: the attempt's id was used for something else.
    Conflict,
    /// 409: a newer operator has written before.
    StaleEpoch,
    /// 503: it may or may not have been done; say the same again under the same id.
    Unavailable,
}
