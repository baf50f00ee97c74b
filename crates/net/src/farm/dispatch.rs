//! Rules that send a packet where its bucket says.
//!
//! They end in a map from buckets to verdicts, which others fill. Nothing here knows who owns what.

use std::net::IpAddr;

use super::{Affinity, BUCKETS, Protocol, Rule, hash};
use crate::nft::expression;
use crate::nft::expression::{Base, Compare, Expression, Field, Meta, Register};
use crate::nft::expression::{compare, follow, load, mask, read};

/// The steps of one rule.
pub(super) type Steps = Vec<Expression>;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// The header of a fragment in version 6 takes the place of a protocol.
const FRAGMENT: u8 = 44;
/// Unreachable, time exceeded, parameter problem.
const ERRORS: [u8; 3] = [3, 11, 12];
/// In version 6 whatever is below is an error.
const ERRORS6_BELOW: u8 = 128;

/// Type of a question who has an address.
pub(super) const SOLICITATION: u8 = 135;
/// Type of its answer.
pub(super) const ADVERTISEMENT: u8 = 136;

/// The hardware address a frame comes from.
pub(super) const FRAME_SOURCE: Field = Field { base: Base::Frame, offset: 6, length: 6 };
/// Both hardware addresses of a frame, the receiver's first.
pub(super) const FRAME_ADDRESSES: Field = Field { base: Base::Frame, offset: 0, length: 12 };
/// The first byte of ICMP.
const ICMP_TYPE: Field = Field { base: Base::Inner, offset: 0, length: 1 };
/// The address that neighbour discovery is about.
pub(super) const TARGET: Field = Field { base: Base::Inner, offset: 8, length: 16 };
/// In version 6 the protocol inside, if nothing comes between.
const NEXT_HEADER: Field = Field { base: Base::Network, offset: 6, length: 1 };

/// A field of this length behind the beginning of the packet.
pub(super) const fn network(offset: u32, length: u32) -> Field {
    Field { base: Base::Network, offset, length }
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn source(self) -> Field {
        match self {
            Self::V4 => network(12, 4),
            Self::V6 => network(8, 16),
        }
    }

    fn destination(self) -> Field {
        match self {
            Self::V4 => network(16, 4),
            Self::V6 => network(24, 16),
        }
    }

    fn frame_protocol(self) -> [u8; 2] {
        match self {
            Self::V4 => [0x08, 0x00],
            Self::V6 => [0x86, 0xdd],
        }
    }
}

/// The bytes of an address.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Goes on if the field has this value.
pub(super) fn field_is(field: Field, value: &[u8]) -> Steps {
    vec![read(field, Register::FIRST), compare(Register::FIRST, Compare::Equal, value)]
}

/// Goes on if a frame carries this version of IP; only then the other fields mean what they say.
pub(super) fn frame_carries(version: Version) -> Steps {
    vec![
        load(Meta::Protocol, Register::FIRST),
        compare(Register::FIRST, Compare::Equal, &version.frame_protocol()),
    ]
}

/// Goes on if a packet is for this address.
pub(super) fn is_for(ip: IpAddr) -> Steps {
    field_is(Version::of(ip).destination(), &octets(ip))
}

/// Goes on for a whole packet of a protocol: for no fragment, not even the first, which has ports.
fn whole(version: Version, protocol: Protocol) -> Steps {
    let number = match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    match version {
        // One load takes in what tells a fragment and, two bytes on, the protocol.
        Version::V4 => vec![
            read(network(6, 4), Register::FIRST),
            mask(Register::FIRST, &[0x3f, 0xff, 0, 0xff]),
            compare(Register::FIRST, Compare::Equal, &[0, 0, 0, number]),
        ],
        Version::V6 => field_is(NEXT_HEADER, &[number]),
    }
}

/// Goes on for TCP.
pub(super) fn tcp() -> Steps {
    vec![load(Meta::Inner, Register::FIRST), compare(Register::FIRST, Compare::Equal, &[TCP])]
}

/// Goes on for fragments.
pub(super) fn fragment(version: Version) -> Steps {
    match version {
        Version::V4 => vec![
            read(network(6, 2), Register::FIRST),
            mask(Register::FIRST, &[0x3f, 0xff]),
            compare(Register::FIRST, Compare::Unequal, &[0, 0]),
        ],
        Version::V6 => field_is(NEXT_HEADER, &[FRAGMENT]),
    }
}

/// Goes on for neighbour discovery of this type.
pub(super) fn discovery(kind: u8) -> Steps {
    [field_is(NEXT_HEADER, &[ICMP6]), field_is(ICMP_TYPE, &[kind])].concat()
}

/// Each goes on for a kind of error that a router or host on the way reports.
pub(super) fn errors(version: Version) -> Vec<Steps> {
    let of = |protocol: u8| {
        let inner = load(Meta::Inner, Register::FIRST);
        vec![inner, compare(Register::FIRST, Compare::Equal, &[protocol])]
    };
    match version {
        Version::V4 => {
            let kinds = ERRORS.iter();
            kinds.map(|kind| [of(ICMP), field_is(ICMP_TYPE, &[*kind])].concat()).collect()
        }
        Version::V6 => {
            let below = [
                read(ICMP_TYPE, Register::FIRST),
                compare(Register::FIRST, Compare::Below, &[ERRORS6_BELOW]),
            ];
            vec![[of(ICMP6).as_slice(), &below].concat()]
        }
    }
}

/// Rules for the ports whose clients are told apart by their ports too.
pub(super) fn by_port(version: Version, rules: &[Rule], map: &str) -> Vec<Steps> {
    let length = version.source().length;
    let with_port = rules.iter().filter(|rule| rule.affinity == Affinity::ClientIpPort);
    let steps = with_port.map(|rule| {
        let source_port = Field { base: Base::Inner, offset: 0, length: 2 };
        let port = Field { base: Base::Inner, offset: 2, length: 2 };
        let mut steps = whole(version, rule.protocol);
        steps.extend(field_is(port, &rule.port.to_be_bytes()));
        steps.push(read(version.source(), Register::FIRST));
        steps.push(read(source_port, Register::FIRST.behind(length)));
        steps.extend(hashed(length + 4, map));
        steps
    });
    steps.collect()
}

/// The rule for all the rest.
pub(super) fn by_address(version: Version, map: &str) -> Steps {
    let mut steps = vec![read(version.source(), Register::FIRST)];
    steps.extend(hashed(version.source().length, map));
    steps
}

fn hashed(length: u32, map: &str) -> [Expression; 2] {
    let hashed = expression::hash(Register::FIRST, length, BUCKETS as u32, hash::SEED);
    [hashed, follow(map, Register::FIRST)]
}
