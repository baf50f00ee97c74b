//! `cluster.toml`: its keys and what they must agree on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Diagnostics, Source};
use super::module_file::read_run;
use super::reader::{Keys, Placed, Problem, Report, Section, allowed};
use super::{
    ClusterConfig, FenceConfig, Isolation, Network, NodeConfig, ReplicationUse, WatchdogConfig,
    values,
};
use crate::{ModuleName, NetworkName, NodeName};

const ROOT: Keys = Keys {
    place: "cluster.toml",
    known: &["cluster", "network", "node", "witness", "isolation", "fence", "health", "watchdog"],
    later: &["notify"],
};
const NETWORK: Keys = Keys { place: "[[network]]", known: &["name", "replication"], later: &[] };
const NODE: Keys = Keys { place: "[[node]]", known: &["name", "addresses"], later: &[] };
const WITNESS: Keys = Keys { place: "[witness]", known: &["address", "fingerprint"], later: &[] };
const HEALTH: Keys = Keys { place: "[health]", known: &["address", "port"], later: &[] };
const ISOLATION: Keys = Keys { place: "[isolation]", known: &["ping"], later: &[] };
const FENCE: Keys = Keys { place: "[fence]", known: &["exec", "timeout"], later: &[] };

const WATCHDOG: Keys = Keys { place: "[watchdog]", known: &["device", "timeout"], later: &[] };

const WATCHDOG_DEVICE: &str = "/dev/watchdog";
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(15);
/// One step of a main loop, such as having a replicator write its markers, may take some seconds.
const WATCHDOG_TIMEOUT_MIN: Duration = Duration::from_secs(5);
const WATCHDOG_TIMEOUT_MAX: Duration = Duration::from_secs(120);

const FENCE_TIMEOUT: Duration = Duration::from_secs(30);
const FENCE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const FENCE_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Landmarks of the isolation check: each is pinged about once a second.
const LANDMARKS_MAX: usize = 8;

/// The network that exists when the file names none.
const DEFAULT_NETWORK: &str = "lan0";

const REPLICATION_USES: &[(&str, ReplicationUse)] = &[
    ("preferred", ReplicationUse::Preferred),
    ("allowed", ReplicationUse::Allowed),
    ("never", ReplicationUse::Never),
];

/// Reads `cluster.toml`.
///
/// # Errors
/// Every mistake in the file.
pub fn parse_cluster(source: &Source<'_>) -> Result<ClusterConfig, Diagnostics> {
    let (mut report, root) = Report::open(source);
    let root = Section::root(&mut report, &root, &ROOT);
    let cluster = read(&mut report, &root);
    report.finish(cluster)
}

fn read(report: &mut Report<'_>, root: &Section<'_, '_>) -> Option<ClusterConfig> {
    let cluster =
        root.required(report, "cluster", "cluster = \"demo\"", values::name::<ModuleName>);
    let networks = read_networks(report, root);
    let nodes = read_nodes(report, root, &networks);
    let fence = read_fence(report, root);
    let isolation = read_isolation(report, root, &nodes);
    let mut witness_fingerprint = None;
    let witness = root.section(report, "witness", &WITNESS).and_then(|section| {
        let example = "address = \"10.0.0.3\"";
        witness_fingerprint = section.text(report, "fingerprint", values::fingerprint);
        section.required(report, "address", example, values::witness_address)
    });
    let health = root.section(report, "health", &HEALTH);
    let health = health.and_then(|section| read_health(report, &section));
    Some(ClusterConfig {
        cluster: cluster?.value,
        networks,
        nodes,
        witness: witness.map(|witness| witness.value),
        witness_fingerprint: witness_fingerprint.map(|fingerprint| fingerprint.value),
        isolation,
        fence,
        health,
        watchdog: read_watchdog(report, root),
    })
}

fn read_watchdog(report: &mut Report<'_>, root: &Section<'_, '_>) -> Option<WatchdogConfig> {
    let section = root.section(report, "watchdog", &WATCHDOG)?;
    let device = section.text(report, "device", values::watchdog);
    let timeout = section.text(report, "timeout", |text| {
        values::seconds(text, WATCHDOG_TIMEOUT_MIN, WATCHDOG_TIMEOUT_MAX)
    });
    Some(WatchdogConfig {
        device: device.map_or_else(|| PathBuf::from(WATCHDOG_DEVICE), |device| device.value),
        timeout: timeout.map_or(WATCHDOG_TIMEOUT, |timeout| timeout.value),
    })
}

fn read_fence(report: &mut Report<'_>, root: &Section<'_, '_>) -> Option<FenceConfig> {
    let section = root.section(report, "fence", &FENCE)?;
    if root.has("witness") {
        let message = "a cluster has a witness or a [fence], not both";
        let help = "the witness could let one node go on while the other one is holding it off; \
                    with a witness alone no fencing is needed";
        report.missing(root.span_of("fence"), Problem::new(message).help(help));
    }
    let exec = read_run(report, &section, "exec");
    let timeout = section.text(report, "timeout", |text| {
        values::duration(text, FENCE_TIMEOUT_MIN, FENCE_TIMEOUT_MAX)
    });
    Some(FenceConfig { exec, timeout: timeout.map_or(FENCE_TIMEOUT, |timeout| timeout.value) })
}

fn read_isolation(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    nodes: &[NodeConfig],
) -> Isolation {
    let Some(section) = root.section(report, "isolation", &ISOLATION) else {
        return Isolation::Gateway;
    };
    let Some(listed) = section.texts(report, "ping", values::host_address) else {
        if !section.has("ping") {
            section.missing(report, "ping", "ping = [\"10.0.0.254\"], or ping = [] for no check");
        }
        return Isolation::Gateway;
    };
    if listed.len() > LANDMARKS_MAX {
        let problem = format!("{} landmarks are more than {LANDMARKS_MAX}", listed.len());
        report.add(section.span_of("ping"), Problem::new(problem));
    }
    let mut landmarks: Vec<IpAddr> = Vec::new();
    for Placed { value, span } in listed {
        let owner = nodes.iter().find(|node| node.addresses.values().any(|a| *a == value));
        if let Some(owner) = owner {
            let message = format!("{value} is an address of {}, which says nothing", owner.name);
            let help = "name what both nodes reach and neither is: a router, a switch, a server";
            report.add(Some(span), Problem::new(message).help(help));
        } else if landmarks.contains(&value) {
            report.add(Some(span), Problem::new(format!("{value} is listed twice")));
        } else {
            landmarks.push(value);
        }
    }
    if landmarks.is_empty() { Isolation::Off } else { Isolation::Landmarks(landmarks) }
}

fn read_health(report: &mut Report<'_>, section: &Section<'_, '_>) -> Option<SocketAddr> {
    if !section.has("port") {
        section.missing(report, "port", "port = 7622");
    }
    let port = section.whole(report, "port", 1, u32::from(u16::MAX));
    let address = section.text(report, "address", values::own_address);
    let wrong = address.is_none() && section.has("address");
    let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.value);
    let port = u16::try_from(port?).ok()?;
    (!wrong).then(|| SocketAddr::new(address, port))
}

fn read_networks(report: &mut Report<'_>, root: &Section<'_, '_>) -> Vec<Network> {
    if !root.has("network") {
        let name = NetworkName::new(DEFAULT_NETWORK).ok();
        return name
            .map(|name| Network { name, replication: ReplicationUse::Preferred })
            .into_iter()
            .collect();
    }
    let mut networks: Vec<Network> = Vec::new();
    for section in root.sections(report, "network", &NETWORK) {
        let name = section.required(report, "name", "name = \"lan0\"", values::name::<NetworkName>);
        let replication = section
            .text(report, "replication", |text| values::word(text, REPLICATION_USES))
            .map_or(ReplicationUse::Preferred, |replication| replication.value);
        let Some(name) = name else { continue };
        if networks.iter().any(|known| known.name == name.value) {
            report.add(Some(name.span), twice("network", name.value.as_str()));
            continue;
        }
        networks.push(Network { name: name.value, replication });
    }
    if networks.iter().all(|network| network.replication == ReplicationUse::Never) {
        let problem = Problem::new("no network may be used for replication")
            .help("set replication = \"preferred\" in one [[network]]");
        report.missing(root.span_of("network"), problem);
    }
    networks
}

fn read_nodes(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    networks: &[Network],
) -> Vec<NodeConfig> {
    if !root.has("node") {
        let example = "[[node]] with name = \"node1\" and addresses = { lan0 = \"10.0.0.1\" }";
        root.missing(report, "node", example);
    }
    let mut nodes: Vec<NodeConfig> = Vec::new();
    for section in root.sections(report, "node", &NODE) {
        let name = section.required(report, "name", "name = \"node1\"", values::name::<NodeName>);
        let addresses = read_addresses(report, &section, networks, &nodes);
        let Some(name) = name else { continue };
        if nodes.iter().any(|known| known.name == name.value) {
            report.add(Some(name.span), twice("node", name.value.as_str()));
            continue;
        }
        nodes.push(NodeConfig { name: name.value, addresses });
    }
    nodes
}

fn read_addresses(
    report: &mut Report<'_>,
    section: &Section<'_, '_>,
    networks: &[Network],
    nodes: &[NodeConfig],
) -> BTreeMap<NetworkName, IpAddr> {
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    let Some(entries) = section.entries(report, "addresses", values::host_address) else {
        if !section.has("addresses") {
            let wanted: Vec<String> =
                names.iter().map(|name| format!("{name} = \"ADDRESS\"")).collect();
            let example = format!("addresses = {{ {} }}", wanted.join(", "));
            section.missing(report, "addresses", &example);
        }
        return BTreeMap::new();
    };
    let mut addresses = BTreeMap::new();
    for (key, address) in entries {
        let Some(network) = networks.iter().find(|network| network.name.as_str() == key.value)
        else {
            report.add(Some(key.span.clone()), unknown("network", &key, &names));
            continue;
        };
        let user = nodes.iter().find(|node| node.addresses.values().any(|a| *a == address.value));
        if let Some(user) = user {
            let message = format!("{} is already an address of {}", address.value, user.name);
            report.add(Some(address.span), Problem::new(message).help("give each node its own"));
            continue;
        }
        addresses.insert(network.name.clone(), address.value);
    }
    for network in networks {
        if !section.has_entry("addresses", network.name.as_str()) {
            let message = format!("this node has no address on network `{}`", network.name);
            let help = format!("add: {} = \"ADDRESS\"", network.name);
            report.missing(section.span_of("addresses"), Problem::new(message).help(help));
        }
    }
    addresses
}

/// A name that something else has already.
pub(super) fn twice(what: &str, name: &str) -> Problem {
    Problem::new(format!("{what} `{name}` is named twice")).help("give each its own name")
}

/// A name that nothing has.
pub(super) fn unknown(what: &str, name: &Placed<String>, known: &[&str]) -> Problem {
    Problem::new(format!("the cluster has no {what} `{}`", name.value))
        .help(allowed(&name.value, known))
}
