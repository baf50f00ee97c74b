//! The table of a farm: which node serves which clients, and who served them before.
//!
//! It is drawn up by the leader alone and followed by all. A bucket remembers its last owners, as a
//! connection stays with whoever accepted it. How buckets are shared out is in `balance`.

use serde::{Deserialize, Serialize};

/// Number of buckets: each client falls into one.
pub const BUCKETS: usize = 256;

/// So many former owners are remembered of a bucket.
pub const FORMER_MAX: usize = 3;

/// A node of the farm: its place in the list of the module's nodes.
pub type Seat = u8;

/// Which table it is. A later one is greater: of two leaders the one with the greater term counts,
/// of the same term the one with the greater seat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Counts leaderships; 0 stands for no table at all.
    pub term: u64,
    /// The leader that drew it up.
    pub leader: Seat,
    /// Counts the leader's tables within its term.
    pub serial: u64,
}

impl Stamp {
    /// Whether it is of this leadership.
    #[must_use]
    pub fn is_of(&self, lead: Lead) -> bool {
        self.term == lead.term && self.leader == lead.seat
    }

    /// The leadership that it is of.
    #[must_use]
    pub fn lead(&self) -> Lead {
        Lead { term: self.term, seat: self.leader }
    }
}

/// A leadership. Of two, the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lead {
    /// Its term.
    pub term: u64,
    /// Who leads.
    pub seat: Seat,
}

/// One bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Who serves it.
    pub owner: Option<Seat>,
    /// Who served it before, the last one first, each once.
    pub former: [Option<Seat>; FORMER_MAX],
    /// An owner failed, and connections with it: what nobody knows may be reset.
    pub died: bool,
}

impl Line {
    /// Gives the bucket to a node, or to none.
    pub(super) fn give(&mut self, to: Option<Seat>) {
        if self.owner == to {
            return;
        }
        let all = self.owner.into_iter().chain(self.former.into_iter().flatten());
        let mut rest = all.filter(|seat| Some(*seat) != to);
        let mut former = [None; FORMER_MAX];
        former.iter_mut().for_each(|place| *place = rest.next());
        // One that is forgotten may know connections still: they must not be reset.
        self.died &= rest.next().is_none();
        (self.owner, self.former) = (to, former);
    }

    /// Forgets a node that is not there any more.
    pub(super) fn forget(&mut self, seat: Seat, failed: bool) {
        if !self.chain().any(|known| known == seat) {
            return;
        }
        self.owner = self.owner.filter(|owner| *owner != seat);
        let mut rest = self.former.into_iter().flatten().filter(|known| *known != seat);
        let mut former = [None; FORMER_MAX];
        former.iter_mut().for_each(|place| *place = rest.next());
        self.former = former;
        self.died |= failed;
    }

    /// The owner and the former ones, the last one first.
    pub fn chain(&self) -> impl Iterator<Item = Seat> + use<> {
        self.owner.into_iter().chain(self.former.into_iter().flatten())
    }
}

/// Which node serves which bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Which table it is.
    pub stamp: Stamp,
    /// The buckets, `BUCKETS` of them.
    pub lines: Vec<Line>,
}

impl Default for Table {
    fn default() -> Table {
        Table::empty(Stamp::default())
    }
}

impl Table {
    /// A table in which nobody serves anything.
    #[must_use]
    pub fn empty(stamp: Stamp) -> Table {
        Table { stamp, lines: vec![Line::default(); BUCKETS] }
    }

    /// Whether it can be one of a farm with so many nodes. What others sent may be anything.
    #[must_use]
    pub fn is_sound(&self, nodes: usize) -> bool {
        let known = |seat: Seat| usize::from(seat) < nodes;
        let once = |line: &Line| {
            let mut seen = 0u64;
            line.chain().all(|seat| {
                let bit = 1u64.checked_shl(seat.into()).unwrap_or_default();
                let fresh = known(seat) && seen & bit == 0;
                seen |= bit;
                fresh
            })
        };
        self.lines.len() == BUCKETS && known(self.stamp.leader) && self.lines.iter().all(once)
    }

    /// How many buckets a node serves.
    #[must_use]
    pub fn count(&self, seat: Seat) -> usize {
        self.lines.iter().filter(|line| line.owner == Some(seat)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_remembers_its_last_owners_each_once() {
        let mut line = Line::default();
        for seat in [1, 2, 3, 1] {
            line.give(Some(seat));
        }
        assert_eq!(line.chain().collect::<Vec<_>>(), [1, 3, 2]);
        line.forget(3, false);
        assert_eq!((line.chain().collect::<Vec<_>>(), line.died), (vec![1, 2], false));
        line.forget(1, true);
        assert_eq!((line.owner, line.former[0], line.died), (None, Some(2), true));
        line.give(Some(4));
        assert_eq!((line.chain().collect::<Vec<_>>(), line.died), (vec![4, 2], true));
        line.forget(9, true);
    }

    #[test]
    fn what_is_forgotten_for_want_of_room_is_not_reset() {
        let mut line = Line { died: true, ..Line::default() };
        for seat in 0..=4 {
            line.give(Some(seat));
            assert_eq!(line.died, seat < 4, "{seat}");
        }
        assert_eq!(line.chain().collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    #[test]
    fn what_others_send_is_looked_at() {
        let stamp = Stamp { term: 1, leader: 1, serial: 1 };
        let good = Table::empty(stamp);
        assert!(good.is_sound(2) && !good.is_sound(1));
        let mut twice = good.clone();
        twice.lines[7].owner = Some(1);
        assert!(twice.is_sound(2));
        twice.lines[7].former[2] = Some(1);
        assert!(!twice.is_sound(2));
        let mut unknown = good.clone();
        unknown.lines[7].former[0] = Some(200);
        assert!(!unknown.is_sound(2));
        let mut short = good;
        short.lines.pop();
        assert!(!short.is_sound(2));
    }
}
