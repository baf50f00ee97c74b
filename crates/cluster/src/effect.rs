//! Everything a node may want done, as one closed list.
//!
//! Effects are performed strictly in order. Each variant says what the shell owes.

use std::collections::BTreeSet;
use std::time::Duration;

use model::config::ReplicationConfig;
use model::{Copy, EpochId, ModuleName, NodeName, SessionId, Severity};
use serde::{Deserialize, Serialize};

use crate::farm::{Pulse, Shares};
use crate::input::JobId;
use crate::record::Record;
use crate::witness;

/// Something to be done by the shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Make the record durable, and the markers in the roots, before performing any later effect.
    /// If that fails, perform no later effect of this batch and hand in `Input::PersistFailed`
    /// before any other input: the record is then again what it was before this whole batch.
    Persist {
        /// Module.
        module: ModuleName,
        /// Its new record, whole.
        record: Box<Record>,
    },
    /// The node's own reports changed: take them from `Node::reports` for the coming heartbeats
    /// and send one at once.
    Announce,
    /// Ask the witness once; hand in `Input::Witness` or `Input::WitnessUnreachable` within two
    /// seconds. The core asks again when it still needs to.
    AskWitness {
        /// Module.
        module: ModuleName,
        /// The question.
        request: witness::Request,
    },
    /// Give the replicator its assignment, starting the process when need be. Only the newest one
    /// counts. Answered by `ReplicatorEvent::Assigned` or `Refused` with its serial.
    Assign {
        /// Module.
        module: ModuleName,
        /// Identifies the answer; grows.
        serial: u64,
        /// What the replicator is to do.
        assignment: Assignment,
    },
    /// Take and announce, or drop, the module's virtual addresses; answered by
    /// `Input::AddressesSet`. Of a farm: put up the filter with an empty share, unless it stands,
    /// and the addresses with it; or take both away.
    SetAddresses {
        /// Module.
        module: ModuleName,
        /// Whether to hold them.
        held: bool,
    },
    /// Act on the module's application; answered by `Input::ServiceDone`.
    RunService {
        /// Module.
        module: ModuleName,
        /// What to do.
        action: ServiceAction,
    },
    /// Carry out these checks of the application from now on, and no others. One that was carried
    /// out before goes on as it is, and says again what it knows, as that may have crossed this
    /// effect; one that was not knows nothing of an earlier time. Whenever one turns up or down,
    /// which includes its first result, that is an `Input::CheckResult` with this serial.
    RunChecks {
        /// Module.
        module: ModuleName,
        /// Identifies the results; grows.
        serial: u64,
        /// Names of the checks.
        checks: BTreeSet<ModuleName>,
    },
    /// Run the script that is to see the copy before a resync changes it, ending one that still
    /// runs; answered by `Input::ResyncPrepared` with this serial, after a limited time.
    PrepareResync {
        /// Module.
        module: ModuleName,
        /// Identifies the answer; grows.
        serial: u64,
        /// The node that the resync comes from.
        source: NodeName,
        /// What the copy is worth.
        copy: Copy,
    },
    /// Run the command that holds a peer off: it must not run again, or do anything, before it has
    /// booted anew. Never twice at once; answered by `Input::HeldOff` with this serial, after a
    /// limited time.
    HoldOff {
        /// Module.
        module: ModuleName,
        /// Identifies the answer; grows.
        serial: u64,
        /// Whom.
        peer: NodeName,
    },
    /// Send this pulse of a farm to its other nodes at once, and from then on at the module's pace,
    /// each time with the next `sequence` and with this node's place.
    Pulse {
        /// Module.
        module: ModuleName,
        /// The pulse.
        pulse: Box<Pulse>,
    },
    /// Have the kernel go by these shares of a farm, all at once, having written down what a
    /// following daemon must know (`Node::farm_left`); answered by `Input::SharesSet`. Of several
    /// only the newest counts.
    SetShares {
        /// Module.
        module: ModuleName,
        /// The shares.
        shares: Box<Shares>,
    },
    /// Record a decision or an observation: this is the log.
    Explain(Event),
    /// An operator's job has its outcome.
    Answer {
        /// Job.
        job: JobId,
        /// Outcome.
        outcome: Outcome,
    },
}

impl Effect {
    /// The module that it is about; none when it is about the node.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleName> {
        match self {
            Effect::Persist { module, .. }
            | Effect::AskWitness { module, .. }
            | Effect::Assign { module, .. }
            | Effect::SetAddresses { module, .. }
            | Effect::RunService { module, .. }
            | Effect::RunChecks { module, .. }
            | Effect::PrepareResync { module, .. }
            | Effect::HoldOff { module, .. }
            | Effect::Pulse { module, .. }
            | Effect::SetShares { module, .. } => Some(module),
            Effect::Explain(event) => event.module.as_ref(),
            Effect::Announce | Effect::Answer { .. } => None,
        }
    }
}

/// What a replicator is to do: the whole of it, so that repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assignment {
    /// Release the directories and end: they are plain again.
    Close,
    /// End any session and any serving. The directories are visible and read-only.
    Hold {
        /// What becomes of requests that wait for the peer.
        ending: Ending,
    },
    /// Receive a session from a source into the directories, which are visible and read-only.
    Receive {
        /// The only session to accept.
        session: SessionId,
        /// Its source.
        source: NodeName,
        /// What is overwritten or removed is kept aside first, under this name.
        quarantine: Option<Duration>,
    },
    /// Serve the directories to applications.
    Serve(Serve),
}

/// How a `Hold` treats what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Refuse new changes, wait until everything is applied and durable on both nodes, or the
    /// link is lost.
    Drain,
    /// On a receiver: apply everything that was received. On a server: answer every waiting
    /// request with EIO at once.
    Cut,
}

/// How directories are served. The replicator alone enforces it: R8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// The epoch served.
    pub epoch: EpochId,
    /// Term of the role.
    pub role_term: u64,
    /// The peers that every acknowledgement needs.
    pub required: BTreeSet<NodeName>,
    /// The session to keep up towards a peer, if any.
    pub session: Option<ServeSession>,
    /// How to acknowledge and when to give a target up, as configured.
    pub replication: ReplicationConfig,
}

/// A session from a source to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeSession {
    /// Its identity, told to the target by the cluster.
    pub id: SessionId,
    /// The target.
    pub target: NodeName,
    /// Whether the trees must be compared; false only when both hold the same operation number of
    /// the same epoch.
    pub resync: bool,
}

/// What to do with an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServiceAction {
    /// Start everything in order.
    Start,
    /// Stop everything in reverse order, killing what outlives its limit. Always ends.
    Stop,
    /// Kill every process at once.
    Kill,
}

/// A decision or an observation, told in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Module, unless it is about the node.
    pub module: Option<ModuleName>,
    /// Stable identifier in kebab case.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence naming cause and consequence.
    pub sentence: String,
    /// Facts behind it.
    pub evidence: Vec<String>,
}

/// How an operator's job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; the sentence says what was reached.
    Done(String),
    /// Tried and failed.
    Failed(String),
    /// Refused by a safety rule; nothing was changed.
    Refused {
        /// Why.
        why: String,
        /// What to do instead.
        next: Vec<String>,
    },
}
