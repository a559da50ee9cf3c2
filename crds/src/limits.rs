//! Every bound of the API in one place. The schema states them, so that the API server refuses what is larger, and so
//! that it can bound the cost of the CEL rules that loop over a list.

/// Longest name of a ModelDeployment. With [`CLASS_NAME`] and a device count it gives `<model>-<class>-<devices>`
/// within the 63 characters of a DNS label.
pub const MODEL_DEPLOYMENT_NAME: u32 = 30;
/// Longest name of a HardwareClass.
pub const CLASS_NAME: u32 = 27;
/// Most devices of one replica: four digits in the name of a Deployment.
pub const DEVICES_PER_REPLICA: i32 = 1024;
/// Longest DNS label.
pub const LABEL: u32 = 63;
/// Longest DNS subdomain (names of Secrets, of DRA device classes).
pub const SUBDOMAIN: u32 = 253;
/// Longest key of a label or name of an extended resource: prefix, slash, name.
pub const QUALIFIED_NAME: u32 = 317;
/// Longest free text of a person (cost centre, task, vendor).
pub const TEXT: u32 = 128;
/// Longest URL, model source or engine argument.
pub const URL: u32 = 1024;
/// Longest message of a condition, candidate or decision.
pub const MESSAGE: u32 = 1024;

/// Variants of one model.
pub const VARIANTS: u32 = 16;
/// Hardware classes of one variant.
pub const HARDWARE: u32 = 8;
/// Arguments of an external engine.
pub const ENGINE_ARGS: u32 = 64;
/// Entries of an engine's metrics map.
pub const ENGINE_METRICS: u32 = 16;
/// Most replicas of one model.
pub const REPLICAS: i32 = 1000;
/// Highest priority.
pub const PRIORITY: i32 = 1000;
/// Most tokens of a context.
pub const CONTEXT_TOKENS: i64 = 16_777_216;
/// Most slots of one replica.
pub const PARALLEL_REQUESTS: i32 = 1024;
/// Most tokens of a context that the bundled engine takes.
pub const BUNDLED_CONTEXT_TOKENS: i64 = 1 << 20;
/// Most slots that the bundled engine takes.
pub const BUNDLED_PARALLEL_REQUESTS: i32 = 256;
/// Largest count: what a JSON number carries exactly.
pub const COUNT: i64 = 9_007_199_254_740_991;

/// Subjects of one budget.
pub const SUBJECTS: u32 = 64;
/// Labels of one selector, and labels of a node selector.
pub const LABELS: u32 = 16;
/// Windows of one budget.
pub const WINDOWS: u32 = 16;
/// Rate limits of one budget.
pub const RATE_LIMITS: u32 = 8;
/// Namespaces that may name a budget as parent.
pub const NAMESPACES: u32 = 64;
/// Steps of a ladder (budget or breaker).
pub const LADDER: u32 = 4;
/// Ceilings of one policy: one a period.
pub const CEILINGS: u32 = 6;
/// Alerts of one policy.
pub const ALERTS: u32 = 16;

/// Most devices of one class.
pub const DEVICES: i32 = 100_000;
/// Tolerations of one class.
pub const TOLERATIONS: u32 = 16;
/// Precisions of one class.
pub const PRECISIONS: u32 = 16;

/// Conditions of one object.
pub const CONDITIONS: u32 = 16;
/// Pools, served variants and start-up figures in a status.
pub const STATUS_POOLS: u32 = 128;
/// Candidates in a status: every variant on every class.
pub const STATUS_CONSIDERED: u32 = VARIANTS * HARDWARE;
/// Decisions that a status remembers.
pub const STATUS_DECISIONS: u32 = 10;
