//! Which features of the kernel a farm needs and this one lacks, by their names in its
//! configuration.
//!
//! Asked only after a refusal, by trying each of them alone in a table that is gone with the same
//! transaction.

use super::{Delivery, Plan};
use crate::nft::commit;
use crate::nft::encode::{Batch, Family, Kind, Table};
use crate::nft::expression::{self, Expression, Register};

const TABLE: &str = "evenkeel_probe";
const CHAIN: &str = "probe";

/// Something that a kernel may be built without.
struct Feature {
    name: &'static str,
    family: Family,
    steps: Vec<Expression>,
}

/// The missing ones, in words; empty if none is.
pub(super) fn missing(plan: &Plan) -> String {
    let lacking = needed(plan).into_iter().filter(lacks);
    lacking.map(|feature| feature.name).collect::<Vec<_>>().join(", ")
}

fn lacks(feature: &Feature) -> bool {
    let table = Table { family: feature.family, name: TABLE };
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.add_chain(table, CHAIN, None);
    batch.add_set(table, "map", Kind::Verdicts, 1);
    if !feature.steps.is_empty() {
        batch.add_rule(table, CHAIN, &feature.steps);
    }
    batch.remove_table(table);
    let absent = [libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];
    commit(batch).is_err_and(|error| error.raw_os_error().is_some_and(|it| absent.contains(&it)))
}

fn needed(plan: &Plan) -> Vec<Feature> {
    let first = Register::FIRST;
    let number = || expression::constant(first, &1_u32.to_ne_bytes());
    let address = |length: usize| expression::constant(first, &vec![0; length]);
    let device = || expression::constant(Register::SECOND, &1_u32.to_ne_bytes());
    let has = |v4: bool| plan.addresses.iter().any(|address| address.ip.is_ipv4() == v4);
    let directed = plan.delivery == Delivery::Directed;
    let mut features = vec![
        feature("filters of devices (CONFIG_NF_TABLES_NETDEV)", Family::NetDev, vec![]),
        feature(
            "hashing of addresses (CONFIG_NFT_HASH)",
            Family::NetDev,
            vec![number(), expression::hash(first, 4, 2, 1)],
        ),
    ];
    if directed {
        features.push(feature(
            "forwarding of frames (CONFIG_NFT_FWD_NETDEV)",
            Family::NetDev,
            vec![number(), expression::forward(first)],
        ));
        features.push(feature(
            "copying of frames (CONFIG_NFT_DUP_NETDEV)",
            Family::NetDev,
            vec![number(), expression::copy_frame(first)],
        ));
    }
    let versions = [
        (true, Family::Ip, 4, "packets of IPv4 (CONFIG_NF_TABLES_IPV4)", "CONFIG_NFT_DUP_IPV4"),
        (false, Family::Ip6, 16, "packets of IPv6 (CONFIG_NF_TABLES_IPV6)", "CONFIG_NFT_DUP_IPV6"),
    ];
    for (v4, family, length, packets, copying) in versions {
        if !has(v4) {
            continue;
        }
        features.push(feature(packets, family, vec![]));
        if plan.connections {
            let name = "tracking of connections (CONFIG_NFT_CT, CONFIG_NF_CONNTRACK)";
            features.push(feature(name, family, vec![expression::connection_state(first)]));
        }
        if plan.connections && directed {
            let copy = expression::copy_packet(first, Register::SECOND);
            features.push(feature(copying, family, vec![address(length), device(), copy]));
        }
    }
    if has(true) {
        features.push(feature("filters of ARP (CONFIG_NF_TABLES_ARP)", Family::Arp, vec![]));
    }
    features
}

fn feature(name: &'static str, family: Family, steps: Vec<Expression>) -> Feature {
    Feature { name, family, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_kernel_lacks_is_told_from_what_it_has() {
        assert!(rustix::process::geteuid().is_root(), "packet filters need root");
        let present = feature(
            "hash",
            Family::NetDev,
            vec![
                expression::constant(Register::FIRST, &[0; 4]),
                expression::hash(Register::FIRST, 4, 2, 1),
            ],
        );
        assert!(!lacks(&present));
        let absent = feature("none", Family::NetDev, vec![expression::unknown()]);
        assert!(lacks(&absent));
    }
}
