//! The view of a node for people and programs: a copy of its state, without any decision in it.

use std::collections::BTreeMap;

use model::config::{CheckAction, ModuleKind};
use model::{Copy, Headline, ModuleName, NodeName, Phase, Reason, Role, Time};
use serde::{Deserialize, Serialize};

use crate::farm::{Part, View};
use crate::report::SessionStep;

/// A node as it sees itself and its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// This node.
    pub node: NodeName,
    /// Its modules.
    pub modules: BTreeMap<ModuleName, ModuleStatus>,
}

impl NodeStatus {
    /// A module that is not stopped on a node, as far as this one hears.
    #[must_use]
    pub fn running_on(&self, node: &NodeName) -> Option<&ModuleName> {
        let runs = |module: &ModuleStatus| {
            if *node == self.node {
                module.role != Role::Stop
            } else {
                module.is_running_elsewhere(node)
            }
        };
        self.modules.iter().find(|(_, module)| runs(module)).map(|(name, _)| name)
    }
}

/// A module as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// What kind of module it is.
    pub kind: ModuleKind,
    /// The state in one word.
    pub headline: Headline,
    /// This node's role.
    pub role: Role,
    /// How far the role has been reached.
    pub phase: Phase,
    /// Since when role and phase hold, on this node's clock.
    pub since: Time,
    /// Whether the operator wants the module started here.
    pub started: bool,
    /// What this node's copy is worth.
    pub copy: Copy,
    /// Whether this node's copy holds everything that was acknowledged, as far as it knows.
    pub up_to_date: bool,
    /// Number of this node's epoch, 0 before the first start.
    pub epoch: u64,
    /// Why the module is not green, worst first.
    pub reasons: Vec<Reason>,
    /// The peer of a mirror; other kinds have none.
    pub peer: Option<PeerStatus>,
    /// The witness.
    pub witness: WitnessState,
    /// The session this node takes part in.
    pub session: Option<SessionStep>,
    /// Whether the virtual addresses are held here.
    pub addresses: bool,
    /// Whether the application is meant to run here and was started.
    pub service: bool,
    /// Whether a balancer may send new clients here.
    pub takes_clients: bool,
    /// The checks of the application.
    pub checks: BTreeMap<ModuleName, CheckStatus>,
    /// The farm, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<View>,
}

impl ModuleStatus {
    /// What the peer said last, if there is one and it was ever heard.
    #[must_use]
    pub fn peer_report(&self) -> Option<&PeerReport> {
        self.peer.as_ref().and_then(|peer| peer.last.as_ref())
    }

    /// Whether it is not stopped on another node, as that says itself. Of one that is not heard any
    /// more nothing is known.
    fn is_running_elsewhere(&self, node: &NodeName) -> bool {
        let peer = self.peer.as_ref().filter(|peer| peer.node == *node);
        let mirrors = peer.is_some_and(|peer| {
            peer.last.as_ref().is_some_and(|last| last.role != Role::Stop)
                && peer.contact == ContactState::Alive
        });
        let mut members = self.farm.iter().flat_map(|farm| &farm.members);
        mirrors || members.any(|member| member.node == *node && member.part != Part::Out)
    }
}

/// A check of the application on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// What it says.
    pub state: CheckState,
    /// Since when, on this node's clock.
    pub since: Time,
    /// What it looks at, in few words.
    pub looks_at: String,
    /// What is done when it is down.
    pub action: CheckAction,
    /// How that shows.
    pub evidence: Vec<String>,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// All is well.
    Up,
    /// It has failed as often as it may.
    Down,
    /// It is carried out, and has not come to a result yet.
    Unknown,
    /// It is not carried out: the application does not run here, or is being started or stopped.
    Paused,
}

/// The peer of a mirror, as last heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub node: NodeName,
    /// How it is reached.
    pub contact: ContactState,
    /// Its last report, if it was ever heard; stale unless heartbeats arrive.
    pub last: Option<PeerReport>,
}

/// What a peer last said of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Role.
    pub role: Role,
    /// Phase.
    pub phase: Phase,
    /// Its copy.
    pub copy: Copy,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContactState {
    /// Heartbeats pass both ways.
    Alive,
    /// Heartbeats are missing, the data link lives.
    DataLinkOnly,
    /// Nothing has been heard yet, or only one way, and it is too early to judge.
    Listening,
    /// Silent.
    Lost,
}

/// What is known of the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessState {
    /// None is configured.
    None,
    /// It has not been asked yet.
    Unknown,
    /// It answered the last question.
    Answers,
    /// It could not be asked.
    Unreachable,
}
