//! A module's file: its keys, their defaults and what they must agree on.
//!
//! What two modules must agree on is in `together`; whether a directory exists or a unit is
//! installed is for the shell to find out.

use std::path::PathBuf;
use std::time::Duration;

use super::check::read_checks;
use super::cluster_file::{twice, unknown};
use super::diagnostic::{Diagnostics, Source};
use super::farm::{FARM_NODES_MAX, limit_addresses, read_farm, refuse_farm};
use super::light::refuse_foreign;
use super::reader::{Keys, Placed, Problem, Report, Section, allowed};
use super::{
    Ack, AfterDoubleCrash, ClusterConfig, CommandConfig, Compression, FailoverConfig, FailoverMode,
    InUse, Keep, ModuleConfig, ModuleKind, ReplicationConfig, Scripts, StopSignal, Vip,
    WithoutWitness, values,
};
use crate::{ModuleName, NodeName};

const ROOT: Keys = Keys {
    place: "the module's file",
    known: &[
        "module",
        "kind",
        "nodes",
        "replicate",
        "services",
        "vip",
        "command",
        "scripts",
        "replication",
        "failover",
        "check",
        "balance",
        "farm",
    ],
    later: &["vm", "container", "notify"],
};
const VIP: Keys = Keys { place: "[[vip]]", known: &["address", "interface"], later: &[] };
const COMMAND: Keys = Keys {
    place: "[[command]]",
    known: &["name", "run", "user", "stop_signal", "stop_timeout"],
    later: &[],
};
const SCRIPTS: Keys =
    Keys { place: "[scripts]", known: &["start", "stop", "before_resync"], later: &[] };
const REPLICATION: Keys = Keys {
    place: "[replication]",
    known: &["ack", "compression", "encrypt", "exclude", "in_use", "resync_rate", "stall_timeout"],
    later: &[],
};
const FAILOVER: Keys = Keys {
    place: "[failover]",
    known: &[
        "timeout",
        "mode",
        "prefer",
        "without_witness",
        "after_double_crash",
        "keep",
        "max_restarts",
        "restart_window",
    ],
    later: &[],
};

const TIMEOUT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_WITH_WITNESS: Duration = Duration::from_secs(2);
/// Longer, for without a witness a false alarm can make both nodes run.
const TIMEOUT_WITHOUT_WITNESS: Duration = Duration::from_secs(5);

const MAX_RESTARTS_MAX: u32 = 1000;
const MAX_RESTARTS: u32 = 3;
const RESTART_WINDOW_MIN: Duration = Duration::from_secs(60);
const RESTART_WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const RESTART_WINDOW: Duration = Duration::from_secs(24 * 3600);

const STOP_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Patterns of what is not replicated: each is looked at with each name.
const EXCLUDE_MAX: usize = 64;

const STALL_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

const ACKS: &[(&str, Ack)] = &[("write", Ack::Write), ("fsync", Ack::Fsync)];
const COMPRESSIONS: &[(&str, Compression)] =
    &[("none", Compression::None), ("lz4", Compression::Lz4)];
const IN_USE: &[(&str, InUse)] = &[("refuse", InUse::Refuse), ("allow", InUse::Allow)];
const STOP_SIGNALS: &[(&str, StopSignal)] =
    &[("TERM", StopSignal::Term), ("INT", StopSignal::Int), ("QUIT", StopSignal::Quit)];
const FAILOVER_MODES: &[(&str, FailoverMode)] =
    &[("automatic", FailoverMode::Automatic), ("manual", FailoverMode::Manual)];
const AFTER_DOUBLE_CRASH: &[(&str, AfterDoubleCrash)] =
    &[("wait", AfterDoubleCrash::Wait), ("go-on", AfterDoubleCrash::GoOn)];
const KEEP: &[(&str, Keep)] =
    &[("manual", Keep::Manual), ("longest-serving", Keep::LongestServing)];
const WITHOUT_WITNESS: &[(&str, WithoutWitness)] =
    &[("go-on", WithoutWitness::GoOn), ("wait", WithoutWitness::Wait)];

/// Reads the file of one module of `cluster`.
///
/// # Errors
/// Every mistake in the file.
pub fn parse_module(
    source: &Source<'_>,
    cluster: &ClusterConfig,
) -> Result<ModuleConfig, Diagnostics> {
    let (mut report, root) = Report::open(source);
    let root = Section::root(&mut report, &root, &ROOT);
    let module = read(&mut report, &root, cluster);
    report.finish(module)
}

fn read(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    cluster: &ClusterConfig,
) -> Option<ModuleConfig> {
    let name = root.required(report, "module", "module = \"shop\"", values::name::<ModuleName>);
    let kind = root.required(report, "kind", "kind = \"mirror\"", kind);
    // Everything is read before anything is given up, so that every mistake is found.
    let known_kind = kind.as_ref().map(|kind| kind.value);
    let nodes = read_nodes(report, root, cluster, known_kind);
    let (farm, replicate) = match known_kind {
        Some(ModuleKind::Farm) => (Some(read_farm(report, root, &nodes)), Vec::new()),
        Some(ModuleKind::Mirror) => {
            refuse_farm(report, root);
            (None, read_directories(report, root))
        }
        Some(ModuleKind::Light) => {
            refuse_farm(report, root);
            (None, Vec::new())
        }
        None => (None, read_directories(report, root)),
    };
    let vips = read_vips(report, root, cluster);
    match known_kind {
        Some(ModuleKind::Light) => refuse_foreign(report, root, &nodes, &vips),
        Some(ModuleKind::Farm) => limit_addresses(report, root, vips.len()),
        Some(ModuleKind::Mirror) | None => {}
    }
    let services = read_services(report, root);
    let commands = read_commands(report, root);
    let scripts = read_scripts(report, root);
    let replication = read_replication(report, root);
    let failover = read_failover(report, root, cluster, &nodes);
    let checks = read_checks(report, root, known_kind, &commands, &services);
    Some(ModuleConfig {
        name: name?.value,
        kind: kind?.value,
        nodes,
        replicate,
        vips,
        services,
        commands,
        scripts,
        replication,
        failover,
        checks,
        farm,
    })
}

fn kind(text: &str) -> Result<ModuleKind, Problem> {
    match text {
        "mirror" => Ok(ModuleKind::Mirror),
        "farm" => Ok(ModuleKind::Farm),
        "light" => Ok(ModuleKind::Light),
        _ => Err(Problem::new(format!("there is no kind \"{text}\""))
            .help(allowed(text, &["mirror", "farm", "light"]))),
    }
}

fn read_nodes(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    cluster: &ClusterConfig,
    kind: Option<ModuleKind>,
) -> Vec<NodeName> {
    let all: Vec<NodeName> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let known: Vec<&str> = all.iter().map(NodeName::as_str).collect();
    let count_before = report.count();
    let listed = root.texts(report, "nodes", values::filled);
    let mut nodes: Vec<NodeName> = Vec::new();
    for entry in listed.iter().flatten() {
        let found = all.iter().find(|name| name.as_str() == entry.value);
        let problem = match found {
            None => unknown("node", entry, &known),
            Some(name) if nodes.contains(name) => Problem::new(format!("`{name}` is listed twice")),
            Some(name) => {
                nodes.push(name.clone());
                continue;
            }
        };
        report.add(Some(entry.span.clone()), problem);
    }
    let nodes = if listed.is_some() { nodes } else { all.clone() };
    let (count, known) = (nodes.len(), known.join(", "));
    let problem = match kind {
        Some(ModuleKind::Mirror) if count != 2 => {
            Problem::new(format!("a mirror has two nodes, not {count}"))
                .help(format!("name two in `nodes`; the cluster has {known}"))
        }
        Some(ModuleKind::Farm) if count == 0 => Problem::new("a farm has at least one node")
            .help(format!("name it in `nodes`; the cluster has {known}")),
        Some(ModuleKind::Farm) if count > FARM_NODES_MAX => {
            Problem::new(format!("a farm has {FARM_NODES_MAX} nodes at most, not {count}"))
                .help("name fewer in `nodes`, or make two farms of them")
        }
        Some(ModuleKind::Light) if count == 0 => {
            Problem::new("a light module has at least one node")
                .help(format!("name it in `nodes`; the cluster has {known}"))
        }
        Some(ModuleKind::Mirror | ModuleKind::Farm | ModuleKind::Light) | None => return nodes,
    };
    if report.count() == count_before {
        report.missing(root.span_of("nodes"), problem);
    }
    nodes
}

fn read_directories(report: &mut Report<'_>, root: &Section<'_, '_>) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    let count_before = report.count();
    let listed = root.texts(report, "replicate", values::directory);
    if !root.has("replicate") {
        root.missing(report, "replicate", "replicate = [\"/srv/shop\"]");
    } else if listed.as_ref().is_some_and(Vec::is_empty) && report.count() == count_before {
        let problem = Problem::new("a mirror replicates at least one directory")
            .help("name it, such as replicate = [\"/srv/shop\"]");
        report.missing(root.span_of("replicate"), problem);
    }
    for Placed { value, span } in listed.unwrap_or_default() {
        let other = directories.iter().find(|d| value.starts_with(d) || d.starts_with(&value));
        if let Some(other) = other {
            report.add(Some(span), nested(&value, other, "this module"));
        } else {
            directories.push(value);
        }
    }
    directories
}

/// Two directories, one of which contains the other.
pub(super) fn nested(path: &PathBuf, other: &PathBuf, whose: &str) -> Problem {
    let (path_text, other_text) = (path.display(), other.display());
    if path == other {
        return Problem::new(format!("{path_text} is already replicated by {whose}"))
            .help("remove it from one of the two places");
    }
    let message = if path.starts_with(other) {
        format!("{path_text} lies inside {other_text}, which is replicated by {whose}")
    } else {
        format!("{path_text} contains {other_text}, which is replicated by {whose}")
    };
    Problem::new(message).help("the outer directory alone includes the inner one: remove the inner")
}

fn read_vips(report: &mut Report<'_>, root: &Section<'_, '_>, cluster: &ClusterConfig) -> Vec<Vip> {
    let mut vips: Vec<Vip> = Vec::new();
    for section in root.sections(report, "vip", &VIP) {
        let example = "address = \"10.0.0.50/24\"";
        let address = section.required(report, "address", example, values::virtual_address);
        let interface = section.text(report, "interface", values::interface);
        let Some(Placed { value: (address, prefix), span }) = address else {
            continue;
        };
        let owner =
            cluster.nodes.iter().find(|node| node.addresses.values().any(|a| *a == address));
        if let Some(owner) = owner {
            let message = format!("{address} is {}'s own address and cannot move", owner.name);
            let help = "choose a free address of the same subnet";
            report.add(Some(span), Problem::new(message).help(help));
        } else if vips.iter().any(|vip| vip.address == address) {
            report.add(Some(span), Problem::new(format!("{address} is listed twice")));
        } else {
            let interface = interface.map(|interface| interface.value);
            vips.push(Vip { address, prefix, interface });
        }
    }
    vips
}

fn read_services(report: &mut Report<'_>, root: &Section<'_, '_>) -> Vec<String> {
    let mut services: Vec<String> = Vec::new();
    for Placed { value, span } in root.texts(report, "services", values::unit).unwrap_or_default() {
        if services.contains(&value) {
            report.add(Some(span), Problem::new(format!("`{value}` is listed twice")));
        } else {
            services.push(value);
        }
    }
    services
}

fn read_commands(report: &mut Report<'_>, root: &Section<'_, '_>) -> Vec<CommandConfig> {
    let mut commands: Vec<CommandConfig> = Vec::new();
    for section in root.sections(report, "command", &COMMAND) {
        let name =
            section.required(report, "name", "name = \"ledger\"", values::name::<ModuleName>);
        let run = read_run(report, &section, "run");
        let user = section.text(report, "user", values::filled);
        let stop_signal =
            section.text(report, "stop_signal", |text| values::word(text, STOP_SIGNALS));
        let stop_timeout = section.text(report, "stop_timeout", |text| {
            values::duration(text, STOP_TIMEOUT_MIN, STOP_TIMEOUT_MAX)
        });
        let Some(name) = name else { continue };
        if commands.iter().any(|known| known.name == name.value) {
            report.add(Some(name.span), twice("command", name.value.as_str()));
            continue;
        }
        commands.push(CommandConfig {
            name: name.value,
            run,
            user: user.map(|user| user.value),
            stop_signal: stop_signal.map_or(StopSignal::Term, |signal| signal.value),
            stop_timeout: stop_timeout.map_or(STOP_TIMEOUT, |timeout| timeout.value),
        });
    }
    commands
}

pub(super) fn read_run(
    report: &mut Report<'_>,
    section: &Section<'_, '_>,
    key: &'static str,
) -> Vec<String> {
    if !section.has(key) {
        let example = format!("{key} = [\"/usr/bin/prog\", \"argument\"]");
        section.missing(report, key, &example);
        return Vec::new();
    }
    let Some(run) = section.texts(report, key, |text| Ok(text.to_owned())) else {
        return Vec::new();
    };
    let problem = match run.first() {
        None => Some((
            section.span_of(key),
            Problem::new(format!("`{key}` names no program"))
                .help("the first entry is the program's whole path"),
        )),
        Some(first) => {
            values::program(&first.value).err().map(|problem| (Some(first.span.clone()), problem))
        }
    };
    if let Some((span, problem)) = problem {
        report.add(span, problem);
    }
    run.into_iter().map(|word| word.value).collect()
}

fn read_scripts(report: &mut Report<'_>, root: &Section<'_, '_>) -> Scripts {
    let Some(section) = root.section(report, "scripts", &SCRIPTS) else {
        return Scripts::default();
    };
    let mut script = |key| section.text(report, key, values::filled).map(|script| script.value);
    Scripts { start: script("start"), stop: script("stop"), before_resync: script("before_resync") }
}

fn read_replication(report: &mut Report<'_>, root: &Section<'_, '_>) -> ReplicationConfig {
    let section = root.section(report, "replication", &REPLICATION);
    let mut replication = ReplicationConfig {
        ack: Ack::Write,
        stall_timeout: STALL_TIMEOUT,
        resync_rate: None,
        compression: Compression::None,
        encrypt: true,
        in_use: InUse::Refuse,
        exclude: Vec::new(),
    };
    let Some(section) = section else { return replication };
    if let Some(ack) = section.text(report, "ack", |text| values::word(text, ACKS)) {
        replication.ack = ack.value;
    }
    let timeout = section.text(report, "stall_timeout", |text| {
        values::duration(text, STALL_TIMEOUT_MIN, STALL_TIMEOUT_MAX)
    });
    if let Some(timeout) = timeout {
        replication.stall_timeout = timeout.value;
    }
    let compression = section.text(report, "compression", |text| values::word(text, COMPRESSIONS));
    if let Some(compression) = compression {
        replication.compression = compression.value;
    }
    if let Some(encrypt) = section.truth(report, "encrypt") {
        replication.encrypt = encrypt;
    }
    let in_use = section.text(report, "in_use", |text| values::word(text, IN_USE));
    if let Some(in_use) = in_use {
        replication.in_use = in_use.value;
    }
    let exclude = section.texts(report, "exclude", values::pattern).unwrap_or_default();
    if exclude.len() > EXCLUDE_MAX {
        let problem = format!("{} patterns are more than {EXCLUDE_MAX}", exclude.len());
        report.add(section.span_of("exclude"), Problem::new(problem));
    }
    replication.exclude = exclude.into_iter().map(|pattern| pattern.value).collect();
    let rate = section.text(report, "resync_rate", values::rate);
    replication.resync_rate = rate.map(|rate| rate.value);
    replication
}

fn read_failover(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    cluster: &ClusterConfig,
    nodes: &[NodeName],
) -> FailoverConfig {
    let mut failover = FailoverConfig {
        timeout: match cluster.witness {
            Some(_) => TIMEOUT_WITH_WITNESS,
            None => TIMEOUT_WITHOUT_WITNESS,
        },
        mode: FailoverMode::Automatic,
        prefer: None,
        without_witness: WithoutWitness::GoOn,
        after_double_crash: AfterDoubleCrash::Wait,
        keep: Keep::Manual,
        max_restarts: MAX_RESTARTS,
        restart_window: RESTART_WINDOW,
    };
    let Some(section) = root.section(report, "failover", &FAILOVER) else {
        return failover;
    };
    let timeout =
        section.text(report, "timeout", |text| values::duration(text, TIMEOUT_MIN, TIMEOUT_MAX));
    if let Some(timeout) = timeout {
        failover.timeout = timeout.value;
    }
    if let Some(mode) = section.text(report, "mode", |text| values::word(text, FAILOVER_MODES)) {
        failover.mode = mode.value;
    }
    let known: Vec<(&str, &NodeName)> = nodes.iter().map(|node| (node.as_str(), node)).collect();
    let prefer = section.text(report, "prefer", |text| values::word(text, &known));
    failover.prefer = prefer.map(|prefer| prefer.value.clone());
    let policy =
        section.text(report, "without_witness", |text| values::word(text, WITHOUT_WITNESS));
    if let Some(policy) = policy {
        failover.without_witness = policy.value;
    }
    let crash =
        section.text(report, "after_double_crash", |text| values::word(text, AFTER_DOUBLE_CRASH));
    if let Some(crash) = crash {
        failover.after_double_crash = crash.value;
    }
    if let Some(keep) = section.text(report, "keep", |text| values::word(text, KEEP)) {
        failover.keep = keep.value;
    }
    if let Some(count) = section.whole(report, "max_restarts", 0, MAX_RESTARTS_MAX) {
        failover.max_restarts = count;
    }
    let window = section.text(report, "restart_window", |text| {
        values::duration(text, RESTART_WINDOW_MIN, RESTART_WINDOW_MAX)
    });
    if let Some(window) = window {
        failover.restart_window = window.value;
    }
    failover
}
