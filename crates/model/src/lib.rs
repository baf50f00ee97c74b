//! The vocabulary shared by every crate: names, time, epochs, the quality of a copy, roles,
//! reasons and validated configuration.
//!
//! Pure: nothing here reads a clock, a file, a socket or the environment, and nothing decides.
//! Decisions are taken by `cluster` and `replica`, which never import each other.

pub mod config;
mod epoch;
mod fingerprint;
mod name;
mod reason;
mod role;
mod time;

pub use epoch::{BootId, Copy, Epoch, EpochId, Lineage, SessionId};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use name::{InvalidName, ModuleName, NetworkName, NodeName};
pub use reason::{Headline, Reason, Severity};
pub use role::{Phase, Role};
pub use time::Time;
