//! What becomes of a packet once fragments are put together and its connection is known.
//!
//! Established connections stay on the node that has them. What belongs to no connection here is a
//! stray: its bucket says whether another node is asked, the client told, or nothing done. Only
//! packets for the farm's addresses are looked at, though the kernel tracks those of others too.

use super::dispatch::{self, ADVERTISEMENT, SOLICITATION, Steps, Version, by_address, by_port};
use super::ingress::{MEMBERS, from_member, macs};
use super::{Address, Bucket, Delivery, Owner, Plan, Stray, Table};
use crate::error::Error;
use crate::link::Netlink;
use crate::nft::encode::{self, Batch, Family, Hook, Kind};
use crate::nft::expression::{Base, Compare, Field, Meta, Register, Verdict, state};
use crate::nft::expression::{compare, connection_state, constant, copy_packet, load, mask};
use crate::nft::expression::{read, verdict};

const HOOK_PREROUTING: u32 = 0;
/// After connection tracking, before addresses are translated.
const PRIORITY: i32 = -150;
const CHAIN: &str = "pre";
/// Number of the interface `lo`, in every network namespace.
const LOOPBACK: u32 = 1;
/// Of the flags of TCP those that tell a first segment from others: FIN, SYN, RST, ACK.
const FLAGS: u8 = 0x17;
const FLAG_SYN: u8 = 0x02;

fn table(name: &str, version: Version) -> encode::Table<'_> {
    let family = match version {
        Version::V4 => Family::Ip,
        Version::V6 => Family::Ip6,
    };
    encode::Table { family, name }
}

/// The virtual addresses of a version, with their numbers.
fn addresses(plan: &Plan, version: Version) -> impl Iterator<Item = (usize, &Address)> {
    let all = plan.addresses.iter().enumerate();
    all.filter(move |(_, address)| Version::of(address.ip) == version)
}

pub(super) fn shape(batch: &mut Batch, name: &str, plan: &Plan) {
    for version in [Version::V4, Version::V6] {
        let table = table(name, version);
        if addresses(plan, version).next().is_none() {
            continue;
        }
        batch.add_table(table);
        let hook = Hook { number: HOOK_PREROUTING, priority: PRIORITY, device: None };
        batch.add_chain(table, CHAIN, Some(hook));
        batch.add_set(table, MEMBERS, Kind::Macs, super::MEMBERS_MAX as u32 * 2);
        for (number, _) in addresses(plan, version) {
            for chain in ["vip", "others", "stray"] {
                batch.add_chain(table, &format!("{chain}{number}"), None);
            }
            for map in ["owners", "strays"] {
                let map = format!("{map}{number}");
                batch.add_set(table, &map, Kind::Verdicts, super::BUCKETS as u32);
            }
        }
    }
}

pub(super) fn fill(
    batch: &mut Batch,
    name: &str,
    plan: &Plan,
    shares: &Table,
) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    for version in [Version::V4, Version::V6] {
        let table = table(name, version);
        if addresses(plan, version).next().is_none() {
            continue;
        }
        batch.clear_chain(table, CHAIN);
        batch.clear_set(table, MEMBERS);
        batch.add_macs(table, MEMBERS, macs(shares));
        for (number, address) in addresses(plan, version) {
            let index = netlink.index_of(&address.device)?;
            let mut one = One { batch, table, plan, shares, number, address, index, version };
            one.enter();
            one.passing();
            one.maps();
            one.vip();
        }
    }
    Ok(())
}

/// One virtual address.
struct One<'a> {
    batch: &'a mut Batch,
    table: encode::Table<'a>,
    plan: &'a Plan,
    shares: &'a Table,
    number: usize,
    address: &'a Address,
    index: u32,
    version: Version,
}

impl One<'_> {
    fn rule(&mut self, chain: &str, parts: &[Steps], end: Verdict<'_>) {
        let steps = [parts.concat().as_slice(), &[verdict(end)]].concat();
        self.batch.add_rule(self.table, chain, &steps);
    }

    fn chain(&self, name: &str) -> String {
        format!("{name}{}", self.number)
    }

    fn enter(&mut self) {
        // What comes from this host itself stays on it.
        let from_wire = vec![
            load(Meta::InputIndex, Register::FIRST),
            compare(Register::FIRST, Compare::Unequal, &LOOPBACK.to_ne_bytes()),
        ];
        let vip = self.chain("vip");
        let parts = [dispatch::is_for(self.address.ip), from_wire];
        self.rule(CHAIN, &parts, Verdict::Goto(&vip));
    }

    /// Chains that hand a packet to one member.
    fn passing(&mut self) {
        for member in 0..self.shares.members.len() {
            let chain = self.pass(member);
            self.batch.add_chain(self.table, &chain, None);
            self.batch.clear_chain(self.table, &chain);
            if let Some(place) = self.shares.members[member].get(self.number) {
                let copy = [
                    constant(Register::FIRST, &dispatch::octets(place.address)),
                    constant(Register::SECOND, &self.index.to_ne_bytes()),
                    copy_packet(Register::FIRST, Register::SECOND),
                ];
                self.batch.add_rule(self.table, &chain, &copy);
            }
            self.rule(&chain, &[], Verdict::Drop);
        }
    }

    fn pass(&self, member: usize) -> String {
        format!("pass{}-{member}", self.number)
    }

    fn maps(&mut self) {
        let members = self.shares.members.len();
        let pass: Vec<_> = (0..members).map(|member| self.pass(member)).collect();
        let to = |member: u8| {
            pass.get(usize::from(member)).map_or(Verdict::Drop, |chain| Verdict::Goto(chain))
        };
        let directed = self.plan.delivery == Delivery::Directed;
        let mine = if directed { Verdict::Return } else { Verdict::Accept };
        let owner = |bucket: &Bucket| match bucket.owner {
            Owner::Me => mine,
            Owner::Member(member) if directed => to(member),
            Owner::Member(_) | Owner::Nobody => Verdict::Drop,
        };
        let stray = |bucket: &Bucket| match bucket.stray {
            // All nodes receive all packets: one of them has the connection, or none.
            Stray::Reset if directed || bucket.owner == Owner::Me => Verdict::Accept,
            Stray::Pass(member) if directed => to(member),
            Stray::Reset | Stray::Pass(_) | Stray::Silent => Verdict::Drop,
        };
        let (owners, strays) = (self.chain("owners"), self.chain("strays"));
        self.batch.clear_set(self.table, &owners);
        self.batch.clear_set(self.table, &strays);
        if self.shares.buckets.iter().any(|bucket| *bucket != Bucket::EMPTY) {
            let buckets = || self.shares.buckets.iter();
            self.batch.add_verdicts(self.table, &owners, (0..).zip(buckets().map(owner)));
            self.batch.add_verdicts(self.table, &strays, (0..).zip(buckets().map(stray)));
        }
    }

    fn vip(&mut self) {
        let (vip, others, stray) = (self.chain("vip"), self.chain("others"), self.chain("stray"));
        let directed = self.plan.delivery == Delivery::Directed;
        for chain in [&vip, &others, &stray] {
            self.batch.clear_chain(self.table, chain);
        }
        let bits = state::ESTABLISHED | state::RELATED;
        let known = vec![
            connection_state(Register::FIRST),
            mask(Register::FIRST, &bits.to_ne_bytes()),
            compare(Register::FIRST, Compare::Unequal, &[0; 4]),
        ];
        // With datagrams each node would take all that it has ever answered for its own.
        let known = if directed { vec![known] } else { vec![dispatch::tcp(), known] };
        self.rule(&vip, &known, Verdict::Accept);
        for error in dispatch::errors(self.version) {
            self.rule(&vip, &[error], Verdict::Accept);
        }
        if self.version == Version::V6 {
            self.rule(&vip, &[dispatch::discovery(SOLICITATION)], Verdict::Accept);
            self.rule(&vip, &[dispatch::discovery(ADVERTISEMENT)], Verdict::Accept);
        }
        if directed {
            // Only what came in fragments gets here though its bucket is another's.
            self.rule(&vip, &[from_member(false)], Verdict::Jump(&others));
        }
        // A segment that begins nothing and belongs to nothing. The kernel may take such a one for
        // the middle of a connection that began before it looked, so that its opinion is not asked.
        let flags = Field { base: Base::Inner, offset: 13, length: 1 };
        let middle = vec![
            read(flags, Register::FIRST),
            mask(Register::FIRST, &[FLAGS]),
            compare(Register::FIRST, Compare::Unequal, &[FLAG_SYN]),
        ];
        self.rule(&vip, &[dispatch::tcp(), middle], Verdict::Goto(&stray));
        if !directed {
            self.rule(&vip, &[], Verdict::Goto(&others));
        }
        for (chain, map) in [(&others, self.chain("owners")), (&stray, self.chain("strays"))] {
            for steps in by_port(self.version, &self.plan.rules, &map) {
                self.batch.add_rule(self.table, chain, &steps);
            }
            self.batch.add_rule(self.table, chain, &by_address(self.version, &map));
            self.rule(chain, &[], Verdict::Drop);
        }
    }
}
