//! When a call that changed data may be answered.
//!
//! With `ack = "write"`: once every required peer has applied the operation. With `ack = "fsync"`
//! at once. A sync is answered, in both, when it is durable here and at every required peer, which
//! says so only after it has applied everything before.
//!
//! The answers themselves (`A`) are opaque here. What a required peer is, the cluster says; this
//! file only enforces it, for any number of peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::NodeName;
use model::config::Ack;

/// Numbers operations and holds back answers until the required peers have confirmed.
#[derive(Debug, Clone)]
pub struct Acknowledge<A> {
    /// Number of the newest operation.
    number: u64,
    ack: Ack,
    /// Peers whose confirmation every answer needs.
    required: BTreeSet<NodeName>,
    /// The newest operation that each peer has applied in its present session.
    applied: BTreeMap<NodeName, u64>,
    /// Answers held back, by rising number.
    waiting: VecDeque<(u64, A)>,
    /// Syncs that are not answered yet, by number.
    syncs: BTreeMap<u64, Sync<A>>,
}

/// A sync that is not answered yet.
#[derive(Debug, Clone)]
struct Sync<A> {
    /// Its answer, once the local part has ended.
    answer: Option<A>,
    /// The peers that were required when it began, and have been since: one that became required
    /// later must hold everything before that durably, which is looked after elsewhere.
    owed: BTreeSet<NodeName>,
    /// The peers on whose disks it is durable.
    durable_at: BTreeSet<NodeName>,
}

impl<A> Sync<A> {
    fn is_durable(&self) -> bool {
        self.owed.is_subset(&self.durable_at)
    }
}

impl<A> Acknowledge<A> {
    /// Starts after operation `number`, requiring nobody, with `ack = "write"`.
    #[must_use]
    pub fn new(number: u64) -> Acknowledge<A> {
        Acknowledge {
            number,
            ack: Ack::Write,
            required: BTreeSet::new(),
            applied: BTreeMap::new(),
            waiting: VecDeque::new(),
            syncs: BTreeMap::new(),
        }
    }

    /// Number of the newest operation.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many answers are held back.
    #[must_use]
    pub fn held_back(&self) -> usize {
        self.waiting.len() + self.syncs.len()
    }

    /// Gives the next operation its number.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// An operation awaits its answer, which is handed back when it may be given now.
    /// `travels` is false for what no peer needs to know, such as a write to an unlinked file.
    #[must_use]
    pub fn answer(&mut self, number: u64, travels: bool, answer: A) -> Option<A> {
        if !travels || number <= self.enough() {
            return Some(answer);
        }
        // Mostly the newest; those of a predecessor come as they are found.
        let at = self.waiting.partition_point(|(other, _)| *other <= number);
        self.waiting.insert(at, (number, answer));
        None
    }

    /// A sync with this number has begun.
    pub fn sync_begins(&mut self, number: u64) {
        let owed = self.required.clone();
        self.syncs.insert(number, Sync { answer: None, owed, durable_at: BTreeSet::new() });
    }

    /// The local part of a sync ended; its answer is handed back when it may be given now, which
    /// is at once when the local part failed or the sync does not travel.
    #[must_use]
    pub fn sync_local(&mut self, number: u64, at_once: bool, answer: A) -> Option<A> {
        match self.syncs.get_mut(&number) {
            Some(sync) if !at_once && !sync.is_durable() => {
                sync.answer = Some(answer);
                None
            }
            Some(_) | None => {
                self.syncs.remove(&number);
                Some(answer)
            }
        }
    }

    /// A peer has applied everything up to `number`; returns the answers that are due. Nobody can
    /// have applied what has not been numbered yet: more than that is the count of another time.
    #[must_use]
    pub fn applied(&mut self, peer: &NodeName, number: u64) -> Vec<A> {
        let number = number.min(self.number);
        let applied = self.applied.entry(peer.clone()).or_default();
        *applied = number.max(*applied);
        self.due()
    }

    /// A peer has made the sync with this number durable.
    #[must_use]
    pub fn durable(&mut self, peer: &NodeName, number: u64) -> Vec<A> {
        if let Some(sync) = self.syncs.get_mut(&number) {
            sync.durable_at.insert(peer.clone());
        }
        self.due()
    }

    /// How to acknowledge, and whose confirmation answers need, from now on; returns the answers
    /// that are due.
    #[must_use]
    pub fn require(&mut self, ack: Ack, required: BTreeSet<NodeName>) -> Vec<A> {
        for sync in self.syncs.values_mut() {
            sync.owed.retain(|peer| required.contains(peer));
        }
        self.ack = ack;
        self.required = required;
        self.due()
    }

    /// A session with this peer begins or has ended: nothing it confirmed before counts.
    pub fn forget(&mut self, peer: &NodeName) {
        self.applied.remove(peer);
        for sync in self.syncs.values_mut() {
            sync.durable_at.remove(peer);
        }
    }

    /// Takes over what was held back, to be refused.
    #[must_use]
    pub fn cut(&mut self) -> Vec<A> {
        let syncs = std::mem::take(&mut self.syncs).into_values().filter_map(|sync| sync.answer);
        self.waiting.drain(..).map(|(_, answer)| answer).chain(syncs).collect()
    }

    /// Whether a peer may lack what was answered already, so that its word is needed before it may
    /// be taken for equal.
    #[must_use]
    pub fn peers_may_lag(&self) -> bool {
        self.ack == Ack::Fsync && !self.required.is_empty()
    }

    /// Operations up to this number may be answered.
    fn enough(&self) -> u64 {
        match self.ack {
            Ack::Write => self.applied_by_all(),
            Ack::Fsync => u64::MAX,
        }
    }

    fn applied_by_all(&self) -> u64 {
        let by = |peer| self.applied.get(peer).copied().unwrap_or(0);
        self.required.iter().map(by).min().unwrap_or(u64::MAX)
    }

    fn due(&mut self) -> Vec<A> {
        let enough = self.enough();
        let count = self.waiting.partition_point(|(number, _)| *number <= enough);
        let mut due: Vec<A> = self.waiting.drain(..count).map(|(_, answer)| answer).collect();
        let ready = |sync: &mut Sync<A>| sync.answer.is_some() && sync.is_durable();
        due.extend(self.syncs.extract_if(.., |_, sync| ready(sync)).filter_map(|(_, s)| s.answer));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn both() -> BTreeSet<NodeName> {
        BTreeSet::from([node("b"), node("c")])
    }

    #[test]
    fn alone_answers_at_once() {
        let mut acks = Acknowledge::new(0);
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, "w"), Some("w"));
    }

    #[test]
    fn an_answer_waits_for_the_slowest_required_peer() {
        let mut acks = Acknowledge::new(10);
        assert!(acks.require(Ack::Write, both()).is_empty());
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, "w"), None);
        assert!(acks.applied(&node("b"), 11).is_empty());
        assert!(acks.applied(&node("c"), 10).is_empty());
        assert_eq!(acks.applied(&node("c"), 11), ["w"]);
    }

    #[test]
    fn what_was_confirmed_in_an_earlier_session_does_not_count() {
        let mut acks = Acknowledge::new(0);
        let _ = acks.applied(&node("b"), 99);
        acks.forget(&node("b"));
        let _ = acks.require(Ack::Write, BTreeSet::from([node("b")]));
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, "w"), None);
    }

    #[test]
    fn a_peer_cannot_confirm_what_was_not_numbered_yet() {
        let mut acks = Acknowledge::new(3);
        let _ = acks.require(Ack::Write, BTreeSet::from([node("b")]));
        assert!(acks.applied(&node("b"), 50_000).is_empty());
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, "w"), None);
        assert_eq!(acks.applied(&node("b"), number), ["w"]);
    }

    #[test]
    fn dropping_the_requirement_releases_and_cutting_takes_over() {
        let mut acks = Acknowledge::new(0);
        let _ = acks.require(Ack::Write, both());
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, 1), None);
        assert_eq!(acks.require(Ack::Write, BTreeSet::new()), [1]);
        let _ = acks.require(Ack::Write, both());
        let number = acks.next_number();
        assert_eq!(acks.answer(number, true, 2), None);
        let sync = acks.next_number();
        acks.sync_begins(sync);
        assert_eq!(acks.sync_local(sync, false, 3), None);
        assert_eq!(acks.cut(), [2, 3]);
        assert_eq!(acks.held_back(), 0);
    }

    #[test]
    fn a_sync_needs_both_disks_in_either_order() {
        let mut acks = Acknowledge::new(0);
        let _ = acks.require(Ack::Write, BTreeSet::from([node("b")]));
        let first = acks.next_number();
        acks.sync_begins(first);
        assert!(acks.durable(&node("b"), first).is_empty());
        assert_eq!(acks.sync_local(first, false, "remote first"), Some("remote first"));
        let second = acks.next_number();
        acks.sync_begins(second);
        assert_eq!(acks.sync_local(second, false, "local first"), None);
        assert!(acks.applied(&node("b"), second).is_empty(), "applied is not durable");
        assert_eq!(acks.durable(&node("b"), second), ["local first"]);
        let failed = acks.next_number();
        acks.sync_begins(failed);
        assert_eq!(acks.sync_local(failed, true, "failed"), Some("failed"));
    }

    #[test]
    fn with_fsync_only_syncs_wait() {
        let mut acks = Acknowledge::new(0);
        assert!(acks.require(Ack::Fsync, both()).is_empty());
        let write = acks.next_number();
        assert_eq!(acks.answer(write, true, "w"), Some("w"));
        assert!(acks.peers_may_lag());
        let sync = acks.next_number();
        acks.sync_begins(sync);
        assert_eq!(acks.sync_local(sync, false, "s"), None);
        let write = acks.next_number();
        assert_eq!(acks.answer(write, true, "w"), Some("w"), "later ones do not wait for it");
        assert!(acks.applied(&node("b"), write).is_empty(), "applied is not durable");
        assert!(acks.durable(&node("b"), sync).is_empty());
        assert_eq!(acks.durable(&node("c"), sync), ["s"]);
    }

    #[test]
    fn with_fsync_a_lost_peer_leaves_a_sync_to_the_disk_here() {
        let mut acks = Acknowledge::new(0);
        let _ = acks.require(Ack::Fsync, BTreeSet::from([node("b")]));
        let [done, running] = [acks.next_number(), acks.next_number()];
        acks.sync_begins(done);
        acks.sync_begins(running);
        assert_eq!(acks.sync_local(done, false, "done"), None);
        // The session breaks: as long as the peer is required, nothing is answered.
        acks.forget(&node("b"));
        assert_eq!(acks.held_back(), 2);
        assert_eq!(acks.require(Ack::Fsync, BTreeSet::new()), ["done"]);
        // Required again before the disk here has answered: that covers what was before.
        assert!(acks.require(Ack::Fsync, BTreeSet::from([node("b")])).is_empty());
        assert_eq!(acks.sync_local(running, false, "running"), Some("running"));
    }

    #[test]
    fn what_waits_is_released_when_the_mode_no_longer_wants_it_to() {
        let mut acks = Acknowledge::new(0);
        let _ = acks.require(Ack::Write, both());
        let write = acks.next_number();
        assert_eq!(acks.answer(write, true, "w"), None);
        assert_eq!(acks.require(Ack::Fsync, both()), ["w"]);
        assert!(acks.require(Ack::Write, both()).is_empty());
        let write = acks.next_number();
        assert_eq!(acks.answer(write, true, "w"), None);
    }
}
