//! A farm as one node sees it, for people and programs. Reads only.

use std::time::Duration;

use model::NodeName;
use model::config::Delivery;
use serde::{Deserialize, Serialize};

use super::{BUCKETS, Farm, Part, Pulse, Seat, Stamp, Standing};

/// A farm as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Who answers for the addresses, if that is known.
    pub leader: Option<NodeName>,
    /// Term of its leadership.
    pub term: u64,
    /// Serial of the table.
    pub serial: u64,
    /// Whether the kernels go by the table, as far as this node knows: a moment before, buckets
    /// that are to move are where they were.
    #[serde(default)]
    pub in_force: bool,
    /// How packets reach the node that serves them.
    pub delivery: Delivery,
    /// The nodes of the module, in the order of its file.
    pub members: Vec<Member>,
}

/// One node of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: NodeName,
    /// What it takes part in, as far as this node hears.
    pub part: Part,
    /// Whether it is a member: heard, and hears this node.
    pub heard: bool,
    /// How many of the buckets it serves.
    pub buckets: usize,
    /// The same in percent of all clients, rounded.
    pub percent: u32,
    /// How much it is to serve, compared with the others.
    pub weight: u32,
}

impl Farm {
    /// The farm as this node sees it.
    #[must_use]
    pub fn view(&self) -> View {
        let member = |seat: Seat| {
            let own = seat == self.settings.me;
            let said = self.fresh(seat);
            let buckets = self.table.count(seat);
            Member {
                node: self.name(seat),
                part: if own { self.part } else { said.map_or(Part::Out, |said| said.part) },
                heard: own || self.member(seat).is_some(),
                buckets,
                percent: percent(buckets),
                weight: if own { self.settings.weight } else { said.map_or(0, |said| said.weight) },
            }
        };
        View {
            leader: self.leader().map(|seat| self.name(seat)),
            term: self.table.stamp.term,
            serial: self.table.stamp.serial,
            in_force: self.goes_by_its_table(),
            delivery: self.settings.delivery,
            members: self.seats().map(member).collect(),
        }
    }

    fn goes_by_its_table(&self) -> bool {
        let agreed = match self.standing {
            Standing::Leads { established, .. } => established && self.is_in_force(),
            Standing::Follows(_) => self.is_switched(),
            Standing::Out | Standing::Seeks { .. } | Standing::Estranged(_) => false,
        };
        agreed && self.is_followed() && self.serves_by_table()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<Seat> {
        self.follows().map(|follows| follows.lead.seat)
    }

    /// Whether this node answers for the addresses.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_established()
    }

    /// Whether the node at this place of the list is a member, as this node sees it.
    #[must_use]
    pub fn is_member(&self, place: usize) -> bool {
        Seat::try_from(place).is_ok_and(|seat| self.member(seat).is_some())
    }

    /// Whether it serves nobody, as the others follow a leader that it does not hear.
    #[must_use]
    pub fn is_estranged(&self) -> bool {
        matches!(self.standing, Standing::Estranged(_))
    }

    /// A node that was heard and means another node by a seat, for its list of nodes is another.
    #[must_use]
    pub fn other_roster(&self) -> Option<NodeName> {
        self.other_roster.map(|(seat, _)| self.name(seat))
    }

    /// Members that this node, as leader, gives no clients yet, for they have come and gone.
    #[must_use]
    pub fn held(&self) -> Vec<NodeName> {
        let held = |pulse: &&Pulse| {
            let ready = pulse.part == Part::Ready && self.table.count(pulse.from) == 0;
            ready && self.is_held(pulse.from)
        };
        let held = self.members().filter(held).map(|pulse| self.name(pulse.from));
        if self.is_leader() { held.collect() } else { Vec::new() }
    }

    /// The table that the kernel goes by.
    #[must_use]
    pub fn installed(&self) -> Stamp {
        self.installed
    }

    /// What the kernel is to do.
    #[must_use]
    pub fn shares(&self) -> &super::Shares {
        &self.shares
    }

    /// What a daemon that is started now would find in the kernel.
    #[must_use]
    pub fn left(&self) -> super::Left {
        let (table, shares) = (self.table.clone(), self.shares.clone());
        let (hears, roster, late) = (self.hears(), self.roster(), self.late.clone());
        super::Left { table, shares, hears, roster, late }
    }

    /// What it takes part in.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// Digest of the list of nodes, which a pulse must have to be for this farm.
    #[must_use]
    pub fn roster(&self) -> u64 {
        self.settings.roster()
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &super::Settings {
        &self.settings
    }

    /// How long silence lasts until a node is lost.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// How many buckets this node serves.
    #[must_use]
    pub fn count(&self) -> usize {
        let me = Some(self.settings.me);
        self.shares.buckets.iter().filter(|bucket| bucket.owner == me).count()
    }
}

/// Buckets as percent of all, rounded to the nearest.
#[must_use]
pub fn percent(buckets: usize) -> u32 {
    u32::try_from((buckets * 200 + BUCKETS) / (2 * BUCKETS)).unwrap_or(100)
}
