//! Messages between a node's daemon and its replicators: one JSON text per packet of a local
//! socket.
//!
//! Both ends belong to root on one machine and are of one build or of neighbouring versions.

use std::net::{IpAddr, SocketAddr};

use cluster::effect::Assignment;
use cluster::input::ReplicatorEvent;
use model::{EpochId, NodeName, SessionId, Time};
use serde::{Deserialize, Serialize};

use crate::hello::{Joint, Protection};

/// Longest packet, in bytes.
pub const PACKET_BYTES_MAX: usize = 64 << 10;

/// From the daemon to a replicator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReplicator {
    /// A new assignment; only the newest counts.
    Assign {
        /// Identifies the answer.
        serial: u64,
        /// What to do.
        assignment: Assignment,
        /// Where the peer of the session can be reached, best first.
        peer: Vec<SocketAddr>,
    },
    /// Write the marker into every root, durably; answered by `Marked`.
    Mark {
        /// Identifies the answer.
        serial: u64,
        /// Identity of the module's data.
        root: u128,
        /// Epoch.
        epoch: EpochId,
    },
    /// A peer's connection for this session comes with this packet, as a descriptor.
    Connection(Caller),
    /// Compare both copies whole; answered by `Verified`, again and again until it has ended.
    Verify {
        /// Identifies the answers.
        serial: u64,
        /// Whether what differs is to be mended.
        repair: bool,
    },
    /// The peer is not heard at these addresses, and can be reached at others: a link there is made
    /// anew by one of those.
    Silent {
        /// All of them; those of before count no more.
        addresses: Vec<IpAddr>,
    },
    /// Say what you are doing.
    Query,
    /// What a resync may compare and send from now on; unlimited when absent.
    ResyncRate {
        /// In bytes per second.
        bytes_per_second: Option<u64>,
    },
}

/// What a peer said that has connected. Nothing of it is proven yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Who it says it is.
    pub from: NodeName,
    /// Session that it wants to go on with.
    pub session: SessionId,
    /// Where its end of that stands.
    pub joint: Joint,
    /// How the connection is to be protected, to which this node has agreed.
    pub protection: Protection,
}

/// From a replicator to the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromReplicator {
    /// Something the cluster's decisions depend on.
    Event(ReplicatorEvent),
    /// Answer to `Mark`.
    Marked {
        /// Serial of the question.
        serial: u64,
        /// What went wrong, if anything.
        error: Option<String>,
    },
    /// The data link carried a ping both ways.
    DataLink {
        /// When the newest ping was received.
        received: Time,
        /// When the newest of its own pings that was echoed had been sent.
        echoed: Option<Time>,
    },
    /// Answer to `Query`.
    State {
        /// Serial of the newest assignment in force.
        serial: u64,
        /// The assignment.
        assignment: Assignment,
        /// Last operation number.
        number: u64,
    },
    /// How a resync is getting on.
    Progress(Progress),
    /// How a verification is getting on, or how it ended.
    Verified(Verification),
    /// A caller that the daemon had handed on did not show that it is who it says.
    TurnedAway {
        /// Who it says it is.
        from: NodeName,
        /// What was wrong.
        why: String,
    },
}

/// What a keeper keeps for the next replicator; each comes with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kept {
    /// A replicated directory, opened before anything was mounted over it.
    Root(u16),
    /// The connection to the kernel of the mount over that directory.
    Device(u16),
    /// A file that nothing else leads to, by directory and node.
    Held(u16, u64),
    /// The memory of the replicator. As long as it is kept, there is something to go on with.
    Memory,
}

/// From a replicator to its keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// Keep the descriptor that comes with this packet.
    Keep(Kept),
    /// Keep it no longer.
    LetGo(Kept),
    /// Keep nothing any longer: there is nothing to go on with.
    LetGoAll,
    /// A replicator has gone on where the one before ended.
    Resumed,
}

/// From a keeper to a replicator that it has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// This was kept; the descriptor comes with the packet.
    Kept(Kept),
    /// That was all.
    All {
        /// How the replicator before this one ended, if there was one.
        ended: Option<String>,
    },
}

/// How a verification is getting on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Serial of the question.
    pub serial: u64,
    /// Whether it is under way.
    pub running: bool,
    /// Why it did not come to its end, as a sentence.
    pub ended: Option<String>,
    /// Objects compared.
    pub entries: u64,
    /// Bytes of content compared.
    pub bytes: u64,
    /// Objects that differ.
    pub differences: u64,
    /// The first of them, each with its path and in what it differs.
    pub told: Vec<String>,
    /// Whether a resync that mends them has been begun.
    pub repairing: bool,
    /// Path of the object being compared.
    pub current: String,
}

/// How a resync is getting on, for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether a resync is under way.
    pub running: bool,
    /// Why it compares what it compares, as a sentence.
    pub why: String,
    /// Objects compared.
    pub entries: u64,
    /// Objects to compare in all, as far as is known; 0 when unknown.
    pub entries_total: u64,
    /// Bytes compared or copied.
    pub bytes: u64,
    /// Bytes in all, as far as is known; 0 when unknown.
    pub bytes_total: u64,
    /// Bytes that differed and were copied.
    pub copied: u64,
    /// Seconds since it began.
    pub seconds: f64,
    /// Bytes per second of late.
    pub rate: f64,
    /// Name of the file being compared.
    pub current: String,
}
