//! The bytes that cross a boundary: heartbeats, pulses, peer connections, replication, the witness
//! and the sockets of one node's processes.
//!
//! Pure: encoding and decoding only. Every decoder treats its input as hostile: lengths are
//! checked before anything is allocated, and nothing panics. What the messages mean is said where
//! they are defined, in `cluster` and `replica`.

pub mod control;
pub mod datagram;
pub mod frame;
pub mod hello;
pub mod join;
pub mod listing;
pub mod local;
pub mod object;
pub mod op;
pub mod owners;
pub mod packed;
mod ping;
pub mod pulse;
pub mod recall;
pub mod recording;
pub mod replication;
mod summary;
pub mod witness;

pub use frame::{Decoder, FRAME_BYTES_MAX, WireError};
