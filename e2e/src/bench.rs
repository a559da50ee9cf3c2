//! What `bench-skeleton`, `bench-engine` and `bench-soak` measure, each figure on the running thing. What can't be measured is an error.

mod engine;
pub mod inference;
mod process;
mod skeleton;
mod soak;

pub use engine::tokens_per_second;
pub use skeleton::{demo, gateway_cpu, operator_memory, two_replicas};
pub use soak::{Soak, run as soak};

use anyhow::{Context, Result};

/// One line of `{"figure": NAME, "value": NUMBER}` for `cargo xtask bench`.
#[must_use]
pub fn line(figure: &str, value: f64) -> String {
    serde_json::json!({"figure": figure, "value": value}).to_string()
}

pub(crate) fn float(count: u64) -> Result<f64> {
    u32::try_from(count).map(f64::from).with_context(|| format!("{count} is too large to be true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_xtask_reads() {
        assert_eq!(line("skeleton.x_s", 1.5), r#"{"figure":"skeleton.x_s","value":1.5}"#);
        assert!(float(u64::MAX).is_err());
    }
}
