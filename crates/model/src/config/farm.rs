//! Farms: their tables, their defaults and what these must agree on.
//!
//! How clients are spread over the nodes is the cluster's matter, and how packets follow is the
//! filter's; here is only what a person may ask for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::{Keys, Problem, Report, Section, allowed};
use super::values;
use crate::NodeName;

/// What a farm has that other modules have not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmConfig {
    /// How packets reach the node that serves them.
    pub delivery: Delivery,
    /// Time between two pulses.
    pub pulse: Duration,
    /// Silence after which a node counts as lost.
    pub timeout: Duration,
    /// How much each of the module's nodes serves, compared with the others.
    pub weights: BTreeMap<NodeName, u32>,
    /// How clients of a port are told apart; those of any other port by their address.
    pub balance: Vec<Balance>,
}

impl FarmConfig {
    /// How much `node` serves, compared with the others.
    #[must_use]
    pub fn weight(&self, node: &NodeName) -> u32 {
        self.weights.get(node).copied().unwrap_or(WEIGHT)
    }
}

/// How packets reach the node that serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// One node receives them, and passes each to its owner.
    Directed,
    /// Every node receives all of them, and drops what is another's.
    Multicast,
}

/// How clients of one port are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// What of a client decides where it is served.
    pub affinity: Affinity,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What of a client decides where it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Its address: one client always meets the same node.
    ClientIp,
    /// Its address and port: each connection is on its own.
    ClientIpPort,
}

/// Most nodes of a farm: what they tell each other has to fit into one packet.
pub const FARM_NODES_MAX: usize = 32;

const FARM: Keys =
    Keys { place: "[farm]", known: &["delivery", "pulse", "timeout", "weights"], later: &[] };
const BALANCE: Keys =
    Keys { place: "[[balance]]", known: &["port", "protocol", "affinity"], later: &[] };

/// Keys of a mirror that mean nothing to a farm: at the top, in `[failover]` and in `[scripts]`.
const FOREIGN: &[&str] = &["replicate", "replication"];
pub(super) const FOREIGN_FAILOVER: &[&str] =
    &["timeout", "mode", "prefer", "without_witness", "after_double_crash", "keep"];
const FOREIGN_SCRIPTS: &[&str] = &["before_resync"];

const PULSE_MIN: Duration = Duration::from_millis(10);
const PULSE_MAX: Duration = Duration::from_secs(1);
const PULSE: Duration = Duration::from_millis(50);
const TIMEOUT_MIN: Duration = Duration::from_millis(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_millis(200);
/// A single lost packet is no lost node.
const PULSES_MIN: u32 = 3;
const WEIGHT_MAX: u32 = 1000;
const WEIGHT: u32 = 100;
const BALANCE_MAX: usize = 64;

const DELIVERIES: &[(&str, Delivery)] =
    &[("directed", Delivery::Directed), ("multicast", Delivery::Multicast)];
const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
const AFFINITIES: &[(&str, Affinity)] =
    &[("client-ip-port", Affinity::ClientIpPort), ("client-ip", Affinity::ClientIp)];

/// Most virtual addresses of a farm: where each node is to be found for them has to fit into a
/// pulse.
const ADDRESSES_MAX: usize = 6;

/// Refuses more virtual addresses than a farm can have.
pub(super) fn limit_addresses(report: &mut Report<'_>, root: &Section<'_, '_>, count: usize) {
    if count > ADDRESSES_MAX {
        let message = format!("a farm has at most {ADDRESSES_MAX} virtual addresses, not {count}");
        let help = "make another farm with the same application for the others";
        report.add(root.span_of("vip"), Problem::new(message).help(help));
    }
}

/// Reads what a farm has of its own, and refuses what it cannot have.
pub(super) fn read_farm(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    nodes: &[NodeName],
) -> FarmConfig {
    let data = "the nodes of a farm share no data; a module of kind \"mirror\" replicates it";
    refuse(report, FOREIGN.iter().map(|key| (*key, root.value_at(&[key]))), data);
    let every = "every node of a farm runs the application; how soon one is lost, and how much it \
                 serves, is said in [farm]";
    let failover = FOREIGN_FAILOVER.iter().map(|key| (*key, root.value_at(&["failover", key])));
    refuse(report, failover, every);
    let scripts = FOREIGN_SCRIPTS.iter().map(|key| (*key, root.value_at(&["scripts", key])));
    refuse(report, scripts, data);
    let balance = read_balance(report, root);
    let mut farm = FarmConfig {
        delivery: Delivery::Directed,
        pulse: PULSE,
        timeout: TIMEOUT,
        weights: nodes.iter().map(|node| (node.clone(), WEIGHT)).collect(),
        balance,
    };
    let Some(section) = root.section(report, "farm", &FARM) else { return farm };
    if let Some(word) = section.text(report, "delivery", |text| values::word(text, DELIVERIES)) {
        farm.delivery = word.value;
    }
    read_pace(report, &section, &mut farm);
    read_weights(report, &section, nodes, &mut farm);
    farm
}

fn refuse<'k>(
    report: &mut Report<'_>,
    found: impl Iterator<Item = (&'k str, Option<Range<usize>>)>,
    help: &str,
) {
    for (key, span) in found.filter(|(_, span)| span.is_some()) {
        let problem = Problem::new(format!("`{key}` means nothing to a farm")).help(help);
        report.add(span, problem);
    }
}

/// Refuses the tables of farms in a module of another kind.
pub(super) fn refuse_farm(report: &mut Report<'_>, root: &Section<'_, '_>) {
    for key in ["farm", "balance"] {
        if root.has(key) {
            let problem = Problem::new(format!("`{key}` means something to a farm only"))
                .help("remove it, or write kind = \"farm\"");
            report.add(root.span_of(key), problem);
        }
    }
}

fn read_pace(report: &mut Report<'_>, section: &Section<'_, '_>, farm: &mut FarmConfig) {
    let duration = |least, most| move |text: &str| values::duration(text, least, most);
    let before = report.count();
    if let Some(pulse) = section.text(report, "pulse", duration(PULSE_MIN, PULSE_MAX)) {
        farm.pulse = pulse.value;
    }
    if let Some(timeout) = section.text(report, "timeout", duration(TIMEOUT_MIN, TIMEOUT_MAX)) {
        farm.timeout = timeout.value;
    }
    let least = farm.pulse * PULSES_MIN;
    if farm.timeout < least && report.count() == before {
        let (timeout, pulse) = (farm.timeout.as_millis(), farm.pulse.as_millis());
        let key = if section.has("timeout") { "timeout" } else { "pulse" };
        let message = format!(
            "a timeout of {timeout} ms is less than {PULSES_MIN} pulses of {pulse} ms: a packet \
             or two that get lost would be taken for a lost node"
        );
        let help = format!(
            "write timeout = \"{}ms\" or more, or a pulse of {} ms or less",
            least.as_millis(),
            timeout / u128::from(PULSES_MIN)
        );
        report.add(section.span_of(key), Problem::new(message).help(help));
    }
}

fn read_weights(
    report: &mut Report<'_>,
    section: &Section<'_, '_>,
    nodes: &[NodeName],
    farm: &mut FarmConfig,
) {
    let before = report.count();
    let entries = section.wholes(report, "weights", 0, WEIGHT_MAX).unwrap_or_default();
    for (name, weight) in entries {
        match nodes.iter().find(|node| node.as_str() == name.value) {
            Some(node) => {
                farm.weights.insert(node.clone(), weight);
            }
            None => {
                let known: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                let problem =
                    Problem::new(format!("`{}` is none of this module's nodes", name.value))
                        .help(allowed(&name.value, &known));
                report.add(Some(name.span), problem);
            }
        }
    }
    let nobody = farm.weights.values().all(|weight| *weight == 0) && !nodes.is_empty();
    if nobody && report.count() == before {
        let problem = Problem::new("every node has weight 0, so that nobody would serve")
            .help("give at least one node a weight above 0");
        report.add(section.span_of("weights"), problem);
    }
}

fn read_balance(report: &mut Report<'_>, root: &Section<'_, '_>) -> Vec<Balance> {
    let mut rules: Vec<Balance> = Vec::new();
    let sections = root.sections(report, "balance", &BALANCE);
    if sections.len() > BALANCE_MAX {
        let problem = format!("{} rules are more than {BALANCE_MAX}", sections.len());
        report.add(root.span_of("balance"), Problem::new(problem));
    }
    for section in sections {
        if !section.has("port") {
            section.missing(report, "port", "port = 443");
        }
        let port = section.whole(report, "port", 1, u32::from(u16::MAX));
        let protocol = section.text(report, "protocol", |text| values::word(text, PROTOCOLS));
        let affinity = section.text(report, "affinity", |text| values::word(text, AFFINITIES));
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        let rule = Balance {
            port,
            protocol: protocol.map_or(Protocol::Tcp, |protocol| protocol.value),
            affinity: affinity.map_or(Affinity::ClientIpPort, |affinity| affinity.value),
        };
        if rules.iter().any(|known| (known.port, known.protocol) == (rule.port, rule.protocol)) {
            let word = PROTOCOLS.iter().find(|(_, known)| *known == rule.protocol);
            let word = word.map_or("", |(word, _)| word);
            let problem = Problem::new(format!("there are two rules for {word} port {port}"))
                .help("keep one of them");
            report.add(section.span_of("port"), problem);
            continue;
        }
        rules.push(rule);
    }
    rules
}
