//! Lines for the person who waits.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Prints one line with the time since the first one.
pub(crate) fn say(message: impl AsRef<str>) {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    eprintln!("[{:6.1}s] {}", elapsed.as_secs_f32(), message.as_ref());
}
