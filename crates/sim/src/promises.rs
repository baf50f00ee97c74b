//! What the product promises, as checks after every event.
//!
//! A write must be found on every node that serves, until every node that held it for the
//! acknowledgement has lost power before it was durable on all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cluster::effect::Assignment;
use model::{NodeName, SessionId, Time};

use crate::world::World;

/// A promise of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// P1.
    AcknowledgedWritesSurvive,
    /// P3.
    OneNodeAcknowledges,
    /// P2.
    OnlyProvenDataAreServed,
    /// P2.
    InSyncMeansEqual,
    /// The address moves, and is not in two places.
    OneHolderOfTheAddress,
    /// P5.
    ThePairSettles,
    /// What need not move does not.
    NoNeedlessFailover,
    /// A copy that is about to become a mixture is kept first.
    KeptBeforeAResync,
    /// Of two copies that went apart one stays.
    OneCopyIsKept,
    /// What a copy that was given up held alone is kept aside.
    GivenUpIsKeptAside,
    /// A light module is not started while it runs.
    ALightModuleRunsOnce,
    /// No end of a daemon or a node gives a failing application new attempts.
    RestartsAreCounted,
    /// A light module comes up again.
    ALightModuleComesUp,
    /// What a change has to stop is stopped.
    StoppedForAChange,
    /// All nodes, or none.
    OneConfiguration,
    /// Nodes with different rules of who goes on are no pair.
    OneRule,
}

impl Promise {
    /// All of them.
    pub const ALL: [Promise; 16] = [
        Promise::AcknowledgedWritesSurvive,
        Promise::OneNodeAcknowledges,
        Promise::OnlyProvenDataAreServed,
        Promise::InSyncMeansEqual,
        Promise::OneHolderOfTheAddress,
        Promise::ThePairSettles,
        Promise::NoNeedlessFailover,
        Promise::KeptBeforeAResync,
        Promise::OneCopyIsKept,
        Promise::GivenUpIsKeptAside,
        Promise::ALightModuleRunsOnce,
        Promise::RestartsAreCounted,
        Promise::ALightModuleComesUp,
        Promise::StoppedForAChange,
        Promise::OneConfiguration,
        Promise::OneRule,
    ];

    /// The promise in words.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Promise::AcknowledgedWritesSurvive => "acknowledged writes survive",
            Promise::OneNodeAcknowledges => "at most one node can acknowledge writes",
            Promise::OnlyProvenDataAreServed => "only data proven up to date are served",
            Promise::InSyncMeansEqual => "a pair that counts as in sync holds equal copies",
            Promise::OneHolderOfTheAddress => {
                "an address has one holder among nodes that hear each other"
            }
            Promise::ThePairSettles => "after healing the pair settles as protected",
            Promise::NoNeedlessFailover => {
                "nothing moves while the primary lives and one link remains"
            }
            Promise::KeptBeforeAResync => "a copy is kept before a resync mixes it",
            Promise::OneCopyIsKept => "of two copies that went apart one is kept whole",
            Promise::GivenUpIsKeptAside => {
                "what a copy that is given up held alone is kept aside before a resync"
            }
            Promise::ALightModuleRunsOnce => "a light module never runs twice on a node",
            Promise::RestartsAreCounted => {
                "an application is not restarted more often than it may be"
            }
            Promise::ALightModuleComesUp => {
                "after healing a light module runs where it is meant to"
            }
            Promise::StoppedForAChange => {
                "what a change has to stop does not run while it is taken into use"
            }
            Promise::OneConfiguration => {
                "a configuration is applied once, and after healing all nodes have it"
            }
            Promise::OneRule => "nodes that go by different rules do not begin a session",
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When, in the world's time.
    pub at: Time,
    /// How that shows.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.sentence(), self.what)
    }
}

/// What a check found: nothing, or a broken promise.
pub type Finding = Result<(), (Promise, String)>;

/// A replicated tree: the writes applied to it, in ascending order.
#[derive(Debug, Default, Clone, Hash)]
pub struct Tree {
    applied: Vec<u64>,
    durable: usize,
    mixed: bool,
    /// Sessions that are over.
    pub burnt: BTreeSet<SessionId>,
}

impl Tree {
    /// Whether a write is in it.
    #[must_use]
    pub fn holds(&self, write: u64) -> bool {
        self.applied.binary_search(&write).is_ok()
    }

    fn holds_durably(&self, write: u64) -> bool {
        self.applied.binary_search(&write).is_ok_and(|at| at < self.durable)
    }

    /// Applies a write.
    pub fn apply(&mut self, write: u64) {
        self.applied.push(write);
    }

    /// How many writes are in it: the number of the last operation.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.applied.len() as u64
    }

    /// A tree with these writes, all on the disk; perhaps a mixture.
    pub(crate) fn of(writes: impl IntoIterator<Item = u64>, mixed: bool) -> Tree {
        let applied: Vec<u64> = writes.into_iter().collect();
        Tree { durable: applied.len(), applied, mixed, burnt: BTreeSet::new() }
    }

    /// Everything in it is on the disk.
    pub fn checkpoint(&mut self) {
        self.durable = self.applied.len();
    }

    /// Whether everything in it is on the disk.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable == self.applied.len()
    }

    /// From now on it is neither what it was nor what it will be.
    pub fn begin_copy(&mut self) {
        self.mixed = true;
    }

    /// It has become a copy of another one.
    pub fn become_copy(&mut self, source: &Tree) {
        self.applied.clone_from(&source.applied);
        self.durable = 0;
        self.mixed = false;
    }

    /// Whether it is neither what it was nor what it will be.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// Whether two trees are equal.
    #[must_use]
    pub fn same_as(&self, other: &Tree) -> bool {
        self.applied == other.applied && !self.mixed && !other.mixed
    }
}

/// Who vouches for a write.
#[derive(Debug, Default, Clone, Hash)]
struct Vouch {
    holders: [bool; 2],
    /// Both nodes hold it together: it counts as durable once it is so on both.
    pair: bool,
}

/// What the other node may do while one serves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// It stays behind, and vouches for nothing any more.
    StaysBehind,
    /// It may go on alone as well, with what it holds.
    MayGoOn,
    /// It has: the node need not hold what the other one acknowledged alone.
    Apart,
}

/// What has been acknowledged, and who vouches for it.
#[derive(Debug, Default, Clone, Hash)]
pub struct Checks {
    writes: u64,
    /// Acknowledged writes that must not be lost, and the nodes that vouch for each.
    must: BTreeMap<u64, Vouch>,
    /// How many writes were acknowledged.
    pub acknowledged: u64,
    /// The operator, or the policy, took a risk: nothing is promised any more.
    pub exempt: bool,
    /// What each node alone held, acknowledged, when its copy was given up.
    given_up: [BTreeSet<u64>; 2],
}

impl Checks {
    /// These writes were acknowledged before; each is vouched for by the nodes that hold it.
    pub(crate) fn written(&mut self, trees: [&Tree; 2], last: u64) {
        self.writes = last;
        for write in 1..=last {
            let holders = trees.map(|tree| tree.holds(write));
            if holders.contains(&true) {
                self.acknowledge(write, holders, holders == [true, true]);
            }
        }
    }

    /// The next write of the application.
    pub fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// The application was told that a write succeeded, of a pair or of a node alone. A pair in
    /// which one disk is broken vouches for less, but not with another promise.
    pub fn acknowledge(&mut self, write: u64, holders: [bool; 2], pair: bool) {
        self.acknowledged += 1;
        if holders == [false, false] {
            return;
        }
        self.must.insert(write, Vouch { holders, pair });
    }

    /// While the pair is protected, both nodes vouch for all that both hold.
    pub fn protected(&mut self, trees: [&Tree; 2]) {
        self.vouched(trees, false);
    }

    /// Both nodes vouch for all that both hold, or for what of that is on both disks.
    pub(crate) fn vouched(&mut self, trees: [&Tree; 2], durably: bool) {
        let holds = |tree: &Tree, write| {
            if durably { tree.holds_durably(write) } else { tree.holds(write) }
        };
        for (write, vouch) in self.must.iter_mut().rev().take(200) {
            if trees.iter().all(|tree| holds(tree, *write)) {
                *vouch = Vouch { holders: [true, true], pair: true };
            }
        }
    }

    /// What was not durable is gone from this node.
    pub fn power_lost(&mut self, i: usize, tree: &mut Tree, other: &Tree) {
        tree.applied.truncate(tree.durable);
        self.must.retain(|write, vouch| {
            if !tree.holds(*write) || (vouch.pair && !other.holds_durably(*write)) {
                vouch.holders[i] = false;
            }
            vouch.holders.contains(&true)
        });
    }

    /// Everything is gone from this node.
    pub fn disk_lost(&mut self, i: usize) {
        self.must.retain(|_, vouch| {
            vouch.holders[i] = false;
            vouch.holders.contains(&true)
        });
    }

    /// A node serves, with these peers needed for each acknowledgement.
    ///
    /// # Errors
    /// What it serves is not what it should be.
    pub fn served(
        &mut self,
        i: usize,
        tree: &Tree,
        required: &BTreeSet<NodeName>,
        other: Other,
    ) -> Finding {
        if self.exempt {
            return Ok(());
        }
        let node = format!("node{}", i + 1);
        if tree.mixed {
            let what = format!("{node} serves a mixture");
            return Err((Promise::OnlyProvenDataAreServed, what));
        }
        let due = self.must.iter().filter(|(_, vouch)| other != Other::Apart || vouch.holders[i]);
        let lost: Vec<&u64> = due.map(|(write, _)| write).filter(|w| !tree.holds(**w)).collect();
        if !lost.is_empty() {
            let few: Vec<&&u64> = lost.iter().take(5).collect();
            let what = format!("{node} serves without {} writes: {few:?}...", lost.len());
            return Err((Promise::AcknowledgedWritesSurvive, what));
        }
        if required.is_empty() {
            for (_, vouch) in self.must.iter_mut().filter(|(write, _)| tree.holds(**write)) {
                vouch.holders[1 - i] &= other != Other::StaysBehind;
                vouch.holders[i] = true;
                vouch.pair = false;
            }
        }
        if tree.applied.windows(2).any(|two| two[0] >= two[1]) {
            let what = format!("{node} holds a write twice, or in another order");
            return Err((Promise::InSyncMeansEqual, what));
        }
        Ok(())
    }

    /// A node's copy has become another: what it had given up is nowhere but aside.
    pub fn copied(&mut self, i: usize) {
        self.given_up[i].clear();
    }

    /// A copy is being kept.
    ///
    /// # Errors
    /// It is a mixture already.
    pub fn worth_keeping(&self, i: usize, tree: &Tree) -> Finding {
        let what = format!("node{} keeps a mixture", i + 1);
        if tree.mixed { Err((Promise::KeptBeforeAResync, what)) } else { Ok(()) }
    }

    /// A copy that may become a mixture from now on has been kept as it is.
    ///
    /// # Errors
    /// It has not.
    pub fn kept(&self, i: usize, kept: Option<&Tree>, tree: &Tree) -> Finding {
        let found = kept.is_some_and(|kept| kept.same_as(tree));
        let what = format!("node{} is changed before it was kept", i + 1);
        if found { Ok(()) } else { Err((Promise::KeptBeforeAResync, what)) }
    }

    /// A node gives its copy up, `kept` being the other one's: what it alone holds is promised no
    /// more, everything else is.
    ///
    /// # Errors
    /// The other copy was given up as well.
    pub fn give_up(&mut self, i: usize, tree: &Tree, kept: &Tree, is_kept: bool) -> Finding {
        if self.exempt {
            return Ok(());
        }
        if !is_kept {
            return Err((Promise::OneCopyIsKept, "both are given up".to_owned()));
        }
        let alone = self.must.keys().filter(|write| tree.holds(**write) && !kept.holds(**write));
        self.given_up[i] = alone.copied().collect();
        self.must.retain(|write, _| !self.given_up[i].contains(write));
        for vouch in self.must.values_mut() {
            vouch.holders[i] = false;
        }
        self.must.retain(|_, vouch| vouch.holders.contains(&true));
        Ok(())
    }

    /// A resync begins that makes a node's copy equal to `source`, keeping `aside` or not.
    ///
    /// # Errors
    /// What was given up is lost with it.
    pub fn overwritten(&mut self, i: usize, tree: &Tree, source: &Tree, aside: bool) -> Finding {
        let given_up = &self.given_up[i];
        let lost = |write: &&u64| tree.holds(**write) && !source.holds(**write);
        match given_up.iter().find(lost).filter(|_| !aside) {
            Some(write) => {
                let what = format!("node{} loses write {write}", i + 1);
                Err((Promise::GivenUpIsKeptAside, what))
            }
            None => Ok(()),
        }
    }

    /// A session begins that need not compare anything.
    ///
    /// # Errors
    /// The copies differ.
    pub fn same(&self, a: &Tree, b: &Tree) -> Finding {
        let what = "a session without a resync between different copies".to_owned();
        if a.same_as(b) || self.exempt { Ok(()) } else { Err((Promise::InSyncMeansEqual, what)) }
    }
}

impl World {
    /// What a target gave up is kept aside before its source overwrites it.
    pub(crate) fn keep_aside(&mut self, i: usize) {
        let [source, target] = [i, 1 - i].map(|i| &self.hosts[i].replicator);
        let told = &target.in_force;
        let aside = matches!(told, Some(Assignment::Receive { quarantine: Some(_), .. }));
        let found = self.checks.overwritten(1 - i, &target.tree, &source.tree, aside);
        self.judge(found);
    }

    /// Checked after every event.
    pub(crate) fn verify(&mut self) {
        let decided = self.has_witness || self.landmark || self.fence.is_some();
        let promised =
            (decided || self.policy == model::config::WithoutWitness::Wait) && !self.checks.exempt;
        if promised && self.can_acknowledge(0) && self.can_acknowledge(1) {
            self.violate(Promise::OneNodeAcknowledges, "both nodes can".to_owned());
        }
        let both = self.hosts[0].addresses && self.hosts[1].addresses;
        if promised && both && !self.is_loose() {
            self.violate(Promise::OneHolderOfTheAddress, "both nodes hold it".to_owned());
        }
        if let Some(primary) = self.steady
            && self.serve_in_force(1 - primary).is_some()
        {
            let what = format!("node{} took over from node{}", 2 - primary, primary + 1);
            self.violate(Promise::NoNeedlessFailover, what);
        }
    }
}
