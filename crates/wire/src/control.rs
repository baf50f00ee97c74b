//! The control socket: one JSON request a line, answered by lines of progress and one reply.
//!
//! The same shapes are what `--json` prints.

use cluster::configuration::{Proposal, Version};
use model::config::Stand;
use model::{ModuleName, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::listing::PageAsked;

/// Version of these shapes.
pub const SCHEMA: u32 = 1;

/// Longest line accepted, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A request of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Version of the shapes.
    pub schema: u32,
    /// What is asked.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What is asked of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// The state of everything, as this node sees it.
    Status,
    /// The newest events.
    Events {
        /// Only of this module.
        module: Option<ModuleName>,
        /// At most so many.
        limit: usize,
    },
    /// Start a module on one node, or on all of its nodes.
    Start {
        /// Module.
        module: ModuleName,
        /// Node; all when absent.
        node: Option<NodeName>,
    },
    /// Stop a module on one node, or on all of its nodes.
    Stop {
        /// Module.
        module: ModuleName,
        /// Node; all when absent.
        node: Option<NodeName>,
    },
    /// Hand the primary's role over.
    Switchover {
        /// Module.
        module: ModuleName,
        /// The node that shall be primary; the other one when absent.
        to: Option<NodeName>,
    },
    /// Make a node primary on the operator's word.
    ForcePrimary {
        /// Module.
        module: ModuleName,
        /// Node.
        node: NodeName,
    },
    /// Give one node's copy of a module up for its peer's.
    Discard {
        /// Module.
        module: ModuleName,
        /// The node whose copy is given up.
        node: NodeName,
    },
    /// Answer no failure of a module by yourselves for a time.
    Pause {
        /// Module.
        module: ModuleName,
        /// Node; all when absent.
        node: Option<NodeName>,
        /// For so many seconds.
        seconds: u64,
    },
    /// End a pause.
    Resume {
        /// Module.
        module: ModuleName,
        /// Node; all when absent.
        node: Option<NodeName>,
    },
    /// A node is worked on, or is not any more.
    Maintenance {
        /// Node.
        node: NodeName,
        /// Of this module only; between daemons.
        module: Option<ModuleName>,
        /// For so many seconds from now on; the end of it when absent.
        seconds: Option<u64>,
    },
    /// Wait until a module is in a state.
    Wait {
        /// Module.
        module: ModuleName,
        /// State.
        state: WaitFor,
        /// Give up after so many milliseconds.
        timeout_ms: u64,
    },
    /// Cap a module's resyncs, until its source's daemon or replicator is started anew.
    ResyncRate {
        /// Module.
        module: ModuleName,
        /// Node; the one that serves when absent.
        node: Option<NodeName>,
        /// In bytes per second; unlimited when absent.
        bytes_per_second: Option<u64>,
    },
    /// Compare both copies of a module, while it is used.
    Verify {
        /// Module.
        module: ModuleName,
        /// Node; the one that serves when absent.
        node: Option<NodeName>,
        /// Whether what differs is made equal to the copy of the node that serves.
        repair: bool,
    },
    /// Remove a node from the cluster.
    Leave {
        /// Node; this one when absent.
        node: Option<NodeName>,
    },
    /// Change the key that all nodes share, while everything goes on.
    RotateKey,
    /// Between daemons: use these keys of the cluster.
    AdoptClusterKey {
        /// The file.
        text: String,
    },
    /// Between daemons: take this `cluster.toml` into use.
    AdoptCluster {
        /// The file.
        text: String,
        /// Digest of the cluster's configuration that it replaces.
        was: u64,
    },
    /// What concerns the configuration of the whole cluster.
    Configuration {
        /// What.
        ask: Configuring,
    },
    /// The state of a module on one node, as a daemon would find it that is started now: JSON as a
    /// text, for its ids are longer than a JSON number may be.
    Found {
        /// Module.
        module: ModuleName,
        /// Node; this one when absent.
        node: Option<NodeName>,
    },
    /// A part of a copy, as a list.
    Page {
        /// Which.
        page: PageAsked,
    },
    /// Between daemons: stop the module here without handing it over, as its other nodes stop too.
    StopAll {
        /// Module.
        module: ModuleName,
    },
}

/// What is asked about the configuration of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "configuration", rename_all = "kebab-case")]
pub enum Configuring {
    /// Apply a configuration to all nodes, or say what would become of that.
    Apply {
        /// How.
        how: Applying,
    },
    /// The configurations that were applied.
    History,
    /// One of them, whole.
    Show {
        /// Its number, or the name under which edited files were set aside.
        which: String,
    },
    /// Between daemons: agree to a configuration, or say whether this node would.
    Prepare {
        /// The configuration.
        proposal: Box<Proposal>,
        /// Whether nothing comes of it.
        dry_run: bool,
    },
    /// Between daemons: what was agreed to was decided.
    Commit {
        /// The proposal.
        id: String,
        /// What it leads to.
        stand: Stand,
    },
    /// Between daemons: what was agreed to comes to nothing.
    Abandon {
        /// The proposal.
        id: String,
    },
    /// Between daemons: say what is known of a proposal, as a `Testimony`.
    Testify {
        /// The proposal.
        id: String,
        /// What it leads to.
        stand: Stand,
    },
    /// Between daemons: hand out the newest configuration, as a `Newest`.
    Fetch {
        /// What the asker has.
        own: Stand,
    },
}

/// How a configuration is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applying {
    /// Which one.
    pub source: ConfigurationSource,
    /// Whether nothing comes of it.
    pub dry_run: bool,
    /// Whether what was edited elsewhere may be set aside.
    pub overwrite: bool,
    /// Nodes that are away.
    pub without: Vec<NodeName>,
}

/// Where a configuration comes from that shall be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigurationSource {
    /// The files of the node that is asked.
    Files,
    /// The one before the newest.
    Previous,
    /// The one of this number.
    Number(u64),
}

/// The newest configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The configuration.
    pub version: Version,
    /// Whether the node has, or has had, the one of the asker.
    pub knows_own: bool,
}

/// A state to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitFor {
    /// Primary and up-to-date secondary.
    Protected,
    /// Somebody serves.
    Serving,
    /// Somebody serves without an up-to-date peer.
    Alone,
    /// Stopped on every node.
    Stopped,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Version of the shapes.
    pub schema: u32,
    /// How it ended.
    pub outcome: Exit,
    /// One sentence.
    pub sentence: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

impl Reply {
    /// A reply without data.
    #[must_use]
    pub fn new(outcome: Exit, sentence: impl Into<String>) -> Reply {
        let sentence = sentence.into();
        Reply { schema: SCHEMA, outcome, sentence, next: Vec::new(), data: Value::Null }
    }
}

/// How a command ended; the numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: tried and failed.
    Failed,
    /// 2: the command or a configuration is wrong; nothing was changed.
    Usage,
    /// 3: not reached in time.
    Timeout,
    /// 4: refused by a safety rule; nothing was changed.
    Refused,
    /// 5: a node cannot be reached.
    Unreachable,
    /// 6: not authorised.
    Unauthorised,
}

impl Exit {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Timeout => 3,
            Exit::Refused => 4,
            Exit::Unreachable => 5,
            Exit::Unauthorised => 6,
        }
    }
}
