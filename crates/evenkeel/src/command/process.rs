//! The commands that are processes of their own: daemon, replicator, witness.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use model::{ModuleName, NodeName};
use node::daemon::StartError;
use node::{DaemonOptions, Enrolled, EnrolledCluster, ReplicatorOptions, WitnessOptions};
use serde_json::json;
use wire::control::{Exit, Reply};

use crate::command::Context;

/// How to run a daemon.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Name of this node in cluster.toml; the host name by default.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
}

/// How to run a witness.
#[derive(Debug, Args)]
pub(crate) struct WitnessArgs {
    /// Address and port to listen on.
    #[arg(long, default_value = "0.0.0.0:7623")]
    listen: SocketAddr,
    /// Directory of its registers, its certificate and the clusters that it serves.
    #[arg(long, global = true, default_value = "/var/lib/evenkeel-witness")]
    directory: PathBuf,
    /// Answer everybody in the clear: for labs without keys.
    #[arg(long)]
    open: bool,
    #[command(subcommand)]
    action: Option<WitnessAction>,
}

/// What can be done with a witness besides running it.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WitnessAction {
    /// Show its fingerprint, and the clusters that it serves.
    Show,
    /// Serve a cluster from now on.
    Add {
        /// The cluster's ca.pem.
        authority: PathBuf,
    },
    /// Serve a cluster no more; its registers stay.
    Remove {
        /// Its id, as `show` prints it.
        id: String,
    },
}

/// How to run a replicator.
#[derive(Debug, Args)]
pub(crate) struct ReplicatorArgs {
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    #[arg(long, value_parser = ModuleName::new)]
    cluster: ModuleName,
    #[arg(long, value_parser = NodeName::new)]
    node: NodeName,
    #[arg(long)]
    number: u64,
    #[arg(long)]
    log: PathBuf,
    /// Directory of the cluster's keys.
    #[arg(long)]
    keys: PathBuf,
    #[arg(long = "directory")]
    directories: Vec<PathBuf>,
    #[arg(long)]
    exclude: Vec<String>,
    /// The descriptor that leads to the keeper.
    #[arg(long)]
    keeper: Option<i32>,
    /// File that says until when something covered the directories.
    #[arg(long)]
    covered: PathBuf,
}

/// How to run the keeper of a replicator.
#[derive(Debug, Args)]
pub(crate) struct KeeperArgs {
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// The file by which to join a control group.
    #[arg(long)]
    group: Option<PathBuf>,
    /// What the replicator is told besides its module.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn daemon(context: &Context, args: DaemonArgs) -> ExitCode {
    end_on_panic();
    let options = DaemonOptions { root: context.root.clone(), node: args.node };
    match node::daemon::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("✖ {error}");
            let exit = match error {
                StartError::Configuration(_) | StartError::UnknownNode { .. } => Exit::Usage,
                StartError::NoKeys(_) | StartError::Interrupted(_) => Exit::Refused,
                StartError::NotPrivileged | StartError::NoFuse(_) | StartError::Keys(_) => {
                    Exit::Usage
                }
                StartError::AlreadyRunning(_) | StartError::System { .. } => Exit::Failed,
            };
            ExitCode::from(exit.code())
        }
    }
}

pub(crate) fn witness(context: &Context, args: WitnessArgs) -> ExitCode {
    if let Some(action) = args.action {
        return manage_witness(context, &Enrolled::new(&args.directory), action);
    }
    end_on_panic();
    let WitnessArgs { listen, directory, open, .. } = args;
    finish(node::run_witness(&WitnessOptions { listen, directory, open }))
}

fn manage_witness(context: &Context, enrolled: &Enrolled, action: WitnessAction) -> ExitCode {
    let called = |cluster: &EnrolledCluster| match &cluster.name {
        Some(name) => format!("{} ({name})", cluster.id),
        None => cluster.id.clone(),
    };
    let done = match action {
        WitnessAction::Show => enrolled.fingerprint().and_then(|fingerprint| {
            let clusters = enrolled.clusters()?;
            let mut text = format!("fingerprint = \"{fingerprint}\"");
            for cluster in &clusters {
                text += &format!("\nserves {}", called(cluster));
            }
            let data = json!({ "fingerprint": fingerprint.to_string(), "clusters": clusters });
            Ok(Reply { data, ..Reply::new(Exit::Done, text) })
        }),
        WitnessAction::Add { authority } => enrolled.add(&authority).map(|cluster| {
            let text = format!("✔ cluster {} is served from now on", called(&cluster));
            Reply { data: json!(cluster), ..Reply::new(Exit::Done, text) }
        }),
        WitnessAction::Remove { id } => enrolled
            .remove(&id)
            .map(|()| Reply::new(Exit::Done, format!("✔ cluster {id} is served no more"))),
    };
    let reply = done.unwrap_or_else(|error| Reply::new(Exit::Failed, error.to_string()));
    context.finish(&reply, |reply| reply.sentence.clone())
}

pub(crate) fn replicator(args: ReplicatorArgs) -> ExitCode {
    end_on_panic();
    finish(node::replicator::run(ReplicatorOptions {
        module: args.module,
        cluster: args.cluster,
        node: args.node,
        number: args.number,
        log: args.log,
        keys: args.keys,
        directories: args.directories,
        exclude: args.exclude,
        keeper: args.keeper,
        covered: args.covered,
    }))
}

pub(crate) fn keeper(context: &Context, args: KeeperArgs) -> ExitCode {
    end_on_panic();
    let mut arguments: Vec<OsString> = vec!["--root".into(), context.root.clone().into()];
    arguments.extend(["replicator".into(), args.module.as_str().into()]);
    arguments.extend(args.arguments);
    match node::keeper::run(node::KeeperOptions { arguments, group: args.group }) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => finish(Err(error)),
    }
}

fn finish(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("✖ {error}");
            ExitCode::FAILURE
        }
    }
}

/// A process that lost one of its threads is half dead, which is worse than gone: its peers and
/// its daemon know what to do with one that is gone.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
