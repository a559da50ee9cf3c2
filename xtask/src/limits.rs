//! Every bound of this crate.

/// Lines of a file without its tests; more needs an entry in the allow list.
pub const FILE_LINES: usize = 400;
/// Lines of a file without its tests that no entry excuses.
pub const FILE_LINES_HARD: usize = 600;
/// Lines of a function, from `fn` to its last brace.
pub const FUNCTION_LINES: usize = 80;
/// Lines of `//!` that a crate's root has at least: what it is, what it may not do, where to read next.
pub const CRATE_DOC_LINES: usize = 3;
/// A home folder or checkout with a shorter path is too common a word to search for.
pub const MACHINE_PATH_LENGTH: usize = 5;
/// The largest GGUF that is taken out of a wheel.
pub const MODEL_BYTES: u64 = 1 << 30;
