//! Heartbeats as datagrams: plain ones, and what is sealed under the cluster's key.
//!
//! How they are sealed is no matter of this file; it knows only what stands where. Plain ones are
//! for the lab, where no cluster need have keys.

use cluster::report::Heartbeat;

use crate::frame::{WireError, take_versioned};

const MAGIC: [u8; 4] = *b"EVKH";
const VERSION: u16 = 4;

const SEALED_MAGIC: [u8; 4] = *b"EVKS";
const SEALED_VERSION: u16 = 1;

/// Longest datagram sent or accepted, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 60_000;

/// Bytes of the salt from which the key of one datagram is derived.
pub const SALT_BYTES: usize = 32;

/// What is inside a sealed datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Drawn at random by the sender's daemon when it started.
    pub session: u128,
    /// The session of the receiver that the sender has heard of; 0 when none. A receiver that
    /// finds its own here knows that this is no datagram of an earlier day.
    pub answers: u128,
    /// What is said.
    pub heartbeat: Heartbeat,
}

/// Encodes a heartbeat.
pub fn put_heartbeat(heartbeat: &Heartbeat) -> Result<Vec<u8>, WireError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    let body = postcard::to_stdvec(heartbeat).map_err(|_| WireError::Value("heartbeat"))?;
    out.extend_from_slice(&body);
    bounded(out)
}

/// Decodes a heartbeat.
pub fn take_heartbeat(datagram: &[u8]) -> Result<Heartbeat, WireError> {
    take_versioned(datagram, MAGIC, VERSION)
}

/// Whether a datagram is a heartbeat in the clear, of any version.
#[must_use]
pub fn is_plain(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// Encodes what is to be sealed.
pub fn put_guarded(guarded: &Guarded) -> Result<Vec<u8>, WireError> {
    put_envelope(guarded.session, guarded.answers, &put_heartbeat(&guarded.heartbeat)?)
}

/// Encodes what is to be sealed, whatever is said in it.
pub fn put_envelope(session: u128, answers: u128, said: &[u8]) -> Result<Vec<u8>, WireError> {
    bounded([&session.to_le_bytes()[..], &answers.to_le_bytes(), said].concat())
}

/// Decodes what was sealed.
pub fn take_guarded(bytes: &[u8]) -> Result<Guarded, WireError> {
    let (session, answers, said) = take_envelope(bytes)?;
    Ok(Guarded { session, answers, heartbeat: take_heartbeat(said)? })
}

/// Takes apart what was sealed: the sender's session, the one that it answers, and what it says.
pub fn take_envelope(bytes: &[u8]) -> Result<(u128, u128, &[u8]), WireError> {
    let (session, rest) = bytes.split_first_chunk().ok_or(WireError::Truncated)?;
    let (answers, said) = rest.split_first_chunk().ok_or(WireError::Truncated)?;
    Ok((u128::from_le_bytes(*session), u128::from_le_bytes(*answers), said))
}

/// Puts together a datagram of a salt and what was sealed with it.
pub fn put_sealed(salt: &[u8; SALT_BYTES], sealed: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut out = SEALED_MAGIC.to_vec();
    out.extend_from_slice(&SEALED_VERSION.to_le_bytes());
    out.extend_from_slice(salt);
    out.extend_from_slice(sealed);
    bounded(out)
}

/// Takes a sealed datagram apart.
pub fn take_sealed(datagram: &[u8]) -> Result<(&[u8; SALT_BYTES], &[u8]), WireError> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(WireError::Length(datagram.len()));
    }
    let body = datagram.strip_prefix(&SEALED_MAGIC).ok_or(WireError::Magic)?;
    let (version, body) = body.split_first_chunk::<2>().ok_or(WireError::Truncated)?;
    let theirs = u16::from_le_bytes(*version);
    if theirs != SEALED_VERSION {
        return Err(WireError::Version { theirs, ours: SEALED_VERSION });
    }
    body.split_first_chunk().ok_or(WireError::Truncated)
}

fn bounded(out: Vec<u8>) -> Result<Vec<u8>, WireError> {
    if out.len() > DATAGRAM_BYTES_MAX { Err(WireError::Length(out.len())) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{BootId, NodeName};

    use super::*;

    #[test]
    fn what_was_put_is_taken_and_nothing_else() {
        let heartbeat = Heartbeat {
            from: NodeName::new("node1").unwrap(),
            boot: BootId(1),
            incarnation: 2,
            sequence: 3,
            echo: 4,
            echo_incarnation: 5,
            cluster_digest: 6,
            configuration: model::config::Stand::default(),
            reports: BTreeMap::new(),
        };
        let guarded = Guarded { session: 7, answers: 8, heartbeat };
        let bytes = put_guarded(&guarded).unwrap();
        assert_eq!(take_guarded(&bytes), Ok(guarded));
        for length in 0..bytes.len() {
            assert!(take_guarded(&bytes[..length]).is_err(), "{length}");
        }
        let salt = [9; SALT_BYTES];
        let datagram = put_sealed(&salt, &bytes).unwrap();
        assert_eq!(take_sealed(&datagram), Ok((&salt, &*bytes)));
        assert!(!is_plain(&datagram));
        for length in 0..6 + SALT_BYTES {
            assert!(take_sealed(&datagram[..length]).is_err(), "{length}");
        }
        let mut other = datagram;
        other[4] += 1;
        assert_eq!(take_sealed(&other), Err(WireError::Version { theirs: 2, ours: 1 }));
        let long = vec![0; DATAGRAM_BYTES_MAX];
        assert!(put_sealed(&salt, &long).is_err());
        assert!(take_sealed(&[&b"EVKS\x01\0"[..], &long].concat()).is_err());
    }
}
