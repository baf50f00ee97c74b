//! The first frames of every peer connection: who calls, for what, and in which version.
//!
//! The version is negotiated before anything else is decoded. Inside an agreed version the
//! unknown is refused. The caller speaks first and in the clear; where the cluster has keys, TLS
//! begins right after, and the answer is inside it.

use model::{ModuleName, NodeName, SessionId};
use serde::{Deserialize, Serialize};

use crate::frame::{WireError, put_versioned, take_versioned};

/// The version that this build speaks.
pub const VERSION: u16 = 5;

const MAGIC: [u8; 4] = *b"EVKL";
/// Longest greeting, in bytes, read before anything is known of the caller.
pub const HELLO_BYTES_MAX: usize = 1024;

/// Who calls and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Cluster.
    pub cluster: ModuleName,
    /// Caller.
    pub from: NodeName,
    /// What the connection is for.
    pub purpose: Purpose,
    /// How it is to be protected.
    pub protection: Protection,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Not at all: the cluster has no keys yet.
    #[default]
    None,
    /// Both ends have shown who they are; what follows is in the clear.
    Authenticated,
    /// Both ends have shown who they are, under TLS 1.3, and go on under it.
    Encrypted,
}

/// What a peer connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A replication session; the caller is its source.
    Replication {
        /// Module.
        module: ModuleName,
        /// Session.
        session: SessionId,
        /// Where the caller's end of it stands.
        joint: Joint,
    },
    /// One request of the command line, forwarded to another node's daemon.
    Control,
    /// A node that has a token asks to be admitted; it has no certificate yet.
    Join,
}

/// Where one end of a session stands, so that a new connection goes on where a broken one ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joint {
    /// Identity of what this end sends: another one is another stream, from its beginning.
    pub stream: u128,
    /// Bytes of frames that it has taken of what the other end sends, but for pings.
    pub received: u64,
}

/// The answer to a greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Go ahead; of a session, where this end of it stands.
    Accepted(Joint),
    /// No, as the session is not one that this node receives now; why, as a sentence.
    Absent(String),
    /// No; why, as a sentence.
    Refused(String),
}

/// Appends a greeting.
pub fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put_versioned(out, MAGIC, VERSION, hello);
}

/// Reads a greeting.
pub fn take_hello(frame: &[u8]) -> Result<Hello, WireError> {
    take_versioned(frame, MAGIC, VERSION)
}

/// Appends the answer to a greeting.
pub fn put_welcome(out: &mut Vec<u8>, welcome: &Welcome) {
    put_versioned(out, MAGIC, VERSION, welcome);
}

/// Reads the answer to a greeting.
pub fn take_welcome(frame: &[u8]) -> Result<Welcome, WireError> {
    take_versioned(frame, MAGIC, VERSION)
}
