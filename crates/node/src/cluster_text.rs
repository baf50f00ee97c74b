//! `cluster.toml` with a node more or less, everything else as an administrator wrote it.
//!
//! A text is changed only if what it then means is exactly what was wanted; else it says what is to
//! be changed by hand.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use model::config::{self, ClusterConfig, NodeConfig, Source};
use model::{NetworkName, NodeName};

/// A cluster's file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterText {
    pub(crate) text: String,
    pub(crate) cluster: ClusterConfig,
}

/// Reads a text.
pub(crate) fn read(text: &str) -> Result<ClusterText, String> {
    let source = Source { file: "cluster.toml", text };
    let cluster = config::parse_cluster(&source).map_err(|mistakes| mistakes.to_string())?;
    Ok(ClusterText { text: text.to_owned(), cluster })
}

/// A new text, of a cluster with its first node.
pub(crate) fn first(cluster: &str, node: &NodeName, addresses: &[(NetworkName, IpAddr)]) -> String {
    let mut text = format!("cluster = \"{cluster}\"\n");
    for (network, _) in addresses {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n[[network]]\nname = \"{network}\"\n");
    }
    text + &block(node, addresses.iter().map(|(network, address)| (network, address)))
}

/// The text with a node added.
pub(crate) fn with_node(
    before: &ClusterText,
    node: &NodeName,
    addresses: &BTreeMap<NetworkName, IpAddr>,
) -> Result<ClusterText, String> {
    let end = if before.text.ends_with('\n') { "" } else { "\n" };
    let text = format!("{}{end}{}", before.text, block(node, addresses.iter()));
    let mut wanted = before.cluster.clone();
    wanted.nodes.push(NodeConfig { name: node.clone(), addresses: addresses.clone() });
    checked(&text, &wanted, &format!("add the [[node]] {node}"))
}

/// The text with a node removed.
pub(crate) fn without_node(before: &ClusterText, node: &NodeName) -> Result<ClusterText, String> {
    let mut wanted = before.cluster.clone();
    wanted.nodes.retain(|known| known.name != *node);
    let mut text = String::new();
    for (is_node, lines) in tables(&before.text) {
        // What an administrator wrote above a table most likely belongs to it.
        if !(is_node && names(&lines, node)) {
            text += &lines.concat();
        }
    }
    checked(&text, &wanted, &format!("remove the [[node]] {node}"))
}

fn block<'a>(
    node: &NodeName,
    addresses: impl Iterator<Item = (&'a NetworkName, &'a IpAddr)>,
) -> String {
    let addresses: Vec<String> =
        addresses.map(|(network, address)| format!("{network} = \"{address}\"")).collect();
    format!("\n[[node]]\nname = \"{node}\"\naddresses = {{ {} }}\n", addresses.join(", "))
}

/// The lines of each table with its head, and whether it is one of a node.
fn tables(text: &str) -> Vec<(bool, Vec<&str>)> {
    let mut tables = vec![(false, Vec::new())];
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with('[') {
            tables.push((start.replace(' ', "").starts_with("[[node]]"), Vec::new()));
        }
        if let Some((_, lines)) = tables.last_mut() {
            lines.push(line);
        }
    }
    tables
}

fn names(lines: &[&str], node: &NodeName) -> bool {
    lines.iter().any(|line| {
        let (key, value) = line.split_once('=').unwrap_or_default();
        let value = value.split('#').next().unwrap_or_default().trim();
        let value = value.trim_matches(['"', '\'']);
        key.trim() == "name" && value == node.as_str()
    })
}

fn checked(text: &str, wanted: &ClusterConfig, what: &str) -> Result<ClusterText, String> {
    match read(text) {
        Ok(read) if read.cluster == *wanted => Ok(read),
        Ok(_) | Err(_) => {
            Err(format!("cluster.toml is not written so that it could be changed: {what} by hand"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn lan0(address: &str) -> (NetworkName, IpAddr) {
        (NetworkName::new("lan0").unwrap(), address.parse().unwrap())
    }

    #[test]
    fn a_node_comes_and_goes_and_the_rest_stays() {
        let one = read(&first("demo", &node("node1"), &[lan0("10.0.0.1")])).unwrap();
        let commented = format!("# ours\n{}[witness]\naddress = \"10.0.0.9\"\n", one.text);
        let one = read(&commented).unwrap();
        let two = with_node(&one, &node("node2"), &[lan0("10.0.0.2")].into()).unwrap();
        assert!(two.text.starts_with(&commented));
        assert_eq!(two.cluster.nodes.len(), 2);
        let back = without_node(&two, &node("node2")).unwrap();
        assert_eq!(back.cluster, one.cluster);
        let other = without_node(&two, &node("node1")).unwrap();
        assert!(other.text.starts_with("# ours\n") && other.text.contains("[witness]"));
        assert_eq!(other.cluster.nodes.len(), 1);
    }

    #[test]
    fn what_would_mean_something_else_is_not_written() {
        let inline = "cluster = 'a'\nnode = [{ name = 'a', addresses = { lan0 = '10.0.0.1' } }]\n";
        let inline = read(inline).unwrap();
        let error = with_node(&inline, &node("b"), &[lan0("10.0.0.2")].into()).unwrap_err();
        assert!(error.contains("add the [[node]] b by hand"), "{error}");
        assert!(without_node(&inline, &node("a")).is_err());
        let one = read(&first("demo", &node("node1"), &[lan0("10.0.0.1")])).unwrap();
        let same = with_node(&one, &node("node2"), &[lan0("10.0.0.1")].into());
        assert!(same.is_err(), "an address that is taken");
        assert!(without_node(&one, &node("node1")).is_err(), "no node would be left");
        assert!(without_node(&one, &node("node3")).is_ok_and(|same| same == one));
    }
}
