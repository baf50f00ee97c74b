//! The rules of replication, as pure state machines: the order of operations, when a call may be
//! answered, and what a resync must copy.
//!
//! No clock, socket, file, thread or unseeded randomness, and no payload: bytes stay in the
//! shell. Which node may be primary is none of its business: that is `cluster`, which this crate
//! does not know.

pub mod acknowledge;
mod delta;
pub mod exclude;
pub mod names;
pub mod op;
pub mod session;
pub mod throttle;
pub mod touch;
pub mod walk;

pub use acknowledge::Acknowledge;
pub use exclude::Exclude;
pub use names::{Names, Without};
pub use session::{Lost, Session, Step};
pub use throttle::Throttle;
pub use touch::Touch;
pub use walk::{Complete, Task, Theirs, Walk, leave_out};
