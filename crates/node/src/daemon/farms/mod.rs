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
mod pulses;

use std::io;
use std::sync::mpsc::Sender;

use model::NodeName;
use model::config::ModuleConfig;

pub(crate) use driver::{Driver, Order};
pub(crate) use pulses::{Pulses, STALE, pulse};

use crate::clock;
use crate::daemon::event::Event;
use crate::layout::Layout;

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
