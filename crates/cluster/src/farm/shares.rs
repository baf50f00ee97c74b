//! What the kernel is to do by a table, in an order that leaves nobody without a server.
//!
//! ```text
//!   directed    the new owner takes what it got; the leader sends it packets once it has; the old
//!               owner lets go once the leader says that it has switched
//!   multicast   the old owner lets go; the new one takes once every member goes by the table
//! ```
//!
//! Where an owner has failed nobody is waited for but those who live. How packets are matched is
//! the engine's matter.

use model::NodeName;
use model::config::Delivery;
use serde::{Deserialize, Serialize};

use super::pulse::bit;
use super::table::{BUCKETS, Seat};
use super::{Farm, Line, Part, Standing, Table, Wish};

/// What is to become of a packet of a connection that the kernel does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stray {
    /// Handed to this node, which may know it.
    Pass(Seat),
    /// Answered with a reset: its server has failed.
    Reset,
    /// Dropped.
    #[default]
    Silent,
}

/// One bucket, as the kernel of one node is to treat it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Who serves it; nobody if none.
    pub owner: Option<Seat>,
    /// What becomes of strays.
    pub stray: Stray,
    /// This node served it before, and may know connections of it still.
    pub former: bool,
}

/// What the kernel of one node is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Counts what was wished of the kernel of this node; named in the answer.
    pub edition: u64,
    /// Term of the table that it follows from.
    pub term: u64,
    /// Serial of that table.
    pub serial: u64,
    /// Whether this node answers for the addresses.
    pub leader: bool,
    /// The buckets, `BUCKETS` of them.
    pub buckets: Vec<Bucket>,
}

impl Shares {
    /// Nobody serves.
    #[must_use]
    pub fn none() -> Shares {
        let buckets = vec![Bucket::default(); BUCKETS];
        Shares { edition: 0, term: 0, serial: 0, leader: false, buckets }
    }

    /// Whether anybody serves by it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.leader || self.buckets.iter().any(|bucket| *bucket != Bucket::default())
    }

    /// Buckets and what becomes of their strays, with the names of the nodes.
    pub fn named<'a>(
        &'a self,
        nodes: &'a [NodeName],
    ) -> impl Iterator<Item = (Option<&'a NodeName>, Stray)> {
        let name = |seat: Seat| nodes.get(usize::from(seat));
        self.buckets.iter().map(move |bucket| (bucket.owner.and_then(name), bucket.stray))
    }
}

impl Farm {
    /// Has the kernel do what the table and the others' words allow, if that is something else.
    pub(super) fn update_shares(&mut self) -> bool {
        let buckets = self.wanted();
        let leader = self.is_established();
        let stamp = self.table.stamp;
        let same = buckets == self.shares.buckets && leader == self.shares.leader;
        let hears = self.hears();
        // Whoever follows this daemon must know whom it heard.
        let same = same && (hears == self.kept || !self.shares.serves());
        let newest = self.asked.last_key_value().map_or(self.installed, |(_, stamp)| *stamp);
        if same && newest == stamp {
            return false;
        }
        if same {
            // The kernel does already, or will do, what this table wants of this node.
            match self.asked.last_entry() {
                Some(mut last) => *last.get_mut() = stamp,
                None => self.installed = stamp,
            }
            return true;
        }
        let edition = self.shares.edition + 1;
        let (term, serial) = (stamp.term, stamp.serial);
        self.shares = Shares { edition, term, serial, leader, buckets };
        self.kept = hears;
        self.asked.insert(edition, stamp);
        self.wishes.push(Wish::SetShares(Box::new(self.shares.clone())));
        true
    }

    /// Whether it knows what all say without listening any longer: whom the leader hears. Who is
    /// not heard by that one is lost.
    fn hears_whom_its_leader_hears(&self) -> bool {
        let Standing::Follows(lead) = self.standing else { return false };
        let known = |seat: Seat| seat == self.settings.me || self.fresh(seat).is_some();
        let leader = self.member(lead.seat).filter(|leader| !leader.away);
        leader.is_some_and(|leader| self.seats().all(|seat| !leader.hears(seat) || known(seat)))
    }

    /// Whether it serves what it should by the table, and nothing else.
    pub(super) fn serves_by_table(&self) -> bool {
        let me = Some(self.settings.me);
        let mut lines = self.table.lines.iter().zip(&self.shares.buckets);
        lines.all(|(line, bucket)| (line.owner == me) == (bucket.owner == me))
    }

    /// Goes by another table. The leader may have missed who serves by an earlier one still: what
    /// this node knows of them it keeps in mind.
    pub(super) fn go_by(&mut self, table: Table) {
        let earlier = self.unsettled();
        let before = std::mem::replace(&mut self.table, table);
        let now = self.unsettled();
        let late = self.late.iter().copied().chain(std::iter::repeat(0));
        let owners = before.lines.iter().map(|line| line.owner.map_or(0, bit));
        let all = owners.zip(late).map(|(owner, late)| (owner | late & earlier) & now);
        self.late = if now == 0 { Vec::new() } else { all.collect() };
    }

    /// The members that have not said that they go by the table: a bit for each seat.
    fn unsettled(&self) -> u32 {
        let behind = self.members().filter(|member| !self.has_installed(member.from));
        behind.map(|member| bit(member.from)).fold(0, |all, bit| all | bit)
    }

    fn wanted(&mut self) -> Vec<Bucket> {
        let informed = !self.is_listening() || self.hears_whom_its_leader_hears();
        let may_take = informed && self.is_at_all() && !self.is_behind();
        let released = self.is_switched();
        let installed: Vec<bool> = self.seats().map(|seat| self.has_installed(seat)).collect();
        let lead = self.table.stamp.lead();
        let away = self.members().filter(|pulse| pulse.away && !self.has_installed(pulse.from));
        let unsure = away.map(|pulse| (pulse.from, pulse.installed.is_of(lead))).collect();
        let patient = !self.due(self.drawn + self.settings.timeout);
        let facts = Facts { may_take, unsure, released, installed, patient };
        let lines = self.table.lines.iter().zip(&self.shares.buckets);
        let late = self.late.iter().copied().chain(std::iter::repeat(0));
        lines.zip(late).map(|((l, now), late)| self.bucket((l, late), now.owner, &facts)).collect()
    }

    fn bucket(&self, (line, late): (&Line, u32), now: Option<Seat>, facts: &Facts) -> Bucket {
        let me = Some(self.settings.me);
        let leads = matches!(self.standing, Standing::Leads { .. });
        let owner = match self.settings.delivery {
            Delivery::Multicast if line.owner == me && now != me && !facts.may_take(line, late) => {
                None
            }
            Delivery::Multicast if line.owner == me && self.is_behind() => None,
            Delivery::Multicast => line.owner,
            Delivery::Directed if leads => self.destination(line, now, facts),
            Delivery::Directed if now == me && line.owner != me && !facts.released => now,
            Delivery::Directed => line.owner,
        };
        let former = owner != me && line.former.contains(&me);
        // While packets still go by the table before, they come here in another order, and who is
        // last by this table need not be: nothing is reset or handed on, and what is dropped comes
        // again.
        let comes = self.settings.delivery == Delivery::Directed && !leads && !facts.released;
        let settled = owner == line.owner && !comes;
        let stray = if settled { self.stray(line) } else { Stray::Silent };
        Bucket { owner, stray, former }
    }

    /// Where a leader sends what is for a bucket.
    fn destination(&self, line: &Line, now: Option<Seat>, facts: &Facts) -> Option<Seat> {
        let to = line.owner;
        let Some(seat) = to.filter(|_| to != now && to != Some(self.settings.me)) else {
            return to;
        };
        let is_taken = facts.installed.get(usize::from(seat)).copied().unwrap_or_default();
        let serves = |seat: Seat| {
            let part = if seat == self.settings.me {
                Some(self.part)
            } else {
                self.member(seat).map(|member| member.part)
            };
            matches!(part, Some(Part::Ready | Part::Draining))
        };
        // Until it goes by this table the new owner may be the last by the one before, and would
        // reset what others know.
        let others = line.former.iter().flatten().any(|seat| self.is_here(*seat));
        let away = self.member(seat).is_none_or(|member| member.away);
        let waits = now.is_some_and(serves) || (others && !away && facts.patient);
        if is_taken || !waits { to } else { now }
    }

    /// A node that does not know a connection hands it to who served the bucket before itself.
    pub(super) fn stray(&self, line: &Line) -> Stray {
        let me = self.settings.me;
        let lives = |seat: &Seat| self.is_here(*seat);
        let end = if line.died { Stray::Reset } else { Stray::Silent };
        let mut chain = line.chain().filter(lives);
        match self.settings.delivery {
            Delivery::Directed if chain.any(|seat| seat == me) => {
                chain.next().map_or(end, Stray::Pass)
            }
            Delivery::Directed => Stray::Silent,
            Delivery::Multicast => {
                let mut former = line.former.into_iter().flatten().filter(lives);
                let owns = line.owner == Some(me);
                if owns && former.next().is_none() { end } else { Stray::Silent }
            }
        }
    }

    fn is_here(&self, seat: Seat) -> bool {
        seat == self.settings.me || self.now < self.listening || self.member(seat).is_some()
    }

    /// Whether the leader's packets go by this table, so that who does not own a bucket by it can
    /// let go of it.
    pub(super) fn is_switched(&self) -> bool {
        match self.standing {
            Standing::Out | Standing::Estranged(_) => true,
            Standing::Follows(lead) if self.table.stamp.is_of(lead) => {
                let leader = self.member(lead.seat);
                leader.is_some_and(|leader| leader.switched >= self.table.stamp.serial)
            }
            Standing::Seeks { .. } | Standing::Follows(_) | Standing::Leads { .. } => false,
        }
    }
}

/// What the others have said of the table.
struct Facts {
    may_take: bool,
    /// Whose daemons are away and have not said that they go by the table; and whether they go by
    /// an earlier one of the same leader.
    unsure: Vec<(Seat, bool)>,
    released: bool,
    installed: Vec<bool>,
    /// The table is so new that its owners may be waited for where nobody serves.
    patient: bool,
}

impl Facts {
    /// Whether nobody else serves a bucket that this node is to take.
    fn may_take(&self, line: &Line, late: u32) -> bool {
        let mut unsure = self.unsure.iter();
        let had = |seat: Seat| line.former.contains(&Some(seat)) || late & bit(seat) != 0;
        let serves = |(seat, same): &(Seat, bool)| !same || had(*seat);
        self.may_take && !unsure.any(serves)
    }
}
