//! How a new node asks to be admitted, and what it is given: one frame each, under TLS, behind a
//! greeting.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{NetworkName, NodeName};
use serde::{Deserialize, Serialize};

use crate::frame::{WireError, put_versioned, take_versioned};

const MAGIC: [u8; 4] = *b"EVKJ";
const VERSION: u16 = 1;

/// Longest request or reply, in bytes.
pub const JOIN_BYTES_MAX: usize = 256 << 10;

/// A node asks to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which token it has.
    pub token: [u8; 8],
    /// That it has the token's secret, for this connection and this request.
    pub proof: [u8; 32],
    /// The name that it shall have.
    pub node: NodeName,
    /// Its addresses, as far as they were given.
    pub addresses: BTreeMap<NetworkName, IpAddr>,
    /// The address from which it calls, as it sees that itself.
    pub here: IpAddr,
    /// Its public key.
    pub public_key: Vec<u8>,
    /// Time since 1970 on its clock, in milliseconds.
    pub wall_ms: u64,
}

/// What a node that is admitted is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Its certificate.
    pub certificate: String,
    /// The certificate of the cluster's authority.
    pub authority: String,
    /// The key of that, so that it can admit others.
    pub authority_key: String,
    /// The key that all nodes share.
    pub cluster_key: String,
    /// The cluster's configuration, with the new node in it.
    pub cluster_file: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It belongs to the cluster from now on.
    Admitted(Box<Admission>),
    /// It does not, and nothing was changed: a sentence.
    Refused(String),
}

/// Appends a request.
pub fn put_request(out: &mut Vec<u8>, request: &Request) {
    put_versioned(out, MAGIC, VERSION, request);
}

/// Reads a request.
pub fn take_request(frame: &[u8]) -> Result<Request, WireError> {
    take_versioned(frame, MAGIC, VERSION)
}

/// Appends a reply.
pub fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    put_versioned(out, MAGIC, VERSION, reply);
}

/// Reads a reply.
pub fn take_reply(frame: &[u8]) -> Result<Reply, WireError> {
    take_versioned(frame, MAGIC, VERSION)
}
