//! The crash examiner: writers that do everything a program can do to files, each operation logged
//! before it is issued and after it has returned, and a model that tells from the log what must be
//! found after a fault.
//!
//! Each writer has names of its own, so its log alone decides what is to be there. The examiner
//! knows neither clusters nor faults: whoever uses it breaks something and says which rule holds.

mod generate;
mod judge;
mod log;
mod mapped;
mod model;
mod op;
mod perform;
mod synced;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use judge::{Judged, Rule, judge};
pub use log::{End, Record, parse, story};
pub use tree::{Tree, load};
pub use writer::{COMMAND, furnish, run};
