//! The promises as checks: nothing acknowledged is lost, one author at a time.
//!
//! A write must be found on every node that serves, until every node that held it for the
//! acknowledgement has lost power before it was durable on all of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{NodeName, SessionId};

use super::World;

/// A replicated tree: the writes applied to it, in order.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    applied: Vec<u64>,
    durable: usize,
    mixed: bool,
    pub burnt: BTreeSet<SessionId>,
}

impl Tree {
    pub fn holds(&self, write: u64) -> bool {
        self.applied.contains(&write)
    }

    pub fn apply(&mut self, write: u64) {
        self.applied.push(write);
    }

    pub fn number(&self) -> u64 {
        self.applied.len() as u64
    }

    pub fn checkpoint(&mut self) {
        self.durable = self.applied.len();
    }

    pub fn begin_copy(&mut self) {
        self.mixed = true;
    }

    pub fn become_copy(&mut self, source: &Tree) {
        self.applied.clone_from(&source.applied);
        self.durable = 0;
        self.mixed = false;
    }

    pub fn same_as(&self, other: &Tree) -> bool {
        self.applied == other.applied && !self.mixed && !other.mixed
    }
}

/// Who vouches for a write.
#[derive(Debug, Default)]
struct Vouch {
    holders: BTreeSet<usize>,
    /// Both nodes hold it together: it counts as durable once it is so on both.
    pair: bool,
}

#[derive(Debug, Default)]
pub struct Checks {
    writes: u64,
    /// Acknowledged writes that must not be lost, and the nodes that vouch for each.
    must: BTreeMap<u64, Vouch>,
    pub acknowledged: u64,
    pub exempt: bool,
}

impl Checks {
    pub fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    pub fn acknowledge(&mut self, write: u64, holders: &[usize]) {
        self.acknowledged += 1;
        let pair = holders.len() > 1;
        self.must.insert(write, Vouch { holders: holders.iter().copied().collect(), pair });
    }

    /// While the pair is protected, both nodes vouch for all that both hold.
    pub fn protected(&mut self, trees: [&Tree; 2]) {
        let held = trees.map(|tree| tree.applied.iter().rev().take(300).collect::<BTreeSet<_>>());
        for (write, vouch) in self.must.iter_mut().rev().take(200) {
            if held.iter().all(|held| held.contains(write)) {
                vouch.holders.extend([0, 1]);
                vouch.pair = true;
            }
        }
    }

    /// What was not durable is gone from this node.
    pub fn power_lost(&mut self, i: usize, tree: &mut Tree, other: &Tree) {
        tree.applied.truncate(tree.durable);
        let held: BTreeSet<u64> = tree.applied.iter().copied().collect();
        let there: BTreeSet<u64> = other.applied.iter().take(other.durable).copied().collect();
        self.must.retain(|write, vouch| {
            if !held.contains(write) || (vouch.pair && !there.contains(write)) {
                vouch.holders.remove(&i);
            }
            !vouch.holders.is_empty()
        });
    }

    pub fn served(&mut self, i: usize, tree: &Tree, required: &BTreeSet<NodeName>, log: &[String]) {
        if self.exempt {
            return;
        }
        assert!(!tree.mixed, "node{} serves a mixture:\n{}", i + 1, tail(log));
        let held: BTreeSet<u64> = tree.applied.iter().copied().collect();
        let lost: Vec<&u64> = self.must.keys().filter(|w| !held.contains(*w)).collect();
        assert!(lost.is_empty(), "node{} serves without {lost:?}:\n{}", i + 1, tail(log));
        for vouch in self.must.values_mut().filter(|_| required.is_empty()) {
            *vouch = Vouch { holders: BTreeSet::from([i]), pair: false };
        }
        assert_eq!(held.len(), tree.applied.len(), "a write twice:\n{}", tail(log));
    }

    pub fn worth_keeping(&self, i: usize, tree: &Tree, log: &[String]) {
        assert!(!tree.mixed, "node{} keeps a mixture:\n{}", i + 1, tail(log));
    }

    /// A copy that may become a mixture from now on has been kept as it is.
    pub fn kept(&self, i: usize, kept: Option<&Tree>, tree: &Tree, log: &[String]) {
        let found = kept.is_some_and(|kept| kept.same_as(tree));
        assert!(found, "node{} is changed before it was kept:\n{}", i + 1, tail(log));
    }

    pub fn same(&self, a: &Tree, b: &Tree, log: &[String]) {
        assert!(a.same_as(b), "an in-sync session between different trees:\n{}", tail(log));
    }
}

impl World {
    /// Checked after every event.
    pub fn verify(&self) {
        let both = self.can_acknowledge(0) && self.can_acknowledge(1);
        assert!(
            !both || !self.has_witness || self.checks.exempt,
            "both nodes can acknowledge:\n{}",
            tail(&self.log)
        );
        let both = self.hosts[0].addresses && self.hosts[1].addresses;
        assert!(
            !both || !self.has_witness || self.loose || self.checks.exempt,
            "both nodes hold the address:\n{}",
            tail(&self.log)
        );
    }
}

pub fn tail(log: &[String]) -> String {
    log[log.len().saturating_sub(120)..].join("\n")
}
