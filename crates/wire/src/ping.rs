//! Proofs of life, which are no part of the streams of a session: a late one is worth nothing.

use crate::frame::{Decoder, WireError};
use crate::op::put_u64;

/// Kind of the frame, in either direction.
pub(crate) const PING: u8 = 100;

/// Proof of life in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Counts the sender's pings.
    pub sequence: u64,
    /// Newest sequence heard from the other side.
    pub echo: u64,
}

pub(crate) fn put_ping(out: &mut Vec<u8>, ping: &Ping) {
    out.push(PING);
    put_u64(out, ping.sequence);
    put_u64(out, ping.echo);
}

pub(crate) fn take_ping(decoder: &mut Decoder<'_>) -> Result<Ping, WireError> {
    Ok(Ping { sequence: decoder.u64()?, echo: decoder.u64()? })
}
