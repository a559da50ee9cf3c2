//! Replicas: which one, whether it is well, sending, and what comes back.

pub mod pool;
pub mod relay;
pub mod send;
pub mod sse;
