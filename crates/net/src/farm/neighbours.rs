//! What this node tells the network about where the virtual addresses are.
//!
//! All nodes have the addresses, but only a leader may answer for them; and a question that a node
//! asks must not advertise them by the way. Announcements are sent by `announce`, past these rules.

use std::net::IpAddr;

use super::dispatch::{self, ADVERTISEMENT, SOLICITATION, TARGET, Version, field_is, network};
use super::{Address, Delivery, Plan, group};
use crate::nft::encode::{Batch, Family, Hook, Table};
use crate::nft::expression::{Base, Checksum, Compare, Field, Register, Verdict};
use crate::nft::expression::{compare, constant, read, verdict, write};

const HOOK_ARP_IN: u32 = 0;
const HOOK_ARP_OUT: u32 = 1;
const HOOK_LOCAL_OUT: u32 = 3;
/// After whoever else wants to change what leaves.
const PRIORITY: i32 = 300;
const IN: &str = "in";
const OUT: &str = "out";

/// Fields of ARP.
const OPERATION: Field = network(6, 2);
const SENDER_MAC: Field = network(8, 6);
const SENDER: Field = network(14, 4);
const WANTED: Field = network(24, 4);
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// The option of an advertisement, behind the address that it is about.
const OPTION: Field = Field { base: Base::Inner, offset: 24, length: 1 };
const OPTION_MAC: Field = Field { base: Base::Inner, offset: 26, length: 6 };
const OPTION_TARGET_MAC: u8 = 2;
/// Where ICMP has its checksum.
const CHECKSUM_AT: u32 = 2;

fn arp(name: &str) -> Table<'_> {
    Table { family: Family::Arp, name }
}

fn ip6(name: &str) -> Table<'_> {
    Table { family: Family::Ip6, name }
}

fn has(plan: &Plan, version: Version) -> bool {
    plan.addresses.iter().any(|address| Version::of(address.ip) == version)
}

pub(super) fn shape(batch: &mut Batch, name: &str, plan: &Plan) {
    let hook = |number| Some(Hook { number, priority: PRIORITY, device: None });
    if has(plan, Version::V4) {
        batch.add_table(arp(name));
        batch.add_chain(arp(name), IN, hook(HOOK_ARP_IN));
        batch.add_chain(arp(name), OUT, hook(HOOK_ARP_OUT));
    }
    if has(plan, Version::V6) {
        batch.add_table(ip6(name));
        batch.add_chain(ip6(name), OUT, hook(HOOK_LOCAL_OUT));
    }
}

pub(super) fn fill(batch: &mut Batch, name: &str, plan: &Plan, quiet: bool) {
    if has(plan, Version::V4) {
        batch.clear_chain(arp(name), IN);
        batch.clear_chain(arp(name), OUT);
    }
    if has(plan, Version::V6) {
        batch.clear_chain(ip6(name), OUT);
    }
    for address in &plan.addresses {
        match address.ip {
            IpAddr::V4(_) => fill_arp(batch, arp(name), plan, address, quiet),
            IpAddr::V6(_) => fill_discovery(batch, ip6(name), plan, address, quiet),
        }
    }
}

fn fill_arp(batch: &mut Batch, table: Table<'_>, plan: &Plan, address: &Address, quiet: bool) {
    let ip = dispatch::octets(address.ip);
    let own = dispatch::octets(address.own.address);
    let drop = || vec![verdict(Verdict::Drop)];
    if quiet {
        let asked = [field_is(OPERATION, &REQUEST), field_is(WANTED, &ip), drop()];
        batch.add_rule(table, IN, &asked.concat());
    }
    let about_others =
        vec![read(WANTED, Register::FIRST), compare(Register::FIRST, Compare::Unequal, &ip)];
    let as_itself =
        vec![constant(Register::FIRST, &own), write(SENDER, Register::FIRST, Checksum::None)];
    let asks = [field_is(OPERATION, &REQUEST), field_is(SENDER, &ip), about_others, as_itself];
    batch.add_rule(table, OUT, &asks.concat());
    if quiet {
        batch.add_rule(table, OUT, &[field_is(SENDER, &ip), drop()].concat());
    } else if plan.delivery == Delivery::Multicast {
        let mac = group::mac(address.ip);
        let shared = vec![
            constant(Register::FIRST, &mac),
            write(SENDER_MAC, Register::FIRST, Checksum::None),
        ];
        let answers = [field_is(OPERATION, &REPLY), field_is(SENDER, &ip), shared];
        batch.add_rule(table, OUT, &answers.concat());
    }
}

fn fill_discovery(
    batch: &mut Batch,
    table: Table<'_>,
    plan: &Plan,
    address: &Address,
    quiet: bool,
) {
    let ip = dispatch::octets(address.ip);
    let own = dispatch::octets(address.own.address);
    let source = Version::V6.source();
    let as_itself =
        vec![constant(Register::FIRST, &own), write(source, Register::FIRST, Checksum::OfInner)];
    let asks = [dispatch::discovery(SOLICITATION), field_is(source, &ip), as_itself];
    batch.add_rule(table, OUT, &asks.concat());
    let answers = [dispatch::discovery(ADVERTISEMENT), field_is(TARGET, &ip)].concat();
    if quiet {
        let silent = [answers.as_slice(), &[verdict(Verdict::Drop)]].concat();
        batch.add_rule(table, OUT, &silent);
    } else if plan.delivery == Delivery::Multicast {
        let mac = group::mac(address.ip);
        let shared = vec![
            constant(Register::FIRST, &mac),
            write(OPTION_MAC, Register::FIRST, Checksum::At(CHECKSUM_AT)),
        ];
        let steps = [answers, field_is(OPTION, &[OPTION_TARGET_MAC]), shared];
        batch.add_rule(table, OUT, &steps.concat());
    }
}
