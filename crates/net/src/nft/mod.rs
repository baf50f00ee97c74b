//! The packet filter: what of nf_tables this program uses, in tables of its own.
//!
//! Each change replaces a whole table in one transaction of the kernel, so that there is no moment
//! with half of it. Tables of others are never touched or looked at. Reading rules back is not
//! supported.

mod encode;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::error::{Error, kernel};
use encode::{Batch, Chain, Expression, Family, Meta, Verdict};
use encode::{compare, compare_interface, load, verdict};

/// The table of the lab's cuts.
const CUTS_TABLE: &str = "evenkeel_lab";
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
    let mut batch = Batch::new(Family::Bridge);
    batch.remove_table(CUTS_TABLE);
    if !(cuts.is_empty() && datagrams.is_empty()) {
        batch.add_table(CUTS_TABLE);
        let chain = Chain { table: CUTS_TABLE, name: "forward" };
        batch.add_chain(chain, encode::HOOK_BRIDGE_FORWARD, encode::PRIORITY_FILTER);
        for (from, to) in cuts {
            let path = passes(from, to);
            batch.add_rule(chain, &[path.as_slice(), &[verdict(Verdict::Drop)]].concat());
        }
        for (from, to) in datagrams {
            let udp = [load(Meta::Protocol), compare(&[PROTOCOL_UDP]), verdict(Verdict::Drop)];
            batch.add_rule(chain, &[passes(from, to).as_slice(), &udp].concat());
        }
    }
    commit(batch).map_err(kernel("replace", format!("packet filter table \"{CUTS_TABLE}\"")))
}

/// Goes on with the rule if a frame goes this way.
fn passes(from: &str, to: &str) -> [Expression; 4] {
    [
        load(Meta::InputInterface),
        compare_interface(from),
        load(Meta::OutputInterface),
        compare_interface(to),
    ]
}

/// Sends a batch and waits until the kernel has answered each of its messages.
fn commit(batch: Batch) -> io::Result<()> {
    let (bytes, last_sequence) = batch.finish();
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    // The kernel works off the batch within the call above, so every answer is there by now.
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
