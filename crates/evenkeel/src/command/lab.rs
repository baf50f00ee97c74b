//! `evenkeel lab ...`: builds labs by hand and breaks them. Each command attaches to the lab by its
//! name, so none depends on another still running. All work is done by the crate `lab`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lab::{HostSpec, Lab, LabInfo, LabOptions};
use model::NodeName;
use node::Authority;

use crate::command::print;

/// What can be done with labs.
#[derive(Debug, clap::Subcommand)]
pub enum LabCommand {
    /// Build a lab that stays until `lab down`
    Up(UpArgs),
    /// Remove a lab, or all that nobody owns
    Down {
        /// Name of the lab; all kept or dead labs if missing
        name: Option<String>,
    },
    /// List labs with their hosts
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a host and pass on its exit code
    Exec {
        /// Name of the lab
        name: String,
        /// Name of the host
        host: String,
        /// User that runs it
        #[arg(long, default_value = "root")]
        user: String,
        /// The command, after `--`
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Kill a host with all its processes at once
    Kill(HostArgs),
    /// Boot a host that is down
    Start(HostArgs),
    /// Take the power from a host: what was not synced is gone
    Power(HostArgs),
    /// Stop all processes of a host where they are
    Freeze(HostArgs),
    /// Let a frozen host go on
    Thaw(HostArgs),
    /// Cut the link between two hosts; others still reach both
    Cut {
        /// Name of the lab
        name: String,
        /// One host, the sender with `--one-way`
        one: String,
        /// The other host
        other: String,
        /// Cut only what goes from the first to the second
        #[arg(long)]
        one_way: bool,
        /// Cut only datagrams, and so heartbeats; connections go on
        #[arg(long, conflicts_with = "one_way")]
        datagrams: bool,
    },
    /// Restore all links
    Heal {
        /// Name of the lab
        name: String,
    },
    /// Make keys of a cluster: a directory for each node, with what belongs in etc/evenkeel/keys
    Keys {
        /// Where the directories are made
        directory: PathBuf,
        /// Names of the nodes
        #[arg(required = true, value_parser = NodeName::new)]
        nodes: Vec<NodeName>,
    },
}

/// Size and shape of a lab to build.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Name of the lab
    #[arg(long, default_value = "lab")]
    name: String,
    /// Number of nodes, each with a disk for state and one for data
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Number of hosts without disks
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Number of networks that join all hosts
    #[arg(long, default_value_t = 1)]
    networks: usize,
    /// Boot a real systemd on the nodes
    #[arg(long)]
    systemd: bool,
    /// Size of each disk, in GiB; space is taken as it is used
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    disk_gib: u64,
}

/// One host of one lab.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// Name of the lab
    name: String,
    /// Name of the host
    host: String,
}

/// Does what the command line asks for. Exit codes: 0 done, 1 failed, 2 no such lab or host,
/// 3 not in time, 4 in use by another process, 6 not root; of `exec`, those of its command.
pub fn run(command: LabCommand) -> ExitCode {
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("evenkeel lab: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn dispatch(command: LabCommand) -> lab::Result<ExitCode> {
    match command {
        LabCommand::Up(args) => up(&args)?,
        LabCommand::Down { name } => down(name)?,
        LabCommand::List { json } => list(json)?,
        LabCommand::Exec { name, host, user, command } => {
            return exec(&name, &host, &user, command);
        }
        LabCommand::Kill(args) => Lab::attach(&args.name)?.kill(&args.host)?,
        LabCommand::Start(args) => Lab::attach(&args.name)?.start(&args.host)?,
        LabCommand::Power(args) => Lab::attach(&args.name)?.power(&args.host)?,
        LabCommand::Freeze(args) => Lab::attach(&args.name)?.freeze(&args.host)?,
        LabCommand::Thaw(args) => Lab::attach(&args.name)?.thaw(&args.host)?,
        LabCommand::Cut { name, one, other, one_way, datagrams } => {
            let lab = Lab::attach(&name)?;
            match (one_way, datagrams) {
                (true, _) => lab.cut_one_way(&one, &other)?,
                (false, true) => lab.cut_datagrams(&one, &other)?,
                (false, false) => lab.cut(&one, &other)?,
            }
        }
        LabCommand::Heal { name } => Lab::attach(&name)?.heal()?,
        LabCommand::Keys { directory, nodes } => keys(&directory, &nodes)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn keys(directory: &Path, nodes: &[NodeName]) -> lab::Result<()> {
    let failed = |source| lab::Error::Io { what: "cannot make keys".to_owned(), source };
    let authority = Authority::new("lab").map_err(failed)?;
    for node in nodes {
        authority.furnish(node, &directory.join(node.as_str())).map_err(failed)?;
    }
    Ok(())
}

fn up(args: &UpArgs) -> lab::Result<()> {
    let binary = std::env::current_exe().map_err(|source| lab::Error::Io {
        what: "cannot find the own binary".to_owned(),
        source,
    })?;
    let node = |number| {
        let mut spec = HostSpec::node(&format!("node{number}"));
        spec.disks.iter_mut().for_each(|disk| disk.bytes = args.disk_gib << 30);
        if args.systemd { spec.systemd() } else { spec }
    };
    let client = |number| match args.clients {
        1 => HostSpec::client("client"),
        _ => HostSpec::client(&format!("client{number}")),
    };
    let lab = Lab::create(LabOptions {
        name: args.name.clone(),
        binary,
        networks: (0..args.networks).map(|number| format!("lan{number}")).collect(),
        hosts: (1..=args.nodes).map(node).chain((1..=args.clients).map(client)).collect(),
    })?;
    if args.systemd {
        lab.hosts()?.iter().try_for_each(lab::Host::wait_ready)?;
    }
    let lab = lab.keep()?;
    let info = lab.info()?;
    print_lab(&info);
    let name = &info.name;
    print("");
    print(&format!("Enter a node:  evenkeel lab exec {name} node1 -- bash"));
    print(&format!("Break it:      evenkeel lab kill|power|freeze {name} node1"));
    print(&format!("Remove it:     evenkeel lab down {name}"));
    Ok(())
}

fn down(name: Option<String>) -> lab::Result<()> {
    if let Some(name) = name {
        return Lab::remove(&name);
    }
    for info in Lab::list()?.into_iter().filter(|info| info.owner.is_none()) {
        Lab::remove(&info.name)?;
        print(&format!("removed {}", info.name));
    }
    Lab::sweep()
}

fn list(json: bool) -> lab::Result<()> {
    let labs = Lab::list()?;
    if json {
        print(&serde_json::json!(labs).to_string());
        return Ok(());
    }
    if labs.is_empty() {
        print("There is no lab; `evenkeel lab up` builds one.");
    }
    labs.iter().for_each(print_lab);
    Ok(())
}

fn exec(name: &str, host: &str, user: &str, command: Vec<OsString>) -> lab::Result<ExitCode> {
    let mut command = Lab::attach(name)?.host(host)?.command_as(user, command)?;
    let status = command.status().map_err(|source| lab::Error::Io {
        what: format!("cannot run a command on {host}"),
        source,
    })?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn print_lab(info: &LabInfo) {
    let owner = match (info.kept, info.owner) {
        (true, _) => "kept".to_owned(),
        (false, Some(pid)) => format!("owned by process {pid}"),
        (false, None) => "dead; the next lab removes it".to_owned(),
    };
    print(&format!("lab {} ({owner})", info.name));
    for host in &info.hosts {
        let state = host.init.map_or_else(|| "down".to_owned(), |pid| format!("up, init {pid}"));
        print(&format!("  {:<10} {:<24} {state}", host.name, host.addresses.join(" ")));
    }
    for (from, to) in &info.cuts {
        print(&format!("  cut: {from} -> {to}"));
    }
    for (from, to) in &info.datagram_cuts {
        print(&format!("  cut for datagrams: {from} -> {to}"));
    }
    for (host, network) in &info.pulled {
        print(&format!("  unplugged: {host} from {network}"));
    }
}

fn exit_code(error: &lab::Error) -> u8 {
    match error {
        lab::Error::Invalid(_) | lab::Error::NoLab { .. } => 2,
        lab::Error::Late { .. } => 3,
        lab::Error::InUse { .. } => 4,
        lab::Error::NotRoot => 6,
        lab::Error::Missing { .. }
        | lab::Error::NoLoop(_)
        | lab::Error::NoCgroup(_)
        | lab::Error::Down(_)
        | lab::Error::Boot { .. }
        | lab::Error::Refused { .. }
        | lab::Error::Network { .. }
        | lab::Error::Io { .. } => 1,
    }
}
