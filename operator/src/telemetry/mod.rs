//! Signals: what replicas and gateways say of themselves, when they said it, and whether that can be trusted.
//!
//! ```text
//! /metrics of pods and gateways ─▶ scrape ─▶ text ─┐
//!                    Prometheus ─▶ prometheus ─────┴▶ Readings ─▶ signals::load ─▶ Load, or why there is none
//! ```
//! A reading that is missing, old or not a number is no reading; it is never zero.

pub mod prometheus;
pub mod queries;
mod readings;
pub mod scrape;
pub mod signals;
mod source;
mod text;

pub use readings::{GatewayModel, GatewayReading, PodReading, Readings};
pub use source::Source;
pub use text::{Page, ParseError};

pub(crate) use readings::count;
