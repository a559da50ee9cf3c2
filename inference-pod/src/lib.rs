//! The bundled inference server: OpenAI's API in front of llama.cpp, with continuous batching.
//!
//! ```text
//! HTTP ─ api ─▶ driver (one thread) ─ scheduler: who computes ─▶ engine: one batch ─▶ sampler ─▶ text ─▶ HTTP
//! ```
//! In the way of data this is the last stop: requests come from the gateway, which has counted and paid for their tokens.
//! It knows its `serve.json`, its model file and its container's limits, and nothing of Kubernetes, budgets or money.
//!
//! Read [`scheduler`] first, then [`kv`], [`driver`] and [`api`]; [`prepare`] is what happens before a model is loaded,
//! [`source`] how its file comes here.

pub mod api;
pub mod args;
pub mod cgroup;
pub mod commands;
pub mod config;
pub mod constraint;
pub mod driver;
pub mod engine;
pub mod exit;
pub mod gguf;
pub mod kv;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod perplexity;
pub mod prepare;
pub mod profile;
mod pull;
pub mod quantize;
mod queue;
pub mod sampler;
pub mod scheduler;
pub mod serve;
pub mod source;
pub mod speculation;
pub mod swap;
pub mod text;
pub mod tokenizer;
