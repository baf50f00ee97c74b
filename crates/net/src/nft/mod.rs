//! The packet filter: what of nf_tables this program uses, in tables of its own.
//!
//! Each change replaces a whole table in one transaction of the kernel, so that there is no moment
//! with half of it. Tables of others are never touched or looked at. Reading rules back is not
//! supported.

mod encode;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::error::{Error, kernel};
use encode::{Batch, Chain, Family, Meta, Verdict, compare_interface, load, verdict};

/// The table of the lab's cuts.
const CUTS_TABLE: &str = "evenkeel_lab";

/// Replaces all cuts between ports of bridges in this network namespace: a frame that comes in by
/// the first interface of a pair and would leave by the second is dropped. Only this direction; the
/// other one is a pair of its own. An empty list removes the table.
///
/// # Errors
/// When the kernel refuses; the former cuts are in force then.
pub fn bridge_cuts(cuts: &[(String, String)]) -> Result<(), Error> {
    if let Some(name) = cuts.iter().flat_map(|(from, to)| [from, to]).find(|name| name.len() > 15) {
        let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        return Err(kernel("cut", format!("interface \"{name}\""))(source));
    }
    let mut batch = Batch::new(Family::Bridge);
    batch.remove_table(CUTS_TABLE);
    if !cuts.is_empty() {
        batch.add_table(CUTS_TABLE);
        let chain = Chain { table: CUTS_TABLE, name: "forward" };
        batch.add_chain(chain, encode::HOOK_BRIDGE_FORWARD, encode::PRIORITY_FILTER);
        for (from, to) in cuts {
            batch.add_rule(
                chain,
                &[
                    load(Meta::InputInterface),
                    compare_interface(from),
                    load(Meta::OutputInterface),
                    compare_interface(to),
                    verdict(Verdict::Drop),
                ],
            );
        }
    }
    commit(batch).map_err(kernel("replace", format!("packet filter table \"{CUTS_TABLE}\"")))
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
