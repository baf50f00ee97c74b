//! What a leader does: claims, draws up the table, hands over.
//!
//! A failure changes the table at once. Whatever else is to be changed waits until the table before
//! is in force everywhere, so that each step moves as little as possible.

use std::collections::{BTreeMap, BTreeSet};

use model::config::Delivery;

use super::balance::balance;
use super::{Farm, Lead, Line, Part, Pulse, Seat, Stamp, Standing, Table, Told};

impl Farm {
    /// Takes the lead, with the newest table that it knows.
    pub(super) fn claim(&mut self) {
        self.term += 1;
        let term = self.term;
        self.standing = Standing::Leads { term, since: self.now, established: false };
        self.table.stamp = Stamp { term, leader: self.settings.me, serial: 1 };
        self.drawn = self.now;
        self.switched = 0;
        self.heir = None;
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.standing, Standing::Leads { established: true, .. })
    }

    /// One step of leading, or of taking the lead over from a leader that leaves.
    pub(super) fn lead_step(&mut self) -> bool {
        match self.standing {
            Standing::Leads { term, since, established } => {
                let listens = self.is_listening();
                self.establish(term, since, established)
                    || (!listens && self.draw_up())
                    || self.note_switched()
                    || self.name_heir()
            }
            Standing::Follows(lead) => self.inherit(lead),
            Standing::Out | Standing::Seeks { .. } | Standing::Estranged(_) => false,
        }
    }

    /// It is the leader once nobody follows another: then no two act as leaders at once.
    fn establish(&mut self, term: u64, since: model::Time, established: bool) -> bool {
        let mine = Lead { term, seat: self.settings.me };
        let known = self.running().all(|member| member.installed.is_of(mine));
        // With directed delivery a second leader does little harm, and none at all much.
        let patience = match self.settings.delivery {
            Delivery::Directed => since + self.settings.timeout / 2,
            Delivery::Multicast => since + self.settings.timeout * 8,
        };
        if established || !(known || self.due(patience)) {
            return false;
        }
        self.standing = Standing::Leads { term, since, established: true };
        self.tell(Told::Leads);
        true
    }

    /// The table as it should be now, if that is another one. What a node serves whose daemon is
    /// away stays there: its kernel cannot be told otherwise.
    fn draw_up(&mut self) -> bool {
        let mut lines = self.table.lines.clone();
        self.drop_lost(&mut lines);
        let weights = self.weights();
        let had_owners = self.table.lines.iter().any(|line| line.owner.is_some());
        let away: BTreeSet<Seat> = self.members().filter(|p| p.away).map(|p| p.from).collect();
        let stays = |line: &Line| line.owner.is_some_and(|owner| away.contains(&owner));
        let mut free: Vec<Line> = lines.iter().filter(|line| !stays(line)).copied().collect();
        if weights.is_empty() {
            free.iter_mut().for_each(|line| line.give(None));
        } else if (away.is_empty() && self.is_in_force())
            || free.iter().any(|line| !serves(line, &weights))
        {
            balance(&mut free, &weights);
        }
        let places = lines.iter_mut().filter(|line| !stays(line));
        places.zip(free).for_each(|(line, new)| *line = new);
        let newest = self.newest_serial();
        if lines == self.table.lines && newest == self.table.stamp.serial {
            return false;
        }
        if had_owners && lines.iter().all(|line| line.owner.is_none()) {
            self.tell(Told::Nobody);
        }
        let stamp = Stamp { serial: newest + 1, ..self.table.stamp };
        self.go_by(Table { stamp, lines });
        self.drawn = self.now;
        true
    }

    /// Of its tables as far as any member knows: a daemon that was started anew may have forgotten
    /// its last ones.
    fn newest_serial(&self) -> u64 {
        let own = self.table.stamp;
        let known = self.members().map(|member| member.installed);
        let known = known.filter(|stamp| stamp.is_of(own.lead())).map(|stamp| stamp.serial);
        known.fold(own.serial, u64::max)
    }

    /// Takes out of the table who is no member any more, and from its buckets whose application
    /// has stopped: connections to those have ended.
    fn drop_lost(&self, lines: &mut [Line]) {
        for seat in self.seats() {
            let (part, left) = match self.member(seat) {
                _ if seat == self.settings.me => (self.part, false),
                Some(member) => (member.part, false),
                None => (Part::Out, self.fresh(seat).is_some_and(|p| p.part == Part::Out)),
            };
            for line in lines.iter_mut() {
                let owns = line.owner == Some(seat);
                match part {
                    Part::Out => line.forget(seat, owns || !left),
                    Part::Standby => line.forget(seat, true),
                    Part::Draining | Part::Ready => {}
                }
            }
        }
    }

    /// How much each is to serve of those who may: who is ready; who drains only if nobody is. One
    /// that comes and goes would take its clients along each time.
    fn weights(&self) -> BTreeMap<Seat, u32> {
        let mine = self.own_lead();
        // Who follows a greater leadership takes nothing from this one.
        let takes = |member: &Pulse| member.follows.map(|follows| follows.lead) <= mine;
        let of = |part: Part| -> BTreeMap<Seat, u32> {
            let others = self.running().filter(|member| member.part == part && takes(member));
            let own = (self.part == part).then_some((self.settings.me, self.settings.weight));
            others.map(|member| (member.from, member.weight)).chain(own).collect()
        };
        let mut ready = of(Part::Ready);
        if ready.is_empty() {
            return of(Part::Draining);
        }
        let kept = |seat: Seat| !self.is_held(seat) || self.table.count(seat) > 0;
        if ready.keys().any(|seat| kept(*seat)) {
            ready.retain(|seat, _| kept(*seat));
        }
        ready
    }

    /// Whether the table is in force at a member.
    pub(super) fn has_installed(&self, seat: Seat) -> bool {
        let stamp = self.table.stamp;
        let installed = if seat == self.settings.me {
            Some(self.installed)
        } else {
            self.member(seat).map(|member| member.installed)
        };
        installed.is_some_and(|theirs| theirs.is_of(stamp.lead()) && theirs.serial >= stamp.serial)
    }

    /// Whether the table is in force at all members that can say so and that it concerns: with
    /// directed delivery nothing reaches one that stands by and has no clients.
    pub(super) fn is_at_all(&self) -> bool {
        let idle = |member: &Pulse| {
            self.settings.delivery == Delivery::Directed
                && member.part == Part::Standby
                && self.table.count(member.from) == 0
        };
        self.running().all(|member| self.has_installed(member.from) || idle(member))
    }

    /// Whether the table is in force everywhere, and the packets go by it.
    pub(super) fn is_in_force(&self) -> bool {
        let serial = self.table.stamp.serial;
        self.is_at_all()
            && self.has_installed(self.settings.me)
            && (self.switched == serial || self.settings.delivery == Delivery::Multicast)
    }

    /// The packets go by the table once the kernel has the owners that stand in it.
    fn note_switched(&mut self) -> bool {
        let serial = self.table.stamp.serial;
        let owners = self.table.lines.iter().map(|line| line.owner);
        let wished = self.shares.buckets.iter().map(|bucket| bucket.owner);
        if self.switched == serial
            || !self.is_established()
            || !self.shares.leader
            || !self.asked.is_empty()
            || !self.has_installed(self.settings.me)
            || !owners.eq(wished)
        {
            return false;
        }
        self.switched = serial;
        true
    }

    /// A leader that leaves names who is to lead, once its clients are with others.
    fn name_heir(&mut self) -> bool {
        let leaves = self.part == Part::Draining
            && self.is_established()
            && self.is_in_force()
            && self.table.count(self.settings.me) == 0;
        let fit = |member: &&Pulse| member.part == Part::Ready;
        let heir = leaves.then(|| self.running().filter(fit).map(|member| member.from).min());
        let heir = heir.flatten();
        let changed = heir != self.heir;
        self.heir = heir;
        changed
    }

    /// Leads in the place of a leader that has named this node.
    fn inherit(&mut self, lead: Lead) -> bool {
        let named = self.member(lead.seat).is_some_and(|pulse| {
            pulse.heir == Some(self.settings.me) && pulse.leads() == Some(lead)
        });
        if !named || !self.table.stamp.is_of(lead) {
            return false;
        }
        self.claim();
        true
    }

    /// Whether this node can go without anybody missing it: its clients are with others, who also
    /// lead, or there is nobody to take them.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        if !self.has_another_fit() {
            return true;
        }
        let Standing::Follows(lead) = self.standing else { return false };
        let me = self.settings.me;
        let released = self.shares.buckets.iter().all(|bucket| bucket.owner != Some(me));
        let led = self.member(lead.seat).is_some_and(|leader| match self.settings.delivery {
            Delivery::Directed => leader.switched > 0,
            Delivery::Multicast => true,
        });
        self.table.stamp.is_of(lead)
            && self.table.count(me) == 0
            && released
            && led
            && self.asked.is_empty()
    }

    /// Whether a node other than this one may have clients.
    #[must_use]
    pub fn has_another_fit(&self) -> bool {
        self.members().any(|member| member.part == Part::Ready)
    }
}

fn serves(line: &Line, weights: &BTreeMap<Seat, u32>) -> bool {
    line.owner.is_some_and(|owner| weights.contains_key(&owner))
}
