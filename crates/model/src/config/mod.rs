//! Validated configuration, defaults filled in.
//!
//! These types are what the rest of the program sees; that a value exists means it was checked.
//! Reading them from TOML, with the position of every mistake, is in the sibling modules. Reading
//! the files themselves is the shell's work.

mod change;
mod check;
mod cluster_file;
mod diagnostic;
mod digest;
mod farm;
mod files;
mod light;
mod module_file;
mod nearest;
mod reader;
mod show;
mod together;
mod values;

pub use change::{Change, ChangeEffect, changes, possible, to_stop};
pub use check::{CheckAction, CheckConfig, CheckKind, Watched};
pub use cluster_file::parse_cluster;
pub use diagnostic::{Diagnostic, Diagnostics, Source};
pub use digest::{cluster_digest, digest};
pub use farm::{Affinity, Balance, Delivery, FARM_NODES_MAX, FarmConfig, Protocol};
pub use files::{
    CLUSTER_FILE, Content, FILE_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, Files, MODULES, Stand,
    is_module_file,
};
pub use module_file::parse_module;
pub use together::{check_protected, check_together};
pub use values::bytes_per_second;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Fingerprint, ModuleName, NetworkName, NodeName};

/// The cluster: which nodes there are and how they reach each other (`cluster.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Name of the cluster; it obeys the rule of module names.
    pub cluster: ModuleName,
    /// Networks, in the order of the file.
    pub networks: Vec<Network>,
    /// Nodes, in the order of the file.
    pub nodes: Vec<NodeConfig>,
    /// Where the witness listens (TCP), if there is one.
    pub witness: Option<SocketAddr>,
    /// By which the witness is known, where there are keys.
    pub witness_fingerprint: Option<Fingerprint>,
    /// Whom a node pings to see whether it is cut off itself.
    #[serde(default)]
    pub isolation: Isolation,
    /// What holds a peer off, in the place of a witness.
    #[serde(default)]
    pub fence: Option<FenceConfig>,
    /// Where each node tells a balancer whether it serves (TCP), if it is to.
    #[serde(default)]
    pub health: Option<SocketAddr>,
    /// What resets a machine whose daemon stands still while it serves, if anything is to.
    #[serde(default)]
    pub watchdog: Option<WatchdogConfig>,
}

/// The device that resets a machine unless the daemon says again and again that it is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogConfig {
    /// Its device file.
    pub device: PathBuf,
    /// How long the daemon may be silent.
    pub timeout: Duration,
}

/// The command that holds a peer off, so that a node can go on without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceConfig {
    /// Program (an absolute path) and arguments.
    pub exec: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Whom a node pings to see whether it is cut off itself. Only without a witness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Its default gateway, as it finds it.
    #[default]
    Gateway,
    /// Any of these.
    Landmarks(Vec<IpAddr>),
    /// Nobody: no such check is made.
    Off,
}

impl ClusterConfig {
    /// The node called `name`.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}

/// A network that connects the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Whether replication may use it.
    pub replication: ReplicationUse,
}

/// Whether replication may use a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicationUse {
    /// First choice.
    Preferred,
    /// When no preferred network works.
    Allowed,
    /// Heartbeats only.
    Never,
}

/// A node and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Its name, by default matched with the host name.
    pub name: NodeName,
    /// One address per network.
    pub addresses: BTreeMap<NetworkName, IpAddr>,
}

/// A module (`modules/NAME.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleConfig {
    /// Its name, unique in the cluster.
    pub name: ModuleName,
    /// What it does with its nodes.
    pub kind: ModuleKind,
    /// The nodes it runs on; for a mirror exactly two, for a farm any number.
    pub nodes: Vec<NodeName>,
    /// Directories to replicate, absolute and normalised.
    pub replicate: Vec<PathBuf>,
    /// Virtual addresses.
    pub vips: Vec<Vip>,
    /// systemd units, in start order.
    pub services: Vec<String>,
    /// Programs that Evenkeel runs itself, in start order.
    pub commands: Vec<CommandConfig>,
    /// Scripts of the module.
    pub scripts: Scripts,
    /// How replication acknowledges.
    pub replication: ReplicationConfig,
    /// How and when a peer is given up.
    pub failover: FailoverConfig,
    /// Checks of the application, also those that no table names.
    #[serde(default)]
    pub checks: Vec<CheckConfig>,
    /// What a farm has of its own; none for any other kind.
    #[serde(default)]
    pub farm: Option<FarmConfig>,
}

/// What a module does with its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// One primary, its directories mirrored to a secondary.
    Mirror,
    /// The application on every node, clients spread over them.
    Farm,
    /// An application that each node runs by itself, with nothing replicated.
    Light,
}

/// A virtual address with its prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// Network interface; found by subnet when absent.
    pub interface: Option<String>,
}

/// A program that Evenkeel starts and stops itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandConfig {
    /// Its name within the module.
    pub name: ModuleName,
    /// Program (an absolute path) and arguments.
    pub run: Vec<String>,
    /// User to run it as; root when absent.
    pub user: Option<String>,
    /// Signal that asks it to stop.
    pub stop_signal: StopSignal,
    /// How long it may take to stop before it is killed.
    pub stop_timeout: Duration,
}

/// Signal that asks a program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopSignal {
    /// SIGTERM.
    #[serde(rename = "TERM")]
    Term,
    /// SIGINT: PostgreSQL's fast shutdown.
    #[serde(rename = "INT")]
    Int,
    /// SIGQUIT: graceful for nginx.
    #[serde(rename = "QUIT")]
    Quit,
}

/// Scripts of the module, run by `/bin/sh -c` as root; exit status 0 means success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Starts the application; it may leave processes behind.
    pub start: Option<String>,
    /// Stops it.
    pub stop: Option<String>,
    /// Runs at the target of a resync before its copy is changed, such as to keep a snapshot.
    #[serde(default)]
    pub before_resync: Option<String>,
}

/// How replication acknowledges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationConfig {
    /// When a call that changes data returns.
    pub ack: Ack,
    /// A target that takes nothing for so long is dropped.
    pub stall_timeout: Duration,
    /// What a resync may compare and send, in bytes per second; unlimited when absent.
    pub resync_rate: Option<u64>,
    /// How what travels between the nodes is compressed.
    pub compression: Compression,
    /// Whether what travels between the nodes is encrypted, once the cluster has keys.
    pub encrypt: bool,
    /// What to do about programs that use a directory from before it is replicated.
    pub in_use: InUse,
    /// Patterns of what is not replicated.
    pub exclude: Vec<String>,
}

/// What to do about programs that would change a directory past its replication, as they have a
/// file open for writing, or work in it, from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InUse {
    /// Name them and do not start.
    Refuse,
    /// Start all the same: they are known to change nothing.
    Allow,
}

/// How what travels between the nodes is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4, where that pays: for links that are slower than a processor.
    Lz4,
}

/// When a call that changes data returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// Once the kernels of both nodes have applied it.
    Write,
    /// At once; a sync once everything before it is applied, and the file durable, on both nodes.
    Fsync,
}

/// How and when a peer is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverConfig {
    /// Silence after which contact with the peer counts as lost.
    pub timeout: Duration,
    /// Whether a node takes the application over by itself.
    pub mode: FailoverMode,
    /// The node that is to run the application whenever both can.
    pub prefer: Option<NodeName>,
    /// What happens on lost contact when no witness is configured.
    pub without_witness: WithoutWitness,
    /// Whether a node that went down uncleanly leads while its peer is silent.
    #[serde(default)]
    pub after_double_crash: AfterDoubleCrash,
    /// Whose data are kept once both nodes have gone on without the other.
    #[serde(default)]
    pub keep: Keep,
    /// How often the application is restarted in place within `restart_window` before the peer is
    /// to try.
    pub max_restarts: u32,
    /// How long a failure of the application is remembered.
    pub restart_window: Duration,
}

/// Whether a node takes the application over by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverMode {
    /// As soon as it may.
    Automatic,
    /// On the operator's word only.
    Manual,
}

/// Whether a node that went down uncleanly may go on without its peer, which held the same data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterDoubleCrash {
    /// It waits for the peer, which may hold what was not on this disk yet.
    #[default]
    Wait,
    /// If the witness lets it: what was not on its disk is lost.
    GoOn,
}

/// Whose data are kept once both nodes have gone on without the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The operator says.
    #[default]
    Manual,
    /// Those of the node that has run the application longest since they went apart.
    LongestServing,
}

/// What happens on lost contact when no witness is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutWitness {
    /// Go on: available, but a cut link lets both nodes run.
    GoOn,
    /// Wait for the operator.
    Wait,
}
