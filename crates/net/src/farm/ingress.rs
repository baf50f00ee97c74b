//! What becomes of a frame as it comes from the device, before anything else has seen it.
//!
//! Here buckets are told apart at the least cost, and frames of others are forwarded or dropped.
//! Fragments go up whole in pieces: their ports are known only when they are put together again
//! (see `whole`). Connections are unknown here.

use std::collections::BTreeSet;

use super::dispatch::{self, ADVERTISEMENT, FRAME_ADDRESSES, FRAME_SOURCE, SOLICITATION, Version};
use super::dispatch::{Steps, by_address, by_port};
use super::{Address, Bucket, Delivery, Owner, Plan, Table};
use crate::error::Error;
use crate::link::{Mac, Netlink};
use crate::nft::encode::{self, Batch, Family, Hook, Kind};
use crate::nft::expression::{Checksum, Meta, Register, Verdict};
use crate::nft::expression::{
    constant, copy_frame, forward, is_in, read, set_meta, verdict, write,
};

const HOOK_INGRESS: u32 = 0;
/// Chain that lets a frame up as one for this host.
const TAKE: &str = "take";
/// Set of the others' hardware addresses.
pub(super) const MEMBERS: &str = "members";
/// As the kernel numbers frames that are for this host.
const FOR_HOST: u8 = 0;

pub(super) fn table(name: &str) -> encode::Table<'_> {
    encode::Table { family: Family::NetDev, name }
}

/// Name of the chain of a device.
pub(super) fn device_chain(device: &str) -> String {
    format!("in-{device}")
}

pub(super) fn devices(plan: &Plan) -> BTreeSet<&str> {
    plan.addresses.iter().map(|address| address.device.as_str()).collect()
}

/// The hardware addresses of all others.
pub(super) fn macs(table: &Table) -> BTreeSet<Mac> {
    table.members.iter().flatten().map(|place| place.mac).collect()
}

/// Goes on if a frame comes from another member, or does not.
pub(super) fn from_member(wanted: bool) -> Steps {
    vec![read(FRAME_SOURCE, Register::FIRST), is_in(MEMBERS, Register::FIRST, wanted)]
}

pub(super) fn shape(batch: &mut Batch, name: &str, plan: &Plan) {
    let table = table(name);
    batch.add_table(table);
    for device in devices(plan) {
        let hook = Hook { number: HOOK_INGRESS, priority: 0, device: Some(device) };
        batch.add_chain(table, &device_chain(device), Some(hook));
    }
    batch.add_chain(table, TAKE, None);
    batch.add_set(table, MEMBERS, Kind::Macs, super::MEMBERS_MAX as u32 * 2);
    for number in 0..plan.addresses.len() {
        batch.add_chain(table, &format!("vip{number}"), None);
        batch.add_chain(table, &format!("errors{number}"), None);
        batch.add_set(table, &format!("buckets{number}"), Kind::Verdicts, super::BUCKETS as u32);
    }
}

pub(super) fn fill(
    batch: &mut Batch,
    name: &str,
    plan: &Plan,
    shares: &Table,
    quiet: bool,
) -> Result<(), Error> {
    let table = table(name);
    for device in devices(plan) {
        batch.clear_chain(table, &device_chain(device));
    }
    batch.clear_chain(table, TAKE);
    let take = [
        constant(Register::FIRST, &[FOR_HOST]),
        set_meta(Meta::Addressee, Register::FIRST),
        verdict(Verdict::Accept),
    ];
    batch.add_rule(table, TAKE, &take);
    batch.clear_set(table, MEMBERS);
    batch.add_macs(table, MEMBERS, macs(shares));
    let mut netlink = Netlink::open()?;
    for (number, address) in plan.addresses.iter().enumerate() {
        let index = netlink.index_of(&address.device)?;
        let mut one = One { batch, table, plan, shares, number, address, index };
        one.enter(quiet);
        one.buckets();
        one.vip(quiet);
        if plan.delivery == Delivery::Directed {
            one.forward();
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
}

impl One<'_> {
    fn rule(&mut self, chain: &str, parts: &[Steps], end: Verdict<'_>) {
        let steps = [parts.concat().as_slice(), &[verdict(end)]].concat();
        self.batch.add_rule(self.table, chain, &steps);
    }

    fn chain(&self, name: &str) -> String {
        format!("{name}{}", self.number)
    }

    fn to(&self, member: usize) -> String {
        format!("to{}-{member}", self.number)
    }

    /// Frames that are for the address leave the chain of the device.
    fn enter(&mut self, quiet: bool) {
        let chain = device_chain(&self.address.device);
        let (ip, version) = (self.address.ip, Version::of(self.address.ip));
        let vip = self.chain("vip");
        self.rule(
            &chain,
            &[dispatch::frame_carries(version), dispatch::is_for(ip)],
            Verdict::Goto(&vip),
        );
        if version == Version::V6 && quiet {
            // The question goes to a group of addresses, not to the address that it is about.
            let about = dispatch::field_is(dispatch::TARGET, &dispatch::octets(ip));
            let question = dispatch::discovery(SOLICITATION);
            let parts = [dispatch::frame_carries(version), question, about];
            self.rule(&chain, &parts, Verdict::Drop);
        }
    }

    fn buckets(&mut self) {
        let map = self.chain("buckets");
        let to: Vec<_> = (0..self.shares.members.len()).map(|member| self.to(member)).collect();
        let connections = self.plan.connections;
        let delivery = self.plan.delivery;
        let verdict = |bucket: &Bucket| match (delivery, bucket.owner) {
            (Delivery::Multicast, Owner::Me) => Verdict::Goto(TAKE),
            // Whoever knows a connection keeps it.
            (Delivery::Multicast, _) if bucket.former && connections => Verdict::Goto(TAKE),
            (Delivery::Directed, Owner::Me) => Verdict::Accept,
            (Delivery::Directed, Owner::Member(member)) => {
                to.get(usize::from(member)).map_or(Verdict::Drop, |chain| Verdict::Goto(chain))
            }
            (Delivery::Multicast, Owner::Member(_)) | (_, Owner::Nobody) => Verdict::Drop,
        };
        for chain in &to {
            self.batch.add_chain(self.table, chain, None);
        }
        self.batch.clear_set(self.table, &map);
        // Without a share the map is empty, and what finds nothing is dropped too.
        if self.shares.buckets.iter().any(|bucket| *bucket != Bucket::EMPTY) {
            let elements = (0..).zip(self.shares.buckets.iter().map(verdict));
            self.batch.add_verdicts(self.table, &map, elements);
        }
    }

    fn vip(&mut self, quiet: bool) {
        let (chain, map) = (self.chain("vip"), self.chain("buckets"));
        let version = Version::of(self.address.ip);
        let directed = self.plan.delivery == Delivery::Directed;
        let up = if directed { Verdict::Accept } else { Verdict::Goto(TAKE) };
        self.batch.clear_chain(self.table, &chain);
        if directed && !self.shares.leader {
            // Most that comes here has been forwarded, so that this is asked first. The leader
            // asks it last, for what it would forward.
            self.rule(&chain, &[from_member(true)], Verdict::Accept);
        }
        for steps in by_port(version, &self.plan.rules, &map) {
            self.batch.add_rule(self.table, &chain, &steps);
        }
        if version == Version::V6 {
            let question = dispatch::discovery(SOLICITATION);
            self.rule(&chain, &[question], if quiet { Verdict::Drop } else { up });
            self.rule(&chain, &[dispatch::discovery(ADVERTISEMENT)], up);
        }
        let errors = self.chain("errors");
        for error in dispatch::errors(version) {
            self.rule(&chain, &[error], if directed { Verdict::Goto(&errors) } else { up });
        }
        if self.plan.connections {
            self.rule(&chain, &[dispatch::fragment(version)], up);
        }
        self.batch.add_rule(self.table, &chain, &by_address(version, &map));
        self.rule(&chain, &[], Verdict::Drop);
    }

    /// Frames to others, and errors to all.
    fn forward(&mut self) {
        let errors = self.chain("errors");
        self.batch.clear_chain(self.table, &errors);
        self.rule(&errors, &[from_member(true)], Verdict::Accept);
        for member in 0..self.shares.members.len() {
            let chain = self.to(member);
            self.batch.clear_chain(self.table, &chain);
            // What a member forwarded goes no further, whatever the tables say: two that take each
            // other for the owner would otherwise pass it to and fro for ever.
            self.rule(&chain, &[from_member(true)], Verdict::Accept);
            let Some(place) = self.shares.members[member].get(self.number) else {
                continue;
            };
            let pair = [place.mac, self.address.own.mac].concat();
            let prepare = [
                constant(Register::FIRST, &pair),
                write(FRAME_ADDRESSES, Register::FIRST, Checksum::None),
                constant(Register::FIRST, &self.index.to_ne_bytes()),
            ];
            let away = [prepare.as_slice(), &[forward(Register::FIRST)]].concat();
            self.batch.add_rule(self.table, &chain, &away);
            let copy = [prepare.as_slice(), &[copy_frame(Register::FIRST)]].concat();
            self.batch.add_rule(self.table, &errors, &copy);
        }
        self.rule(&errors, &[], Verdict::Accept);
    }
}
