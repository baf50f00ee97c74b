//! Questions to the witness and its answers, one frame each on a TCP connection.

use cluster::witness::{Answer, Request};
use model::{ModuleName, NodeName};
use serde::{Deserialize, Serialize};

use crate::frame::{WireError, put_versioned, take_versioned};

const MAGIC: [u8; 4] = *b"EVKW";
const VERSION: u16 = 3;

/// Longest question or answer, in bytes.
pub const WITNESS_BYTES_MAX: usize = 4096;

/// A question, with whom it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Cluster.
    pub cluster: ModuleName,
    /// Module.
    pub module: ModuleName,
    /// Asking node.
    pub from: NodeName,
    /// What is asked.
    pub request: Request,
}

/// What the witness says, or why it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// An answer.
    Answer(Answer),
    /// It could not make the answer durable, or did not understand: a sentence.
    Unable(String),
}

/// Appends a question.
pub fn put_question(out: &mut Vec<u8>, question: &Question) {
    put_versioned(out, MAGIC, VERSION, question);
}

/// Reads a question.
pub fn take_question(frame: &[u8]) -> Result<Question, WireError> {
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
