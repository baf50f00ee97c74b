//! The packet filter: what of nf_tables this program uses, in tables of its own.
//!
//! Each change replaces a whole table in one transaction of the kernel, so that there is no moment
//! with half of it. Tables of others are never touched or looked at. Reading rules back is not
//! supported.

pub(crate) mod encode;
pub(crate) mod expression;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt;

use crate::error::{Error, kernel};
use encode::{Batch, Family, Hook, Table};
use expression::{Compare, Expression, Meta, Register, Verdict};
use expression::{compare, compare_interface, load, verdict};

/// The table of the lab's cuts.
const CUTS_TABLE: &str = "evenkeel_lab";
/// Frames that pass from one port of a bridge to another.
const HOOK_BRIDGE_FORWARD: u32 = 2;
/// The usual place of a filter chain.
const PRIORITY_FILTER: i32 = 0;
/// The kernel takes a batch as one message, which must fit in the socket's buffer.
const SEND_BUFFER: usize = 1 << 20;
/// UDP's number inside IP.
const PROTOCOL_UDP: u8 = 17;

/// Replaces all cuts between ports of bridges in this network namespace: a frame that comes in by
/// the first interface of a pair and would leave by the second is dropped. Only this direction; the
/// other one is a pair of its own. Of the pairs in `datagrams` only UDP is dropped. Without any
/// pair the table is removed.
///
/// # Errors
/// When the kernel refuses; the former cuts are in force then.
pub fn bridge_cuts(cuts: &[(String, String)], datagrams: &[(String, String)]) -> Result<(), Error> {
    let mut names = cuts.iter().chain(datagrams).flat_map(|(from, to)| [from, to]);
    if let Some(name) = names.find(|name| name.len() > 15) {
        let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        return Err(kernel("cut", format!("interface \"{name}\""))(source));
    }
    let mut batch = Batch::new();
    let table = Table { family: Family::Bridge, name: CUTS_TABLE };
    batch.remove_table(table);
    if !(cuts.is_empty() && datagrams.is_empty()) {
        batch.add_table(table);
        let chain = "forward";
        let hook = Hook { number: HOOK_BRIDGE_FORWARD, priority: PRIORITY_FILTER, device: None };
        batch.add_chain(table, chain, Some(hook));
        for (from, to) in cuts {
            let rule = [passes(from, to).as_slice(), &[verdict(Verdict::Drop)]].concat();
            batch.add_rule(table, chain, &rule);
        }
        for (from, to) in datagrams {
            let udp = [
                load(Meta::Inner, Register::FIRST),
                compare(Register::FIRST, Compare::Equal, &[PROTOCOL_UDP]),
                verdict(Verdict::Drop),
            ];
            batch.add_rule(table, chain, &[passes(from, to).as_slice(), &udp].concat());
        }
    }
    commit(batch).map_err(kernel("replace", format!("packet filter table \"{CUTS_TABLE}\"")))
}

/// Goes on with the rule if a frame goes this way.
fn passes(from: &str, to: &str) -> [Expression; 4] {
    [
        load(Meta::InputInterface, Register::FIRST),
        compare_interface(Register::FIRST, from),
        load(Meta::OutputInterface, Register::FIRST),
        compare_interface(Register::FIRST, to),
    ]
}

/// Sends a batch and waits until the kernel has answered.
pub(crate) fn commit(batch: Batch) -> io::Result<()> {
    let (bytes, last_sequence) = batch.finish();
    ask(&bytes, last_sequence)
}

/// Whether a chain exists.
pub(crate) fn chain_exists(table: Table<'_>, name: &str) -> io::Result<bool> {
    match ask(&encode::ask_for_chain(table, name), 1) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends messages and waits for the first refusal, or the yes to the last one.
fn ask(bytes: &[u8], last_sequence: u32) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    if bytes.len() > SEND_BUFFER / 8 {
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    }
    socket.send(bytes, 0)?;
    // The kernel works off the messages within the call above: every answer is there by now.
    socket.set_non_blocking(true)?;
    let mut datagram = Vec::with_capacity(1 << 16);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        for (sequence, result) in encode::answers(&datagram) {
            result?;
            if sequence == last_sequence {
                return Ok(());
            }
        }
    }
}
