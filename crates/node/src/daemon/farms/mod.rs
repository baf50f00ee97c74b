//! Farms on this node: what their nodes tell each other, and what drives the kernel's filter.
//!
//! ```text
//! core ─ Pulse ──────> pulses ─────> every network      each at its pace, and at once
//! core <─ Input::Pulse ─ pulses <─── every network
//!                          └ places ─┐
//! core ─ SetShares ──> driver ───────┴─> net::farm      one thread for each farm
//! ```
//!
//! No decision is taken here: who serves whom is `cluster::farm`'s matter.

mod driver;
mod kept;
mod places;
pub(crate) mod pulses;

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use model::NodeName;
use model::config::ModuleConfig;

pub(crate) use driver::{Driver, Order};
pub(crate) use pulses::{Pulses, STALE, pulse};

use crate::clock;
use crate::daemon::event::Event;
use crate::layout::Layout;

/// How long systemd may take to say how the machine is.
const ASKED_MAX: Duration = Duration::from_millis(300);

/// Whether systemd is taking the machine down: then nothing goes on here, and the others shall see
/// that as soon as they can. Who cannot say so in time does not count.
pub(crate) fn is_machine_going() -> bool {
    let mut asking = Command::new("systemctl");
    asking.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(mut asked) = asking.stdout(Stdio::piped()).spawn() else { return false };
    let until = Instant::now() + ASKED_MAX;
    while matches!(asked.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            let _ = asked.kill();
            let _ = asked.wait();
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut said = String::new();
    let read = asked.stdout.take().map(|mut out| out.read_to_string(&mut said));
    read.is_some_and(|read| read.is_ok()) && said.trim() == "stopping"
}

/// The driver of a module, if it is a farm on this node.
pub(crate) fn driver(
    layout: &Layout,
    node: &NodeName,
    config: &ModuleConfig,
    events: &Sender<Event>,
) -> io::Result<Option<Driver>> {
    if config.farm.is_none() || !config.nodes.contains(node) {
        return Ok(None);
    }
    let own = (node, clock::boot_id()?);
    Driver::start(own, config, layout.farm_file(&config.name), events).map(Some)
}
