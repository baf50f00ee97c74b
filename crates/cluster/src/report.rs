//! What nodes tell each other.
//!
//! Nodes exchange state, not commands: each heartbeat carries the sender's whole present view of
//! every module, so losing, repeating or reordering datagrams does no harm. A step of a protocol
//! is a change in one's own report which the peer sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::config::Stand;
use model::{BootId, Copy, Epoch, EpochId, Lineage, ModuleName, NodeName, Phase, Role, SessionId};
use serde::{Deserialize, Serialize};

/// One heartbeat, sent on every network at each pulse and at once when a report changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Sender.
    pub from: NodeName,
    /// Identity of the sender's boot.
    pub boot: BootId,
    /// Start of the sender's daemon, in nanoseconds on its own clock: a later one is greater
    /// within the same boot.
    pub incarnation: u64,
    /// Counts the sender's heartbeats since its daemon started.
    pub sequence: u64,
    /// Newest `sequence` heard from the receiver in its present incarnation; 0 when none.
    pub echo: u64,
    /// The receiver's incarnation that `echo` belongs to.
    pub echo_incarnation: u64,
    /// Digest of the cluster configuration.
    pub cluster_digest: u64,
    /// The configuration that the sender has in use, by which one that was away sees that it has
    /// an older one.
    pub configuration: Stand,
    /// What the sender is doing, for each of its modules.
    pub reports: BTreeMap<ModuleName, Arc<Report>>,
}

/// What a node says of one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Digest of the effective value of each top-level key of the module's configuration.
    pub config: Arc<BTreeMap<String, u64>>,
    /// Role, for display and for the peer's decisions.
    pub role: Role,
    /// How far it has been reached.
    pub phase: Phase,
    /// Whether the replicated directories hold anything, known before the first start.
    pub empty: bool,
    /// Identity of the module's data.
    pub root: u128,
    /// Adopted epoch.
    pub epoch: Option<Epoch>,
    /// Epochs before it.
    pub lineage: Lineage,
    /// An unresolved request to the witness.
    pub pending: Option<EpochId>,
    /// What the copy is worth.
    pub copy: Copy,
    /// Consent given: the peer may go on alone in this epoch.
    pub consent: Option<EpochId>,
    /// Consent asked: the sender wants to go on alone in this epoch.
    pub proposal: Option<Epoch>,
    /// Last applied operation number, when it is known and nothing is under way.
    pub number: Option<u64>,
    /// Whether nothing was changed past replication while the directories were open to everybody,
    /// once it is known.
    pub looked_back: Option<bool>,
    /// Term of the role within the epoch.
    pub role_term: u64,
    /// Whether the sender holds the role of primary, or may still be acting on it.
    pub holds_role: bool,
    /// The sender has durably given up the role and offers it to the receiver under this term.
    pub handover: Option<u64>,
    /// Whether the sender may promote itself in its epoch.
    pub promotable: bool,
    /// The session that the sender serves (as source) or has joined (as target).
    pub session: Option<SessionReport>,
    /// The sender asks the receiver to give up being in sync with it, as it is about to stop or
    /// its copy has failed.
    pub leaving: bool,
    /// The sender should not be given the application: it failed there, or what it needs is not
    /// there.
    pub hindered: bool,
    /// Somebody works on the sender's machine: it should not be given the application.
    pub maintained: bool,
    /// What the sender brings forward where its copy and the receiver's went apart, and the
    /// configuration says whose is kept.
    pub claim: Option<Claim>,
    /// The epoch that the sender opened alone is not on its disk yet: a crash would lead it back to
    /// the one before.
    #[serde(default)]
    pub unopened: bool,
}

/// How long a node has served since two copies went apart, as one of both sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its identity, drawn anew for each claim: what it claims never changes.
    pub id: u128,
    /// The claim of the receiver that it stands against; 0 when the sender knows none.
    pub against: u128,
    /// How long the application has run on the sender.
    pub served: Duration,
    /// The sender's epoch is not on its disk yet: its copy is kept for no other.
    #[serde(default)]
    pub unopened: bool,
}

/// A replication session as one of its ends sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Its identity.
    pub id: SessionId,
    /// How far joining has come.
    pub step: SessionStep,
}

/// Steps of joining, in order; R5 of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionStep {
    /// Source: the session is offered. Target: the receiver is ready, its copy durably noted as
    /// inconsistent (unless nothing need be copied).
    Offered,
    /// Source: a resync is under way.
    Resync,
    /// Source: the epoch naming both is durable and every acknowledgement needs the target.
    Named,
    /// Source: the message that makes the target promotable; durably noted before it was sent.
    Final,
    /// Target: it is durably promotable.
    Done,
}
