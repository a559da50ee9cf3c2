//! Developer tasks: generated files, images, house rules, what CI runs, figures.
//!
//! This crate stands outside the way of data: it builds, packs and checks the others and is in no image. It may call
//! cargo, Helm and pip, but decides nothing that a running Quartermaster depends on.
//!
//! Read next: `ci.rs` for the order of all checks, `tidy/mod.rs` for the rules, `images/mod.rs` for what an image holds.

pub mod bench;
pub mod cargo;
pub mod charts;
pub mod ci;
pub mod family;
pub mod generate;
pub mod images;
pub mod limits;
mod python;
pub mod shell;
pub mod tidy;
pub mod workspace;
