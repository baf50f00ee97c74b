//! What the nodes of a farm tell each other, many times a second.
//!
//! State only, no commands: losing, repeating or reordering pulses does no harm. Its bytes are in
//! `wire`; which member is meant by a seat is the list of nodes in the module's file.

use std::time::Duration;

use model::BootId;
use serde::{Deserialize, Serialize};

use super::table::{Lead, Seat, Stamp, Table};

/// Longest place, in bytes: that of six addresses of version 6. It fits beside the longest name of
/// a module.
pub const PLACE_BYTES_MAX: usize = 138;

/// So long a node counts as there whose daemon has said that it ends: the next one has to be back
/// by then. Its kernel goes on serving.
pub const AWAY: Duration = Duration::from_secs(10);

/// So many nodes a farm may have: a seat is a bit of `Pulse::hears`.
pub const SEATS_MAX: usize = 32;

/// What a node takes part in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Nothing: it is no member.
    #[default]
    Out,
    /// It may lead and knows the table, but its application serves nobody.
    Standby,
    /// It serves whom it has, and takes no more: it is about to leave.
    Draining,
    /// It serves.
    Ready,
}

/// Whom a node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follows {
    /// The leadership.
    pub lead: Lead,
    /// Whether the leader is heard by the node itself, both ways; if not, others that hear it
    /// follow it, and so the node has no other.
    pub heard: bool,
}

/// One pulse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Sender.
    pub from: Seat,
    /// Digest of the module's list of nodes, which seats count in.
    pub roster: u64,
    /// Identity of the sender's boot.
    pub boot: BootId,
    /// Start of the sender's daemon: a later one is greater within the same boot.
    pub incarnation: u64,
    /// Counts the pulses of an incarnation; given by the shell as it sends.
    pub sequence: u64,
    /// What the sender takes part in.
    pub part: Part,
    /// Its daemon ends, and the next one is to come: until then its kernel goes on as it is.
    #[serde(default)]
    pub away: bool,
    /// How much it is to serve, compared with the others.
    pub weight: u32,
    /// Whom it hears: a bit for each seat.
    pub hears: u32,
    /// Whom it follows, which may be itself.
    pub follows: Option<Follows>,
    /// The newest leadership that it knows of has this term.
    pub term: u64,
    /// The table by which its kernel goes: what it does not own by it, it does not serve.
    pub installed: Stamp,
    /// A leader: its packets go by this table entirely.
    pub switched: u64,
    /// A leader that leaves: who is to lead after it.
    pub heir: Option<Seat>,
    /// A leader: the table.
    pub table: Option<Table>,
    /// Where packets for it are to be sent; the shell's matter.
    pub place: Vec<u8>,
}

impl Pulse {
    /// Whether it hears this seat.
    #[must_use]
    pub fn hears(&self, seat: Seat) -> bool {
        self.hears & bit(seat) != 0
    }

    /// Whether it leads, or wants to.
    #[must_use]
    pub fn leads(&self) -> Option<Lead> {
        self.follows.map(|follows| follows.lead).filter(|lead| lead.seat == self.from)
    }
}

/// The bit of a seat; none for one that cannot be.
pub(super) fn bit(seat: Seat) -> u32 {
    1u32.checked_shl(seat.into()).unwrap_or_default()
}
