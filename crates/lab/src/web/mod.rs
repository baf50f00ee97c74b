//! A small web server that says on which host it runs, and visitors that never pause.
//!
//! For farms, as the ledger is for mirrors: the visitors tell who answered, who had to wait and
//! whose connection broke, as users would notice it. Nothing here knows of clusters.

mod http;
pub mod server;
#[cfg(test)]
mod tests;
pub mod visitors;

pub use visitors::{Tally, Visitors};
