//! Tells of networks that have failed while others between the same nodes work: nothing else shows
//! it, until the last one fails too.
//!
//! Nothing is decided here. Whether a peer is lost, the core decides by all networks together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cluster::effect::Event;
use model::config::{ClusterConfig, ReplicationUse};
use model::{NetworkName, NodeName, Reason, Severity, Time};
use serde_json::{Value, json};

use super::heartbeat::Heard;

/// A network without heartbeats of a node for so long is silent; far longer than the time between
/// two of them.
const SILENT: Duration = Duration::from_secs(3);

/// A network and a node on it.
type Way = (NetworkName, NodeName);

/// The ways that were silent at the last look, and since when.
pub(super) struct Networks {
    began: Time,
    silent: BTreeMap<Way, Time>,
}

impl Networks {
    pub(super) fn new(now: Time) -> Networks {
        Networks { began: now, silent: BTreeMap::new() }
    }

    /// Looks at what was heard; returns what is to be told.
    pub(super) fn look(
        &mut self,
        cluster: &ClusterConfig,
        own: &NodeName,
        heard: &BTreeMap<Way, Heard>,
        now: Time,
    ) -> Vec<Event> {
        let silent: BTreeMap<Way, Time> = ways(cluster, own)
            .filter_map(|way| {
                let since = heard.get(&way).map_or(self.began, |heard| heard.at);
                (now.since(since) >= SILENT).then_some((way, since))
            })
            .collect();
        let works = |peer: &NodeName| {
            let mut ways = ways(cluster, own);
            ways.any(|way| way.1 == *peer && !silent.contains_key(&way))
        };
        let before = std::mem::take(&mut self.silent);
        // Of a node that is not heard at all its modules tell.
        let kept = silent.iter().filter(|((_, peer), _)| works(peer));
        self.silent = kept.map(|(way, since)| (way.clone(), *since)).collect();
        let begun = self.silent.keys().filter(|way| !before.contains_key(*way)).map(|way| {
            told("network-silent", Severity::Warning, sentence(way), evidence(cluster, own, way))
        });
        let ended =
            before.keys().filter(|way| !silent.contains_key(*way)).map(|(network, peer)| {
                let sentence = format!("{peer} is heard on the network {network} again");
                told("network-heard", Severity::Info, sentence, Vec::new())
            });
        begun.chain(ended).collect()
    }

    /// The addresses of nodes on networks on which they were silent at the last look, where another
    /// one can carry replication to them.
    pub(super) fn silent_addresses(&self, cluster: &ClusterConfig) -> Vec<IpAddr> {
        let carries = |node: &NodeName| {
            let mut networks = cluster.networks.iter();
            networks.any(|network| {
                let way = (network.name.clone(), node.clone());
                network.replication != ReplicationUse::Never && !self.silent.contains_key(&way)
            })
        };
        let address = |(network, node): &Way| cluster.node(node)?.addresses.get(network).copied();
        self.silent.keys().filter(|(_, node)| carries(node)).filter_map(address).collect()
    }

    /// The reasons for amber, as of the last look.
    pub(super) fn reasons(&self, cluster: &ClusterConfig, own: &NodeName) -> Vec<Reason> {
        let reason = |(way, since): (&Way, &Time)| Reason {
            code: "network-silent".to_owned(),
            sentence: sentence(way),
            severity: Severity::Warning,
            since: *since,
            evidence: evidence(cluster, own, way),
            next: vec!["look at its cable, switch and address on both nodes".to_owned()],
        };
        self.silent.iter().map(reason).collect()
    }
}

/// For the status: when each other node was heard on each network.
pub(super) fn shown(
    cluster: &ClusterConfig,
    own: &NodeName,
    heard: &BTreeMap<Way, Heard>,
    now: Time,
) -> Value {
    let mut networks = BTreeMap::new();
    for network in &cluster.networks {
        let others = cluster.nodes.iter().filter(|node| node.name != *own);
        let peers = others.map(|node| {
            let heard = heard.get(&(network.name.clone(), node.name.clone()));
            let peer = json!({
                "silent_ms": heard.map(|heard| now.since(heard.at).as_millis()),
                "longest_silence_ms": heard.map(|heard| heard.longest.as_millis()),
                "late": heard.map(|heard| heard.late),
            });
            (node.name.clone(), peer)
        });
        networks.insert(network.name.clone(), peers.collect::<BTreeMap<_, _>>());
    }
    json!(networks)
}

/// Each network with each other node: all have an address on each.
fn ways<'a>(cluster: &'a ClusterConfig, own: &'a NodeName) -> impl Iterator<Item = Way> + 'a {
    let nodes = cluster.nodes.iter().map(|node| &node.name);
    let others: Vec<&NodeName> = nodes.filter(|node| *node != own).collect();
    let networks = cluster.networks.iter().map(|network| &network.name);
    let way = |network: &NetworkName, node: &NodeName| (network.clone(), node.clone());
    networks.flat_map(move |network| {
        let ways = others.iter().map(move |node| way(network, node));
        ways.collect::<Vec<_>>()
    })
}

fn sentence((network, peer): &Way) -> String {
    format!("{peer} is not heard on the network {network}, and is on another one")
}

fn evidence(cluster: &ClusterConfig, own: &NodeName, (network, peer): &Way) -> Vec<String> {
    let of = |node: &NodeName| {
        let address = cluster.node(node)?.addresses.get(network)?;
        Some(format!("{node} has {address} there"))
    };
    of(own).into_iter().chain(of(peer)).collect()
}

fn told(code: &str, severity: Severity, sentence: String, evidence: Vec<String>) -> Event {
    Event { module: None, code: code.to_owned(), severity, sentence, evidence }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]
mod tests {
    use model::config::{Source, parse_cluster};

    use super::*;

    const CLUSTER: &str = "cluster = 'c'\n\
        [[network]]\nname = 'lan0'\n[[network]]\nname = 'lan1'\n\
        [[node]]\nname = 'node1'\naddresses = { lan0 = '10.0.0.1', lan1 = '10.0.1.1' }\n\
        [[node]]\nname = 'node2'\naddresses = { lan0 = '10.0.0.2', lan1 = '10.0.1.2' }\n\
        [[node]]\nname = 'node3'\naddresses = { lan0 = '10.0.0.3', lan1 = '10.0.1.3' }\n";

    #[test]
    fn a_silent_network_is_told_once_where_another_one_works() {
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let [own, other, third] = ["node1", "node2", "node3"].map(|n| NodeName::new(n).unwrap());
        let way =
            |network: &str, node: &NodeName| (NetworkName::new(network).unwrap(), node.clone());
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let heard = |seconds| Heard { at: at(seconds), longest: Duration::ZERO, late: 0 };
        let mut networks = Networks::new(at(0));
        let mut all =
            BTreeMap::from([(way("lan0", &other), heard(0)), (way("lan0", &third), heard(0))]);
        let look = |networks: &mut Networks, all: &BTreeMap<Way, Heard>, now| {
            let events = networks.look(&cluster, &own, all, at(now));
            let codes: Vec<String> = events.into_iter().map(|event| event.code).collect();
            (codes, networks.reasons(&cluster, &own))
        };
        assert_eq!(look(&mut networks, &all, 2), (vec![], vec![]), "it may come yet");
        all.insert(way("lan0", &other), heard(3));
        let (codes, reasons) = look(&mut networks, &all, 4);
        assert_eq!(codes, ["network-silent"], "of the third, which is not heard at all, nothing");
        assert_eq!((reasons.len(), reasons[0].since), (1, at(0)));
        assert_eq!(reasons[0].evidence, ["node1 has 10.0.1.1 there", "node2 has 10.0.1.2 there"]);
        assert_eq!(look(&mut networks, &all, 5).0, Vec::<String>::new(), "it was told");
        // A node that is not heard at all is another matter, and no network of it is heard again.
        assert_eq!(look(&mut networks, &all, 9), (vec![], vec![]));
        all.extend([(way("lan0", &other), heard(10)), (way("lan1", &other), heard(10))]);
        assert_eq!(look(&mut networks, &all, 10), (vec![], vec![]));
        all.insert(way("lan1", &other), heard(20));
        assert_eq!(look(&mut networks, &all, 20).0, ["network-silent"]);
        assert_eq!(networks.silent_addresses(&cluster), [IpAddr::from([10, 0, 0, 2])]);
        let mut beats_only = cluster.clone();
        beats_only.networks[1].replication = ReplicationUse::Never;
        assert!(networks.silent_addresses(&beats_only).is_empty(), "there is no other way");
        all.insert(way("lan0", &other), heard(21));
        assert_eq!(look(&mut networks, &all, 21).0, ["network-heard"]);
        assert!(networks.silent_addresses(&cluster).is_empty());
    }
}
