//! Who serves which clients of a farm: membership, leader and table, as a state machine.
//!
//! ```text
//!            heard a leader                      it is lost, or says that it does not lead
//!   Seeks -------------------> Follows -----------------------------+
//!    |  ^                        ^                                  |
//!    |  +------------------------|----------------------------------+
//!    | its turn                  | hears of a greater leadership
//!    +-------> Leads ------------+
//!   any -> Estranged: others follow a leader that it does not hear, or that does not hear it
//! ```
//!
//! A member is a node that hears this one and is heard by it. The leader alone draws up the table;
//! everybody goes by the table of the greatest leadership that it hears of. Nothing is remembered
//! about messages: after each input the node looks at what the others said last. This file holds
//! the data and the loop; who is heard and followed is in `follow`, what a leader does in `lead`,
//! what the kernel is to do by a table in `shares`. Whether the application is fit to serve is not
//! known here.

mod balance;
mod follow;
mod lead;
pub mod pulse;
mod shares;
pub mod table;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::{Delivery, ModuleConfig};
use model::{BootId, NodeName, Time};
use serde::{Deserialize, Serialize};

pub use pulse::{Follows, PLACE_BYTES_MAX, Part, Pulse};
pub use shares::{Bucket, Shares, Stray};
pub use table::{BUCKETS, FORMER_MAX, Lead, Line, Seat, Stamp, Table};
pub use view::{Member, View};

/// Rounds of `step` after one input; more would be a loop of decisions undoing each other.
const ROUNDS_MAX: usize = 32;
/// A daemon that goes on where another one ended waits so long until it has heard all whom that one
/// heard: theirs may be starting anew just as well.
const RESUMES: Duration = Duration::from_secs(2);
/// A node that is lost again within this time, after it may have had clients, comes and goes.
const UNSTEADY: Duration = Duration::from_secs(60);
/// So long such a node must have been there before it has clients again: for each time that it was
/// lost after the first, up to so many.
const STEADY: Duration = Duration::from_secs(10);
const STEADY_MAX: u32 = 3;
/// Boots of a peer that are over: what is still under way of them is not believed.
const PAST: usize = 4;

/// What a node of a farm is, as its module's file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The nodes of the module; a seat is a place in this list.
    pub nodes: Vec<NodeName>,
    /// This node's seat.
    pub me: Seat,
    /// How much it is to serve, compared with the others.
    pub weight: u32,
    /// How packets reach the node that serves them.
    pub delivery: Delivery,
    /// Time between two pulses.
    pub pulse: Duration,
    /// Silence after which a node is lost.
    pub timeout: Duration,
}

impl Settings {
    /// Those of `me` in a farm; none when it is no farm or not on this node.
    #[must_use]
    pub fn of(config: &ModuleConfig, me: &NodeName) -> Option<Settings> {
        let farm = config.farm.as_ref()?;
        let seat = config.nodes.iter().position(|node| node == me)?;
        Some(Settings {
            nodes: config.nodes.clone(),
            me: Seat::try_from(seat).ok()?,
            weight: farm.weight(me),
            delivery: farm.delivery,
            pulse: farm.pulse,
            timeout: farm.timeout,
        })
    }

    /// Digest of the list of nodes, by which two nodes see that they mean the same by a seat.
    fn roster(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in self.nodes.iter().flat_map(|node| node.as_str().bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    }
}

/// What an earlier daemon of this boot left in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The table that it went by.
    pub table: Table,
    /// What the kernel does.
    pub shares: Shares,
    /// Whom it heard: a bit for each seat.
    pub hears: u32,
    /// Digest of the list of nodes, which seats count in.
    #[serde(default)]
    pub roster: u64,
    /// Who may go by an earlier table, as it knew: for each bucket a bit for each seat.
    #[serde(default)]
    pub late: Vec<u32>,
}

/// What a farm wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Send this pulse at once, and from then on at the module's pace.
    Pulse(Box<Pulse>),
    /// Have the kernel go by these shares, all at once; answered by `shares_set` with their
    /// edition.
    SetShares(Box<Shares>),
    /// Tell what has happened.
    Tell(Told),
}

/// What has happened to the farm as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This node leads now.
    Leads,
    /// This node follows another leader now.
    Follows(NodeName),
    /// A node was lost.
    Lost(NodeName),
    /// A node is there.
    Came(NodeName),
    /// Two parts of the farm served apart, and have found each other.
    Healed {
        /// The leader of the other part.
        other: NodeName,
        /// Who leads now.
        leader: NodeName,
    },
    /// Others follow this leader, and it and this node do not hear each other: it serves nobody.
    Estranged(NodeName),
    /// Nobody is there who may serve.
    Nobody,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// No member.
    Out,
    /// There is nobody to follow.
    Seeks { since: Time },
    /// It leads; established once all members have said that they follow it.
    Leads { term: u64, since: Time, established: bool },
    /// It follows a leader that it hears.
    Follows(Lead),
    /// It would follow a leader that it does not hear.
    Estranged(Lead),
}

/// What is known of another node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    pulse: Option<Box<Pulse>>,
    received: Time,
    past: [Option<BootId>; PAST],
    /// It was a member after the last input.
    member: bool,
    /// It led another part of the farm then.
    rival: bool,
    /// How often it was lost, each time soon after it had come back.
    #[serde(default)]
    losses: u32,
    /// Since when it has been there; none from when it was lost until it is back.
    #[serde(default)]
    came: Option<Time>,
}

/// One farm on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farm {
    settings: Settings,
    boot: BootId,
    incarnation: u64,
    /// What it is to take part in.
    part: Part,
    peers: Vec<Peer>,
    /// Until then nothing is concluded from silence.
    listening: Time,
    /// Whom an earlier daemon heard: until then they are not told otherwise.
    presumed: u32,
    handled: Time,
    /// When it last went on after it had stood still.
    #[serde(default)]
    woken: Option<Time>,
    standing: Standing,
    /// Since when others follow a greater leader that this node does not hear.
    outranked: Option<Time>,
    /// Since when members go by a later table than this node has.
    behind: Option<Time>,
    /// The greatest term that was ever heard of.
    term: u64,
    table: Table,
    /// For each bucket a bit for each seat that had it by an earlier table, and may go by that one.
    #[serde(default)]
    late: Vec<u32>,
    /// When it was drawn up, by this node.
    #[serde(default)]
    drawn: Time,
    /// What the kernel is to do, as it was wished last.
    shares: Shares,
    /// Editions of the shares that are not in the kernel yet, and the table each is of.
    asked: BTreeMap<u64, Stamp>,
    installed: Stamp,
    /// Whom it heard as it wished that.
    #[serde(default)]
    kept: u32,
    /// Leads: its packets go by this table entirely.
    switched: u64,
    heir: Option<Seat>,
    /// Another node counts seats in another list, as it said last then.
    other_roster: Option<(Seat, Time)>,
    said: Option<Box<Pulse>>,
    now: Time,
    wake: Option<Time>,
    #[serde(skip)]
    wishes: Vec<Wish>,
}

impl Farm {
    /// A farm's node that starts at `now`, perhaps with what an earlier daemon left.
    #[must_use]
    pub fn new(
        now: Time,
        settings: Settings,
        (boot, incarnation): (BootId, u64),
        left: Option<Left>,
    ) -> Farm {
        let count = settings.nodes.len();
        let mut farm = Farm {
            boot,
            incarnation,
            part: Part::Out,
            peers: vec![Peer::default(); count],
            listening: now + settings.timeout,
            presumed: 0,
            handled: now,
            woken: None,
            standing: Standing::Out,
            outranked: None,
            behind: None,
            term: 0,
            table: Table::default(),
            late: Vec::new(),
            drawn: now,
            shares: Shares::none(),
            asked: BTreeMap::new(),
            installed: Stamp::default(),
            kept: 0,
            switched: 0,
            heir: None,
            other_roster: None,
            said: None,
            now,
            wake: None,
            wishes: Vec::new(),
            settings,
        };
        match left {
            Some(left) if left.table.is_sound(count) && left.roster == farm.settings.roster() => {
                farm.resume(left);
            }
            Some(left) => farm.clear(left.shares.edition),
            None => {}
        }
        farm
    }

    /// Goes on where an earlier daemon ended: the kernel has never stopped.
    fn resume(&mut self, Left { table, shares, hears, late, .. }: Left) {
        self.presumed = hears & !pulse::bit(self.settings.me);
        if self.presumed != 0 {
            self.listening = self.now + self.settings.timeout.max(RESUMES);
        }
        let lead = table.stamp.lead();
        self.part = Part::Standby;
        self.standing = if lead.seat == self.settings.me {
            Standing::Leads { term: lead.term, since: self.now, established: shares.leader }
        } else {
            Standing::Follows(lead)
        };
        self.term = lead.term;
        // The last change may not have come through: it is made once more.
        let edition = shares.edition + 1;
        self.shares = Shares { edition, ..shares };
        self.asked.insert(edition, table.stamp);
        self.wishes.push(Wish::SetShares(Box::new(self.shares.clone())));
        (self.table, self.late) = (table, late);
    }

    /// What stands in the kernel is of no use: seats are others now.
    fn clear(&mut self, before: u64) {
        self.shares.edition = before + 1;
        self.asked.insert(self.shares.edition, Stamp::default());
        self.wishes.push(Wish::SetShares(Box::new(self.shares.clone())));
    }

    /// Changes what the node takes part in.
    pub fn set_part(&mut self, now: Time, part: Part) -> Vec<Wish> {
        self.run(now, |farm| {
            if farm.part == Part::Out && part != Part::Out {
                farm.listening = farm.listening.max(farm.now + farm.settings.timeout);
            }
            farm.part = part;
        })
    }

    /// A pulse of another node was received.
    pub fn hear(&mut self, now: Time, received: Time, pulse: Pulse) -> Vec<Wish> {
        self.run(now, |farm| farm.take_in(received, pulse))
    }

    /// A pulse was received and another one waits: a node that is late has to hear all before it
    /// finds anybody silent. What follows is decided at once after that.
    pub fn note(&mut self, received: Time, pulse: Pulse) {
        self.take_in(received, pulse);
        self.wake = Some(self.handled);
    }

    /// The kernel goes by the shares of this edition now.
    pub fn shares_set(&mut self, now: Time, edition: u64) -> Vec<Wish> {
        self.run(now, |farm| {
            if let Some(stamp) = farm.asked.get(&edition).copied() {
                farm.installed = stamp;
                farm.asked.retain(|asked, _| *asked > edition);
            }
        })
    }

    /// Whether the kernel goes by the shares that were wished last.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.asked.is_empty()
    }

    /// What was wished last, once more: it may not have been done.
    #[must_use]
    pub fn wish_again(&self) -> Vec<Wish> {
        let shares = (!self.is_followed()).then(|| Wish::SetShares(Box::new(self.shares.clone())));
        let pulse = self.said.clone().map(Wish::Pulse);
        shares.into_iter().chain(pulse).collect()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) -> Vec<Wish> {
        self.run(now, |_| {})
    }

    /// When to call `tick`, at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        // Its own silence must not look like that of the others.
        let heard = self.hears() != 0;
        let own = heard.then(|| self.handled + self.settings.timeout / 4);
        self.wake.into_iter().chain(own).min()
    }

    fn run(&mut self, now: Time, change: impl FnOnce(&mut Farm)) -> Vec<Wish> {
        self.now = self.now.max(now);
        self.notice_gap();
        self.handled = self.now;
        change(self);
        self.note_all_there();
        for _ in 0..ROUNDS_MAX {
            self.wake = None;
            if !self.step() {
                break;
            }
        }
        self.note_members();
        self.say();
        std::mem::take(&mut self.wishes)
    }

    /// One decision. Returns whether anything changed, so that it is worth looking again.
    fn step(&mut self) -> bool {
        if self.part == Part::Out {
            return self.leave();
        }
        self.choose()
            || self.adopt()
            || self.note_behind()
            || self.lead_step()
            || self.update_shares()
    }

    /// No member any more: the kernel serves nobody, and then the others are told.
    fn leave(&mut self) -> bool {
        if self.standing != Standing::Out {
            self.standing = Standing::Out;
            self.table = Table::default();
            self.late.clear();
            self.heir = None;
            return true;
        }
        self.update_shares()
    }

    /// Whether the kernel serves nobody, and nothing of that is under way.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.part == Part::Out && self.asked.is_empty() && !self.shares.serves()
    }

    /// Whether `at` has been reached; if not, the node is woken then.
    fn due(&mut self, at: Time) -> bool {
        if self.now >= at {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// A daemon that went on where another one ended has listened enough once all whom that one
    /// heard are there, or say that they are out.
    fn note_all_there(&mut self) {
        if self.presumed == 0 || self.now >= self.listening {
            return;
        }
        let is_there = |seat: Seat| {
            let out = self.fresh(seat).is_some_and(|pulse| pulse.part == Part::Out);
            out || self.member(seat).is_some()
        };
        if self.seats().all(|seat| self.presumed & pulse::bit(seat) == 0 || is_there(seat)) {
            self.listening = self.now;
        }
    }

    fn is_listening(&mut self) -> bool {
        !self.due(self.listening)
    }

    fn tell(&mut self, told: Told) {
        self.wishes.push(Wish::Tell(told));
    }

    fn name(&self, seat: Seat) -> NodeName {
        let me = usize::from(self.settings.me);
        let nodes = &self.settings.nodes;
        nodes.get(usize::from(seat)).unwrap_or(&nodes[me]).clone()
    }

    /// Says what is new, at once.
    fn say(&mut self) {
        let pulse = self.pulse();
        if self.said.as_deref() != Some(&pulse) {
            self.said = Some(Box::new(pulse.clone()));
            self.wishes.push(Wish::Pulse(Box::new(pulse)));
        }
    }

    fn pulse(&self) -> Pulse {
        let leads = matches!(self.standing, Standing::Leads { .. });
        // The others may take what it serves as soon as it is out.
        let leaving = self.part == Part::Out && !self.is_out();
        Pulse {
            from: self.settings.me,
            roster: self.settings.roster(),
            boot: self.boot,
            incarnation: self.incarnation,
            sequence: 0,
            part: if leaving { Part::Standby } else { self.part },
            away: false,
            weight: self.settings.weight,
            hears: self.hears(),
            follows: self.follows(),
            term: self.term,
            installed: self.installed,
            switched: if leads { self.switched } else { 0 },
            heir: self.heir,
            table: leads.then(|| self.table.clone()),
            place: Vec::new(),
        }
    }
}
