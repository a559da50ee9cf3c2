//! What will be asked for: a series of measured rates becomes an expected rate and an upper bound at the time when capacity that
//! is ordered now will be there.
//!
//! No one forecaster is the best everywhere, and the simplest mostly is at lead times of minutes. So [`experts`] each say their
//! number, the one that was least off so far is believed ([`forecast`]), and its errors of the past say how far above it
//! one must be to be right as often as promised. [`burst`] adds what comes within the time that a reaction takes.
//!
//! A gap in a series is a gap, never a zero.

pub mod burst;
pub mod experts;
pub mod forecast;
