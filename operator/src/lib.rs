//! Reads the cluster, runs the plan, is the only writer of cluster state.
//!
//! ```text
//! watches ─▶ state::Index ─┐
//! telemetry ─▶ Readings ───┼─▶ state::snapshot ─▶ core::plan::decide ─┬─▶ gateway (snapshot for the data plane)
//! ledger ─▶ settled sums ──┘         (every tick)                     ├─▶ actuate (orders, server-side apply)
//!                                                                     └─▶ status (conditions, Events, metrics)
//! ```
//! It decides nothing itself: what shall be is `quartermaster_core::plan`'s to say. It acts on a tick only, only while it
//! holds the lease, and looks again (lease, generation of the spec) before each write. It never writes a spec.
//!
//! Read next: [`planner`] (the tick), [`state`] (what is known), [`build`] (what is made), [`actuate`] (how).
//!
//! # RBAC
//! What the operator needs, and no more. Cluster-wide, unless said:
//!
//! | group | resources | verbs | for |
//! |---|---|---|---|
//! | `quartermaster.dev` | `modeldeployments`, `tokenbudgets`, `costpolicies`, `hardwareclasses` | list, watch | index |
//! | `quartermaster.dev` | `modeldeployments/status`, `tokenbudgets/status`, `costpolicies/status`, `hardwareclasses/status` | patch | status by server-side apply |
//! | `apps` | `deployments` | get, list, watch, create, patch, delete | replicas |
//! | core | `configmaps` | get, create, patch, delete | `serve.json` |
//! | core | `services` | get, create, patch | a model's Service |
//! | `policy` | `poddisruptionbudgets` | get, create, patch | a model's disruption budget |
//! | `networking.k8s.io` | `networkpolicies` | get, create, patch, delete | who may talk to a model's pods |
//! | core | `pods`, `nodes` | list, watch | replicas; devices of a class |
//! | core | `secrets` | get, list | API keys that budgets name; the salt |
//! | `events.k8s.io` | `events` | create, patch | Events |
//! | `coordination.k8s.io` | `leases` (own namespace) | get, create, update | leader |
//!
//! Events of cluster-scoped objects (HardwareClass) go to namespace `default`. Run without the chart, the operator makes the
//! Secret with the salt itself; then it needs create on `secrets` of its own namespace too.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod actuate;
pub mod args;
pub mod budgets;
pub mod build;
pub mod calendar;
pub mod clock;
pub mod error;
pub mod gateway;
pub mod keys;
pub mod leader;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod planner;
pub mod run;
pub mod server;
pub mod spend;
pub mod state;
pub mod status;
pub mod telemetry;
