//! Work in progress.
pub mod backing;
