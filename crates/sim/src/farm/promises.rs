//! What a farm promises, as checks after every event.
//!
//! Two nodes that have just found each other cannot know better than each did alone: what must hold
//! among nodes that hear each other must hold once they have done so for a while: one timeout until
//! each knows that a leader which the other follows is dead, and one until it follows another.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cluster::farm::{BUCKETS, Farm, Part, Stray};
use model::Time;
use model::config::Delivery;

use super::World;

/// How long nodes have heard each other before they must agree.
const ACQUAINTED: Duration = Duration::from_millis(500);

/// A packet is handed on by at most so many nodes: each that ever served its bucket, and one more.
const HOPS_MAX: usize = 8;

/// A promise of a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FarmPromise {
    /// Never two owners of a bucket among nodes that hear each other.
    OneOwner,
    /// Never two that answer for the addresses among nodes that hear each other.
    OneLeader,
    /// A change leaves nobody without a server: a planned one at no time with directed delivery,
    /// any change by itself for longer than a timeout with multicast.
    NobodyUnserved,
    /// After healing all agree within a bound, and each living node has its share.
    TheFarmSettles,
    /// On a failure only the buckets of the node that failed move.
    OnlyTheLostMove,
    /// A node is not lost while it is heard.
    NoFalseLoss,
    /// A node that comes and goes takes its clients along once, and not each time.
    WhoFlapsIsHeld,
    /// No connection breaks but those to a node that is lost.
    ConnectionsStay,
}

impl FarmPromise {
    /// The promise in words.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            FarmPromise::OneOwner => {
                "never two owners of a bucket among nodes that hear each other"
            }
            FarmPromise::OneLeader => "never two leaders among nodes that hear each other",
            FarmPromise::NobodyUnserved => "a change leaves nobody without a server",
            FarmPromise::TheFarmSettles => {
                "after healing all agree, and each living node has its share"
            }
            FarmPromise::OnlyTheLostMove => "on a failure only the lost node's buckets move",
            FarmPromise::NoFalseLoss => "nothing changes hands while all are heard",
            FarmPromise::WhoFlapsIsHeld => {
                "who comes and goes gets its clients back once, and not each time"
            }
            FarmPromise::ConnectionsStay => "no connection breaks but those to a lost node",
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmViolation {
    /// Which.
    pub promise: FarmPromise,
    /// When.
    pub at: Time,
    /// How that shows.
    pub what: String,
}

impl fmt::Display for FarmViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at {}: {}", self.promise.sentence(), self.at.as_millis(), self.what)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It gets to who has the connection.
    Served,
    /// This node answers it with a reset.
    Reset(usize),
    /// Nobody answers it, and it comes again.
    Dropped,
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when two nodes have heard each other.
    heard: BTreeMap<(usize, usize), Time>,
    /// Whether a planned change is under way, and nothing else.
    pub(super) planned: bool,
    /// Whether daemons are replaced, and nothing else happens.
    pub(super) quiet: bool,
    /// Connections that nobody may reset: the bucket, who has them, and whether that node owned
    /// the bucket as this was noted.
    kept: Vec<(usize, usize, bool)>,
    pub(super) service: Option<super::service::Service>,
    nodes: usize,
}

impl Watch {
    pub(super) fn new(nodes: usize) -> Watch {
        Watch { nodes, ..Watch::default() }
    }
}

impl World {
    /// Looks at the promises that must hold at any time.
    pub(super) fn look(&mut self) {
        let acquainted: Vec<(usize, usize)> = self
            .watch
            .heard
            .iter()
            .filter(|(_, since)| self.now.since(**since) >= ACQUAINTED)
            .map(|(pair, _)| *pair)
            .collect();
        for (i, k) in acquainted {
            self.look_at_pair(i, k);
        }
        if self.watch.planned && self.delivery == Delivery::Directed {
            self.look_for_unserved();
        }
        self.look_at_service();
        self.look_for_resets();
    }

    /// From now on no connection that any node may have can be reset.
    pub(super) fn keep_connections(&mut self) {
        let has = |i: usize| {
            let buckets = self.hosts[i].kernel.buckets.iter().enumerate();
            let own = u8::try_from(i).ok();
            let mine = buckets.filter(move |(_, bucket)| bucket.former || bucket.owner == own);
            mine.map(move |(at, bucket)| (at, i, bucket.owner == own))
        };
        self.watch.kept = (0..self.watch.nodes).flat_map(has).collect();
    }

    /// Those to this node have ended.
    pub(super) fn forget_connections(&mut self, of: usize) {
        self.watch.kept.retain(|(_, server, _)| *server != of);
    }

    /// Those that must stay are served still. Others may have outlived too many owners of their
    /// bucket.
    pub(super) fn look_at_connections(&mut self) {
        let kept = std::mem::take(&mut self.watch.kept);
        let lost = kept
            .iter()
            .find(|(bucket, server, owned)| *owned && self.fate(*bucket, *server) != Fate::Served);
        if let Some((bucket, server, _)) = lost {
            let what = format!("a segment of bucket {bucket} does not get to node{}", server + 1);
            self.broken(FarmPromise::ConnectionsStay, what);
        }
    }

    fn look_for_resets(&mut self) {
        let fates = self.watch.kept.iter().map(|(bucket, server, _)| {
            let fate = self.fate(*bucket, *server);
            (fate, *bucket, *server)
        });
        let reset = fates.filter_map(|(fate, bucket, server)| match fate {
            Fate::Reset(by) => Some((by, bucket, server)),
            Fate::Served | Fate::Dropped => None,
        });
        if let Some((by, bucket, server)) = { reset }.next() {
            let (by, server) = (by + 1, server + 1);
            let what = format!("node{by} resets a connection of bucket {bucket} to node{server}");
            self.broken(FarmPromise::ConnectionsStay, what);
        }
    }

    /// What becomes of a segment of a connection that this node has.
    fn fate(&self, bucket: usize, server: usize) -> Fate {
        let of = |i: usize| self.hosts.get(i).and_then(|host| host.kernel.buckets.get(bucket));
        let owns = |i: usize| of(i).is_some_and(|it| it.owner.map(usize::from) == Some(i));
        if self.delivery == Delivery::Multicast {
            let resets = |i: &usize| owns(*i) && of(*i).is_some_and(|it| it.stray == Stray::Reset);
            let others = (0..self.watch.nodes).filter(|i| *i != server);
            return match { others }.find(resets) {
                Some(by) => Fate::Reset(by),
                None if owns(server) || of(server).is_some_and(|it| it.former) => Fate::Served,
                None => Fate::Dropped,
            };
        }
        let mut at = self.gateway.and_then(of).and_then(|it| it.owner).map(usize::from);
        for _ in 0..HOPS_MAX {
            match at {
                None => return Fate::Dropped,
                Some(i) if i == server => return Fate::Served,
                Some(i) => match of(i).map(|it| it.stray) {
                    Some(Stray::Reset) => return Fate::Reset(i),
                    Some(Stray::Pass(to)) => at = Some(usize::from(to)),
                    Some(Stray::Silent) | None => return Fate::Dropped,
                },
            }
        }
        Fate::Dropped
    }

    pub(super) fn note_hearing(&mut self) {
        for i in 0..self.watch.nodes {
            for k in i + 1..self.watch.nodes {
                let passes = [(i, k), (k, i)].iter().all(|way| !self.network.cut.contains(way));
                if passes && self.counts(i, k) && self.counts(k, i) {
                    self.watch.heard.entry((i, k)).or_insert(self.now);
                } else {
                    self.watch.heard.remove(&(i, k));
                }
            }
        }
    }

    /// Whether a node that turns counts another one as a member. One whose daemon is away does so
    /// as long as its kernel serves by what it heard.
    fn counts(&self, i: usize, k: usize) -> bool {
        let host = &self.hosts[i];
        if host.away {
            return self.watch.heard.contains_key(&(i.min(k), i.max(k)));
        }
        let farm = host.farm.as_ref().filter(|_| host.frozen.is_none());
        farm.is_some_and(|farm| farm.part() != Part::Out && farm.is_member(k))
    }

    fn look_at_pair(&mut self, i: usize, k: usize) {
        let (one, other) = (&self.hosts[i].kernel, &self.hosts[k].kernel);
        let (me, they) = (u8::try_from(i).ok(), u8::try_from(k).ok());
        let both = one
            .buckets
            .iter()
            .zip(&other.buckets)
            .position(|(mine, theirs)| mine.owner == me && theirs.owner == they);
        let names = format!("{} and {}", self.hosts[i].name, self.hosts[k].name);
        if let Some(bucket) = both.filter(|_| self.delivery == Delivery::Multicast) {
            self.broken(FarmPromise::OneOwner, format!("{names} both serve bucket {bucket}"));
        } else if one.leader && other.leader && !self.is_stormy() && !self.is_word_of_before(i, k) {
            self.broken(FarmPromise::OneLeader, format!("{names} both lead"));
        }
    }

    /// With multicast delivery no packet goes by who leads: that a kernel has it so says what its
    /// daemon was. One that has ended cannot take it back when a node that stood still leads next.
    fn is_word_of_before(&self, i: usize, k: usize) -> bool {
        let ended = self.hosts[i].farm.is_none() || self.hosts[k].farm.is_none();
        ended && self.delivery == Delivery::Multicast
    }

    /// With directed delivery a leader waits for the others' word only so long, and then it may
    /// have been lost.
    fn is_stormy(&self) -> bool {
        let late = self.network.loss > 0 || self.network.jitter > 20;
        late && self.delivery == Delivery::Directed
    }

    /// Follows the way of a client's first packet in each bucket.
    fn look_for_unserved(&mut self) {
        let Some(gateway) = self.gateway else { return };
        let unserved = self.hosts[gateway].kernel.buckets.iter().position(|bucket| {
            bucket.owner.is_none_or(|owner| {
                let host = &self.hosts[usize::from(owner)];
                let line = host.kernel.buckets.len();
                line != BUCKETS || host.farm.is_none()
            })
        });
        let refused = (0..BUCKETS).find(|bucket| {
            let owner = self.hosts[gateway].kernel.buckets[*bucket].owner;
            owner.is_some_and(|owner| {
                self.hosts[usize::from(owner)].kernel.buckets[*bucket].owner != Some(owner)
            })
        });
        let leader = self.hosts[gateway].name.clone();
        if let Some(bucket) = unserved.or(refused) {
            let owner = self.hosts[gateway].kernel.buckets[bucket].owner;
            let what = format!("{leader} sends bucket {bucket} to seat {owner:?}");
            self.broken(FarmPromise::NobodyUnserved, what);
        }
    }

    pub(super) fn broken(&mut self, promise: FarmPromise, what: String) {
        if self.violation.is_none() {
            self.note(format!("! {}: {what}", promise.sentence()));
            self.violation = Some(FarmViolation { promise, at: self.now, what });
        }
    }

    /// Who serves each bucket: where all agree.
    pub(super) fn owners(&self) -> Vec<Option<u8>> {
        let gateway = self.gateway.unwrap_or(0);
        self.hosts[gateway].kernel.buckets.iter().map(|bucket| bucket.owner).collect()
    }

    /// What must be true once nothing has happened for a while.
    pub(super) fn look_settled(&mut self) {
        if let Some(what) = self.unsettled() {
            self.broken(FarmPromise::TheFarmSettles, what);
        }
    }

    fn unsettled(&self) -> Option<String> {
        let living = (0..self.hosts.len())
            .filter(|i| self.hosts[*i].farm.is_some() && self.hosts[*i].part != Part::Out);
        let living: Vec<usize> = living.collect();
        let first = *living.first()?;
        let leaders: Vec<_> = living.iter().filter(|i| self.hosts[**i].kernel.leader).collect();
        if leaders.len() != 1 {
            return Some(format!("{} nodes lead", leaders.len()));
        }
        let owners = |i: usize| -> Vec<Option<u8>> {
            self.hosts[i].kernel.buckets.iter().map(|bucket| bucket.owner).collect()
        };
        let agreed = owners(first);
        if let Some(other) = living.iter().find(|i| owners(**i) != agreed) {
            let (one, other) = (&self.hosts[first].name, &self.hosts[*other].name);
            return Some(format!("{one} and {other} have different tables"));
        }
        let gone = (0..self.hosts.len()).filter(|i| !living.contains(i));
        for i in gone.filter(|i| self.hosts[*i].farm.is_some()) {
            if self.hosts[i].kernel.serves() {
                return Some(format!("{} is out, and serves", self.hosts[i].name));
            }
        }
        self.uneven(&living, &agreed)
    }

    /// Those whom the leader gives no clients, for they came and went.
    pub(super) fn held(&self) -> Vec<usize> {
        let farms = self.hosts.iter().filter_map(|host| host.farm.as_ref());
        let names: Vec<_> = farms.flat_map(Farm::held).collect();
        (0..self.hosts.len()).filter(|i| names.contains(&self.hosts[*i].name)).collect()
    }

    fn uneven(&self, living: &[usize], agreed: &[Option<u8>]) -> Option<String> {
        let of = |part: Part| -> Vec<usize> {
            living.iter().copied().filter(|i| self.hosts[*i].part == part).collect()
        };
        let held = self.held();
        let mut ready = of(Part::Ready);
        if ready.iter().any(|i| !held.contains(i)) {
            ready.retain(|i| !held.contains(i));
        }
        let serving = if ready.is_empty() { of(Part::Draining) } else { ready };
        let none = serving.iter().all(|i| self.hosts[*i].weight == 0);
        let weight = |i: usize| if none { 1 } else { i64::from(self.hosts[i].weight) };
        let whole: i64 = serving.iter().map(|i| weight(*i)).sum();
        for i in living {
            let seat = u8::try_from(*i).ok();
            let count = agreed.iter().filter(|owner| **owner == seat).count() as i64;
            let due = if serving.contains(i) { BUCKETS as i64 * weight(*i) } else { 0 };
            if (count * whole.max(1) - due).abs() >= whole.max(1) {
                return Some(format!("{} serves {count} buckets", self.hosts[*i].name));
            }
        }
        (agreed.contains(&None) && !serving.is_empty()).then(|| "a bucket has no owner".to_owned())
    }
}
