//! Heartbeats as datagrams.
//!
//! Not authenticated yet: the daemon forms clusters only inside the lab.

use cluster::report::Heartbeat;

use crate::frame::{WireError, take_versioned};

const MAGIC: [u8; 4] = *b"EVKH";
const VERSION: u16 = 1;

/// Longest datagram sent or accepted, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 60_000;

/// Encodes a heartbeat.
pub fn put_heartbeat(heartbeat: &Heartbeat) -> Result<Vec<u8>, WireError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    let body = postcard::to_stdvec(heartbeat).map_err(|_| WireError::Value("heartbeat"))?;
    out.extend_from_slice(&body);
    if out.len() > DATAGRAM_BYTES_MAX {
        return Err(WireError::Length(out.len()));
    }
    Ok(out)
}

/// Decodes a heartbeat.
pub fn take_heartbeat(datagram: &[u8]) -> Result<Heartbeat, WireError> {
    take_versioned(datagram, MAGIC, VERSION)
}
