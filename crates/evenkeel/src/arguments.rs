//! The command line's words.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::act::{
    ForceArgs, MaintenanceCommand, ModuleArgs, PauseArgs, ResyncRateArgs, SwitchoverArgs,
    VerifyArgs, WaitArgs,
};
use crate::command::checks::ChecksArgs;
use crate::command::configuration::{ApplyArgs, ConfigCommand, PlanArgs, RollbackArgs};
use crate::command::demo::{DemoArgs, LedgerArgs};
use crate::command::events::EventsArgs;
use crate::command::heal::HealArgs;
use crate::command::lab::LabCommand;
use crate::command::membership::{InitArgs, JoinArgs, LeaveArgs, TokenArgs};
use crate::command::mount::MountArgs;
use crate::command::process::{DaemonArgs, KeeperArgs, ReplicatorArgs, WitnessArgs};
use crate::command::replay::ReplayArgs;
use crate::command::simulate::SimulateArgs;
use crate::command::status::StatusArgs;
use crate::command::web::WebArgs;
use crate::command::why::WhyArgs;

/// High availability for two ordinary servers: replication, failover, virtual address.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Directory that holds this node's /etc, /var and /run, for labs.
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub(crate) root: PathBuf,

    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch two nodes, one address and a database go through failover, on this machine alone.
    Demo(DemoArgs),
    /// Show the state of all modules, or of one in detail.
    Status(StatusArgs),
    /// Explain why a module is in its present state.
    Why(WhyArgs),
    /// Show what the checks of applications say on this node.
    Checks(ChecksArgs),
    /// Show what happened.
    Events(EventsArgs),
    /// Go step by step through what this node was told and decided; exit status 1 when this program
    /// would decide otherwise.
    Replay(ReplayArgs),
    /// Tell what would happen to a module from its present state on; nothing real is touched.
    Simulate(SimulateArgs),
    /// Start a module on all of its nodes, or on one.
    Start(ModuleArgs),
    /// Stop a module on all of its nodes, or on one; its peer takes over then.
    Stop(ModuleArgs),
    /// Hand a module over to its other node.
    Switchover(SwitchoverArgs),
    /// Make a node primary on your word; the only way to lose data.
    ForcePrimary(ForceArgs),
    /// Show the two sides of a split brain, and choose the one whose data are to stay.
    Heal(HealArgs),
    /// Answer no failure of a module for a time: nothing is restarted, stopped or taken over.
    Pause(PauseArgs),
    /// End a pause.
    Resume(ModuleArgs),
    /// Begin or end work on a node, which hands its applications over and ends by itself.
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Cap how fast a resync compares and sends, also while it runs.
    ResyncRate(ResyncRateArgs),
    /// Compare both copies of a module while it is used; exit status 1 when they differ.
    Verify(VerifyArgs),
    /// Wait until a module is in a state.
    Wait(WaitArgs),
    /// Begin a cluster with this machine as its first node.
    Init(InitArgs),
    /// Make a token by which another machine can join the cluster of this one.
    Token(TokenArgs),
    /// Make this machine a node of a cluster.
    Join(JoinArgs),
    /// Take this node out of its cluster, or one that is gone for ever.
    Leave(LeaveArgs),
    /// Change the key that all nodes share, while everything goes on.
    RotateKey,
    /// Check the configuration files of this node; changes nothing.
    Check,
    /// Show what `apply` would change, on which nodes, and what has to be stopped for it.
    Plan(PlanArgs),
    /// Apply the configuration files of this node to all nodes, or to none.
    Apply(ApplyArgs),
    /// Apply an earlier configuration again.
    Rollback(RollbackArgs),
    /// Show the configurations that were applied.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Serve a directory through the file system layer, without replication.
    Mount(MountArgs),
    /// Build clusters on this machine and break them.
    #[command(subcommand)]
    Lab(LabCommand),
    /// Run this node's daemon.
    Daemon(DaemonArgs),
    /// Run a witness, on a third machine.
    Witness(WitnessArgs),
    /// Run the keeper of a module's replicator; started by the daemon.
    #[command(hide = true)]
    Keeper(KeeperArgs),
    /// Run the replicator of a module; started by its keeper.
    #[command(hide = true)]
    Replicator(ReplicatorArgs),
    /// Run the ledger, the demo's built-in application.
    #[command(hide = true)]
    Ledger(LedgerArgs),
    /// Run a small web server that says on which host it runs.
    #[command(hide = true)]
    Web(WebArgs),
}
