//! The activity log of a module: everything in which this copy may differ from the peer's.
//!
//! ```text
//! change ──touches──> Heat ──cold──> Entry ──> Image on disk, durable before the change
//!                       │
//!   checkpoint s ───────┴── what was last touched at or before s goes cold
//! ```
//!
//! Before a node first changes a region of a file or the names of a directory, an entry says so
//! durably. While both copies are kept equal, a checkpoint that is durable on both lets entries
//! go; while the peer is away they only add up, and a resync compares what they name. Pure: the
//! file is written and read by the replicator.

pub mod entry;
pub mod heat;
pub mod image;

pub use entry::{Entry, Part, Reach};
pub use heat::{Heat, Key};
pub use image::{Damage, Header, Image, Point, Window};

/// Bytes of a region of a file, the unit in which changed content is remembered.
pub const REGION_BYTES: u64 = 4 << 20;
