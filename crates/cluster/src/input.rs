//! Everything that can happen to a node, as one closed list.

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::{ClusterConfig, ModuleConfig};
use model::{BootId, EpochId, ModuleName, NodeName, SessionId, Time};
use serde::{Deserialize, Serialize};

use crate::effect::{Assignment, ServiceAction};
use crate::farm::{Left, Pulse};
use crate::isolation::Reach;
use crate::record::Record;
use crate::report::Heartbeat;
use crate::witness;

/// An operator's job, answered by `Effect::Answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// What the shell knows when it starts a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// This node.
    pub name: NodeName,
    /// Identity of the running boot of the operating system.
    pub boot: BootId,
    /// The cluster.
    pub cluster: ClusterConfig,
    /// Digest of the cluster's configuration.
    pub cluster_digest: u64,
    /// The modules of this node.
    pub modules: Vec<BootModule>,
    /// What the clock on the wall shows when the node starts, since 1970. Only what the operator
    /// wants for a time goes by it.
    pub wall: Duration,
    /// Seed of the ids that this node will draw; unpredictable in production.
    pub seed: u128,
}

/// What the shell knows of one module when it starts a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootModule {
    /// Its configuration.
    pub config: ModuleConfig,
    /// Digest of the effective value of each top-level key.
    pub digest: BTreeMap<String, u64>,
    /// Its record; default when there is none.
    pub record: Record,
    /// What the replicated directories look like.
    pub data: DataState,
    /// What an earlier daemon of this boot left running, if anything.
    pub running: Option<Running>,
}

/// What the replicated directories look like when the node starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataState {
    /// No marker; nothing inside.
    Empty,
    /// No marker, but something is inside.
    Unmarked,
    /// Every root carries the marker of this module's data, naming an epoch.
    Marked {
        /// Identity of the data.
        root: u128,
        /// Epoch named by the marker; the oldest when roots differ.
        epoch: EpochId,
    },
    /// Not usable: a root is missing, is on another disk, or markers contradict each other.
    Unusable {
        /// Sentence that names the place.
        why: String,
        /// The directories are all there, and could be filled anew: a disk of one was replaced.
        #[serde(default)]
        fillable: bool,
    },
}

/// What an earlier daemon of this boot left running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What the replicator is doing; `Close` where there is none.
    pub assignment: Assignment,
    /// Whether this node holds the virtual addresses.
    pub addresses: bool,
    /// Whether the application runs.
    pub service: bool,
    /// What the kernel does for a farm, as it was written down.
    #[serde(default)]
    pub farm: Option<Box<Left>>,
}

/// Everything that can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// An authenticated heartbeat arrived, with what `Contact` made of it.
    Heartbeat {
        /// The heartbeat.
        heartbeat: Box<Heartbeat>,
        /// When it was received.
        received: Time,
        /// When this node sent the newest of its own heartbeats that this one echoes.
        echoed: Option<Time>,
    },
    /// The data link of a module carried a ping both ways.
    DataLink {
        /// Module.
        module: ModuleName,
        /// When the newest ping was received.
        received: Time,
        /// When this node sent the newest of its own pings that has been echoed.
        echoed: Option<Time>,
    },
    /// The witness answered.
    Witness {
        /// Module.
        module: ModuleName,
        /// The request answered.
        request: witness::Request,
        /// The answer.
        answer: witness::Answer,
    },
    /// The witness could not be asked.
    WitnessUnreachable {
        /// Module.
        module: ModuleName,
        /// Why, as a sentence.
        why: String,
    },
    /// Something about a module's replicator.
    Replicator {
        /// Module.
        module: ModuleName,
        /// What happened.
        event: ReplicatorEvent,
    },
    /// The virtual addresses of a module were taken or dropped, or could not be.
    AddressesSet {
        /// Module.
        module: ModuleName,
        /// Whether they were to be held.
        held: bool,
        /// What went wrong, if anything.
        error: Option<String>,
    },
    /// An action on a module's application ended.
    ServiceDone {
        /// Module.
        module: ModuleName,
        /// The action.
        action: ServiceAction,
        /// What went wrong, if anything.
        error: Option<ScriptError>,
    },
    /// A check of the application has turned up or down.
    CheckResult {
        /// Module.
        module: ModuleName,
        /// Serial of the effect that had it carried out.
        serial: u64,
        /// The check.
        check: ModuleName,
        /// Whether it is up.
        up: bool,
        /// How that shows: in few words first, then perhaps the last lines of output.
        evidence: Vec<String>,
    },
    /// The script that runs before a resync has ended.
    ResyncPrepared {
        /// Module.
        module: ModuleName,
        /// Serial of the effect that asked for it.
        serial: u64,
        /// What went wrong, if anything.
        error: Option<ScriptError>,
    },
    /// The command that is to hold the peer off has ended.
    HeldOff {
        /// Module.
        module: ModuleName,
        /// Serial of the effect that asked for it.
        serial: u64,
        /// Why the peer is not held off, unless it is.
        error: Option<ScriptError>,
    },
    /// A pulse of a farm's other node was received.
    Pulse {
        /// Module.
        module: ModuleName,
        /// When it was received.
        received: Time,
        /// The pulse; its place is the shell's and left out.
        pulse: Box<Pulse>,
        /// Something else is handed in right after it, perhaps a pulse of a node that would be
        /// missed by now: until then nothing is decided.
        #[serde(default)]
        more: bool,
    },
    /// The kernel goes by shares of a farm, or could not be told to.
    SharesSet {
        /// Module.
        module: ModuleName,
        /// Edition of the shares.
        edition: u64,
        /// What went wrong, if anything; the kernel goes by those before then.
        error: Option<String>,
    },
    /// A record could not be made durable. The node must not act on it.
    PersistFailed {
        /// Module.
        module: ModuleName,
        /// Why.
        error: String,
    },
    /// The operator wants something of this node.
    Operator {
        /// To be named in the answer.
        job: JobId,
        /// Module.
        module: ModuleName,
        /// What is wanted.
        command: Command,
    },
    /// The isolation check has found something new, or the same anew.
    Reach(Reach),
    /// `deadline()` has passed.
    Tick,
    /// An authentic heartbeat arrived that this program cannot read, for it is of another version:
    /// its sender is alive, and what it does is not known.
    Unread {
        /// Who sent it.
        from: NodeName,
        /// When it was received.
        received: Time,
        /// Its version.
        version: u16,
    },
}

impl Input {
    /// The module that it is about; none when it is about the node.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleName> {
        match self {
            Input::Heartbeat { .. } | Input::Reach(_) | Input::Unread { .. } | Input::Tick => None,
            Input::DataLink { module, .. }
            | Input::Witness { module, .. }
            | Input::WitnessUnreachable { module, .. }
            | Input::Replicator { module, .. }
            | Input::AddressesSet { module, .. }
            | Input::ServiceDone { module, .. }
            | Input::CheckResult { module, .. }
            | Input::ResyncPrepared { module, .. }
            | Input::HeldOff { module, .. }
            | Input::Pulse { module, .. }
            | Input::SharesSet { module, .. }
            | Input::PersistFailed { module, .. }
            | Input::Operator { module, .. } => Some(module),
        }
    }
}

/// How a script, or the application as a whole, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptError {
    /// What became of it, as the end of a sentence that begins with what was run.
    pub how: String,
    /// The last lines that it wrote.
    pub said: Vec<String>,
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start the module on this node. Done when the node is PRIM, ALONE or an up-to-date SECOND;
    /// refused when it must wait.
    Start,
    /// Stop the module on this node; the peer takes over when it can.
    Stop,
    /// Stop the module on this node without handing it over: the peer is being stopped too.
    StopAll,
    /// Hand the role over to the peer.
    Switchover,
    /// Become primary on the operator's word.
    ForcePrimary,
    /// Do nothing about failures by yourself for a time: the application is neither restarted nor
    /// stopped nor taken over, and checks are only shown.
    Pause(Duration),
    /// Give this copy up for the peer's, with which it has nothing more in common: what it holds
    /// alone is put into quarantine before it is overwritten.
    Discard,
    /// End a pause.
    Resume,
    /// The operator works on this node for a time: the application is handed to the peer, if that
    /// can take it, and taken over only if the peer is lost.
    Maintain(Duration),
    /// The work is done.
    EndMaintenance,
}

/// Something about a module's replicator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicatorEvent {
    /// The assignment with this serial is in force, entirely: for `Receive` the receiver is
    /// ready; for `Serve` the mount answers and `required` holds; for `Hold` the session has ended,
    /// all that was received is applied, nothing waits.
    Assigned {
        /// Serial of the assignment.
        serial: u64,
        /// Last operation number applied at this moment.
        number: u64,
        /// For a drained `Hold`: whether everything is applied and durable on both nodes.
        drained: bool,
    },
    /// The assignment could not be carried out; the replicator holds.
    Refused {
        /// Serial of the assignment.
        serial: u64,
        /// Why, naming place and mend.
        why: String,
    },
    /// The session's link is established.
    LinkUp {
        /// Session.
        session: SessionId,
    },
    /// The session has ended without being told to.
    LinkLost {
        /// Session.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// Source: the target holds everything but what is in flight.
    Synced {
        /// Session.
        session: SessionId,
        /// Number of the last operation of the resync.
        number: u64,
    },
    /// Source: the target has applied and made durable everything up to this number.
    TargetDurable {
        /// Session.
        session: SessionId,
        /// Number.
        number: u64,
    },
    /// Source: the target could not apply something (disk full, read-only, I/O error).
    TargetFailed {
        /// Session.
        session: SessionId,
        /// What, with errno and path.
        why: String,
    },
    /// This node's own copy failed (I/O error, failed sync): it must not be served any more.
    CopyFailed {
        /// What, with errno and path.
        why: String,
    },
    /// Target: whether the owners of files have other numbers here than at the source.
    Owners {
        /// Which, as a sentence; none when all are the same.
        differ: Option<String>,
    },
    /// The copy is not what this node last made of it: told before the first `Assigned`.
    Restored {
        /// How that shows, as a sentence.
        why: String,
    },
    /// The directories were looked through for what was changed past replication before this
    /// process began.
    LookedBack {
        /// Whether nothing was.
        clean: bool,
        /// What was, as a sentence.
        found: Option<String>,
    },
    /// A successor went on where a process had died, and nobody noticed but by a pause.
    Resumed {
        /// How the one before it ended.
        how: String,
    },
    /// What keeps descriptors for a successor has ended: the next death ends serving.
    Unkept,
    /// The process ended without being told to.
    Died {
        /// How.
        how: String,
    },
}
