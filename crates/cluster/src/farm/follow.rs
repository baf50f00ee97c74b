//! Who is heard, who is a member, and whom a node follows.

use std::time::Duration;

use model::Time;

use super::pulse::{AWAY, bit};
use super::{Farm, Follows, Lead, Part, Peer, Pulse, Seat, Stamp, Standing, Table, Told};
use super::{RESUMES, STEADY, STEADY_MAX, UNSTEADY};

/// A table that the leader has not told for so many pulses was drawn up without this node.
const BEHIND_PULSES: u32 = 2;

impl Farm {
    /// Takes a pulse in, unless it is not for this farm, or older than what was heard.
    pub(super) fn take_in(&mut self, received: Time, pulse: Pulse) {
        let count = self.settings.nodes.len();
        let from = pulse.from;
        if pulse.roster != self.settings.roster() {
            let known = usize::from(from) < count;
            self.other_roster = known.then_some((from, self.now)).or(self.other_roster);
            return;
        }
        let sound = pulse
            .table
            .as_ref()
            .is_none_or(|table| table.is_sound(count) && pulse.leads() == Some(table.stamp.lead()));
        if from == self.settings.me || !sound {
            return;
        }
        let Some(peer) = self.peers.get_mut(usize::from(from)) else { return };
        if !peer.is_news(&pulse) {
            return;
        }
        self.other_roster = self.other_roster.filter(|(other, _)| *other != from);
        self.term = self.term.max(pulse.term);
        peer.received = peer.received.max(received);
        peer.pulse = Some(Box::new(pulse));
    }

    /// A node that slept has heard nobody, which says nothing about them: they get another
    /// timeout from now on.
    pub(super) fn notice_gap(&mut self) {
        let timeout = self.settings.timeout;
        if self.now.since(self.handled) <= crate::node::gap_allowed(timeout) {
            return;
        }
        self.woken = Some(self.now);
        for peer in &mut self.peers {
            if self.handled < peer.received + peer.patience(timeout) {
                peer.received = peer.received.max(self.now);
            }
        }
    }

    /// What a node said last, if that was not too long ago.
    pub(super) fn fresh(&self, seat: Seat) -> Option<&Pulse> {
        let peer = self.peers.get(usize::from(seat))?;
        let heard = self.now < peer.received + peer.patience(self.settings.timeout);
        peer.pulse.as_deref().filter(|_| heard)
    }

    /// What a member said last: a node that takes part, is heard, and hears this one. After this
    /// one has stood still, and was missed, those that were members stay so for another timeout:
    /// it is heard again in a moment, and would lead against them if it took all for lost.
    pub(super) fn member(&self, seat: Seat) -> Option<&Pulse> {
        let me = self.settings.me;
        let peer = self.peers.get(usize::from(seat))?;
        let missed = peer.member && self.missed_until(peer).is_some_and(|until| self.now < until);
        self.fresh(seat).filter(|pulse| pulse.part != Part::Out && (pulse.hears(me) || missed))
    }

    /// Until when a peer may not know yet that this node has gone on.
    fn missed_until(&self, peer: &Peer) -> Option<Time> {
        self.woken.map(|woken| woken + peer.patience(self.settings.timeout))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Pulse> {
        self.seats().filter_map(|seat| self.member(seat))
    }

    /// The members whose daemons run. The others of them can neither decide nor confirm anything.
    pub(super) fn running(&self) -> impl Iterator<Item = &Pulse> {
        self.members().filter(|pulse| !pulse.away)
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> + use<> {
        0..Seat::try_from(self.peers.len()).unwrap_or(Seat::MAX)
    }

    pub(super) fn hears(&self) -> u32 {
        let heard = self.seats().filter(|seat| self.fresh(*seat).is_some());
        let presumed = if self.now < self.listening { self.presumed } else { 0 };
        heard.map(bit).fold(presumed, |all, bit| all | bit)
    }

    /// Whom this node says that it follows.
    pub(super) fn follows(&self) -> Option<Follows> {
        match self.standing {
            Standing::Out | Standing::Seeks { .. } => None,
            Standing::Leads { term, .. } => {
                Some(Follows { lead: Lead { term, seat: self.settings.me }, heard: true })
            }
            Standing::Follows(lead) => {
                Some(Follows { lead, heard: self.member(lead.seat).is_some() })
            }
            Standing::Estranged(lead) => Some(Follows { lead, heard: false }),
        }
    }

    /// The leadership that is its own.
    pub(super) fn own_lead(&self) -> Option<Lead> {
        match self.standing {
            Standing::Leads { term, .. } => Some(Lead { term, seat: self.settings.me }),
            Standing::Out
            | Standing::Seeks { .. }
            | Standing::Follows(_)
            | Standing::Estranged(_) => None,
        }
    }

    /// The greatest leadership that others hear and follow, and this node has no part in: it does
    /// not hear who leads, or they do not hear it. Those who hear nobody at all are cut off
    /// themselves.
    fn vouched(&self) -> Option<Lead> {
        let me = self.settings.me;
        let is_among_others = |pulse: &Pulse| pulse.hears & !(bit(me) | bit(pulse.from)) != 0;
        let counts = |pulse: &&Pulse| {
            let apart = pulse.part != Part::Out && is_among_others(pulse);
            !pulse.away && (apart || self.member(pulse.from).is_some())
        };
        let heard = self.seats().filter_map(|seat| self.fresh(seat)).filter(counts);
        let followed = heard.filter_map(|pulse| pulse.follows);
        let leads = followed.filter(|follows| follows.heard).map(|follows| follows.lead);
        let unheard =
            |lead: &Lead| lead.seat != self.settings.me && self.member(lead.seat).is_none();
        leads.filter(unheard).max()
    }

    /// Decides whom to follow. Returns whether that is another one now.
    pub(super) fn choose(&mut self) -> bool {
        if self.standing == Standing::Out {
            self.standing = Standing::Seeks { since: self.now };
            return true;
        }
        self.wake_at_silence();
        let heard = self.members().filter_map(Pulse::leads).max();
        let best = heard.max(self.own_lead());
        let vouched = self.vouched().filter(|lead| best.is_none_or(|best| *lead > best));
        let Some(unheard) = vouched else {
            self.outranked = None;
            return match best {
                Some(lead) if Some(lead) == self.own_lead() => false,
                Some(lead) => self.follow(lead),
                None => self.seek(),
            };
        };
        // It may be that the leader has just come, or gone, and not everybody knows.
        let since = *self.outranked.get_or_insert(self.now);
        // A daemon that was started anew does not hear everybody at once.
        let resumes = self.is_listening() && self.standing == Standing::Follows(unheard);
        if !resumes && self.due(since + self.settings.timeout) {
            return self.estrange(unheard);
        }
        match best {
            Some(lead) if Some(lead) == self.own_lead() => false,
            Some(lead) => self.follow(lead),
            None => self.wait(),
        }
    }

    /// Wakes the node when somebody whom it hears has been silent for too long.
    fn wake_at_silence(&mut self) {
        let timeout = self.settings.timeout;
        let silent = self.peers.iter().map(|peer| peer.received + peer.patience(timeout));
        let missed = self.peers.iter().filter_map(|peer| self.missed_until(peer));
        let held = self.peers.iter().filter_map(Peer::held_until);
        // A node that is gone says nothing of any list.
        let other = self.other_roster.map(|(_, said)| said + RESUMES.max(timeout));
        let next = silent.chain(missed).chain(held).chain(other).filter(|at| *at > self.now).min();
        if let Some(at) = next {
            self.due(at);
        }
        self.other_roster = self.other_roster.filter(|_| other.is_some_and(|at| at > self.now));
    }

    /// Whether a node has come and gone so often that it gets no clients yet.
    pub(super) fn is_held(&self, seat: Seat) -> bool {
        let peer = self.peers.get(usize::from(seat)).filter(|peer| !peer.hold().is_zero());
        // One that has just come back has stayed for no time yet.
        peer.is_some_and(|peer| peer.held_until().is_none_or(|until| self.now < until))
    }

    fn follow(&mut self, lead: Lead) -> bool {
        if self.standing == Standing::Follows(lead) {
            return false;
        }
        let (leader, own) = (self.name(lead.seat), self.own_lead());
        match own {
            Some(_) if self.heir != Some(lead.seat) && self.is_established() => {
                self.tell(Told::Healed { other: leader.clone(), leader });
            }
            Some(_) | None => self.tell(Told::Follows(leader)),
        }
        self.standing = Standing::Follows(lead);
        self.heir = None;
        true
    }

    /// There is nobody to follow: waits for its turn to lead.
    fn seek(&mut self) -> bool {
        match self.standing {
            Standing::Seeks { since } => {
                let turn = since + self.settings.pulse * self.rank();
                if self.is_listening() || !self.due(turn) {
                    return false;
                }
                self.claim();
                true
            }
            Standing::Out
            | Standing::Leads { .. }
            | Standing::Follows(_)
            | Standing::Estranged(_) => self.wait(),
        }
    }

    fn wait(&mut self) -> bool {
        let waits = match self.standing {
            Standing::Seeks { .. } => true,
            // Of an earlier daemon: the leader has not been heard yet.
            Standing::Follows(_) => self.is_listening(),
            Standing::Estranged(_) | Standing::Out | Standing::Leads { .. } => false,
        };
        if !waits {
            self.standing = Standing::Seeks { since: self.now };
        }
        !waits
    }

    /// How many members are to lead rather than this node: who knows the newest table, who serves,
    /// who stands first in the list.
    fn rank(&self) -> u32 {
        let order = |installed: Stamp, part: Part, seat: Seat| {
            (installed.term, installed.serial, part, Seat::MAX - seat)
        };
        let mine = order(self.installed, self.part, self.settings.me);
        let before = self.running().filter(|p| order(p.installed, p.part, p.from) > mine);
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    /// The others go on under a leader that this node does not hear. By the newest table that they
    /// know of it serves nobody.
    fn estrange(&mut self, lead: Lead) -> bool {
        let changed = self.standing != Standing::Estranged(lead);
        if changed {
            self.standing = Standing::Estranged(lead);
            self.heir = None;
            self.tell(Told::Estranged(self.name(lead.seat)));
        }
        let known = self.members().map(|pulse| pulse.installed).filter(|stamp| stamp.is_of(lead));
        let stamp = known.max().unwrap_or(Stamp { term: lead.term, leader: lead.seat, serial: 0 });
        if self.table.stamp.is_of(lead) && self.table.stamp >= stamp && !changed {
            return false;
        }
        self.go_by(Table::empty(stamp));
        true
    }

    /// Takes the leader's table for its own, if it is a later one.
    pub(super) fn adopt(&mut self) -> bool {
        let Standing::Follows(lead) = self.standing else { return false };
        let Some(pulse) = self.member(lead.seat) else { return false };
        let Some(table) = pulse.table.as_ref().filter(|table| table.stamp.is_of(lead)) else {
            return false;
        };
        // An estranged node knows which table there is, but not what is in it.
        let later = !self.table.stamp.is_of(lead) || table.stamp > self.table.stamp;
        let unknown = table.stamp == self.table.stamp && *table != self.table;
        if !later && !unknown {
            return false;
        }
        self.go_by(table.clone());
        true
    }

    /// Notes whether members have gone by a later table for a while, which the leader would have
    /// told by now: then this node was away as it was drawn up, and others may serve whom it has.
    pub(super) fn note_behind(&mut self) -> bool {
        let mine = self.table.stamp;
        let later = |pulse: &Pulse| {
            pulse.installed.is_of(mine.lead()) && pulse.installed.serial > mine.serial
        };
        // A leader that went on with an older table draws up a later one.
        if self.own_lead().is_some() || !self.members().any(later) {
            self.behind = None;
            return false;
        }
        let before = self.is_behind();
        let since = *self.behind.get_or_insert(self.now);
        self.due(since + self.settings.pulse * BEHIND_PULSES);
        self.is_behind() != before
    }

    pub(super) fn is_behind(&self) -> bool {
        let patience = self.settings.pulse * BEHIND_PULSES;
        self.behind.is_some_and(|since| self.now >= since + patience)
    }

    /// Tells who has come and who was lost.
    pub(super) fn note_members(&mut self) {
        for seat in self.seats() {
            let is = self.member(seat).is_some();
            let serves = self.member(seat).is_some_and(|member| member.part >= Part::Draining);
            let leads = self.member(seat).is_some_and(|member| member.leads().is_some());
            let rivals = leads && self.is_established();
            let out = self.fresh(seat).is_some_and(|pulse| pulse.part == Part::Out);
            let Some(peer) = self.peers.get_mut(usize::from(seat)) else { continue };
            let was = std::mem::replace(&mut peer.member, is);
            let rival = std::mem::replace(&mut peer.rival, rivals);
            if serves {
                peer.came.get_or_insert(self.now);
            } else if !is && was && !out && self.part != Part::Out {
                peer.note_lost(self.now);
            }
            if rivals && !rival {
                let (other, leader) = (self.name(seat), self.name(self.settings.me));
                self.tell(Told::Healed { other, leader });
            }
            if was == is || self.part == Part::Out {
                continue;
            }
            let name = self.name(seat);
            if is {
                self.tell(Told::Came(name));
            } else if !out {
                self.tell(Told::Lost(name));
            }
        }
    }
}

impl Peer {
    fn note_lost(&mut self, now: Time) {
        let soon = self.held_until().is_none_or(|until| now < until + UNSTEADY);
        self.losses = if soon { self.losses.saturating_add(1) } else { 1 };
        self.came = None;
    }

    /// How long it must have been there before it gets clients, as it has come and gone.
    fn hold(&self) -> Duration {
        STEADY * self.losses.saturating_sub(1).min(STEADY_MAX)
    }

    /// Until when it gets none, if it is there. Who said that it left does not wait anew.
    pub(super) fn held_until(&self) -> Option<Time> {
        self.came.map(|came| came + self.hold())
    }

    /// How long its silence says nothing.
    pub(super) fn patience(&self, timeout: Duration) -> Duration {
        let away = self.pulse.as_ref().is_some_and(|pulse| pulse.away);
        if away { timeout.max(AWAY) } else { timeout }
    }

    /// Whether a pulse is later than all that was heard of this node. What is left of a boot
    /// that is over comes too late.
    fn is_news(&mut self, pulse: &Pulse) -> bool {
        if self.past.contains(&Some(pulse.boot)) {
            return false;
        }
        let Some(last) = &self.pulse else { return true };
        if last.boot != pulse.boot {
            self.past.rotate_right(1);
            self.past[0] = Some(last.boot);
            return true;
        }
        (last.incarnation, last.sequence) < (pulse.incarnation, pulse.sequence)
    }
}
