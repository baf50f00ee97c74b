//! What follows from the facts: contact, quality of the copies, kinship of the epochs.
//!
//! Nothing is decided here; the rules in the sibling files ask these questions.

use std::sync::Arc;
use std::time::Duration;

use model::config::{Ack, AfterDoubleCrash};
use model::{BootId, Copy, Epoch, EpochId, Phase, Role, Time};

use super::{Mirror, State};
use crate::input::DataState;
use crate::record::{Record, Served, StoredCopy};
use crate::report::Report;

/// How much longer than the primary a secondary waits before it asks the witness.
const SECOND_DELAY: Duration = Duration::from_millis(500);

/// How this node's data relates to the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Neither has data of the module.
    BothNew,
    /// Only this node has.
    PeerNew,
    /// Only the peer has.
    MeNew,
    /// Both are in the same epoch.
    Same,
    /// The peer's epoch is an ancestor of this node's.
    Ahead,
    /// This node's epoch is an ancestor of the peer's.
    Behind,
    /// Each moved on without the other.
    Split,
    /// The data have nothing in common.
    Foreign,
}

/// Why the directories cannot be what the record says, as a sentence.
#[must_use]
pub fn data_fault(record: &Record, data: &DataState) -> Option<String> {
    let had_data = record.root != 0 && record.copy != StoredCopy::None;
    match data {
        DataState::Unusable { why, .. } => Some(why.clone()),
        DataState::Empty | DataState::Unmarked => had_data.then(|| {
            "the record says that this node holds the module's data, but the replicated \
             directories carry no marker: the disk is not mounted or was replaced"
                .to_owned()
        }),
        DataState::Marked { root, epoch } => {
            let known = record.epoch.as_ref().is_some_and(|e| e.id == *epoch)
                || record.lineage.contains(*epoch)
                || record.pending.as_ref().is_some_and(|e| e.id == *epoch)
                || record.copy == StoredCopy::Inconsistent;
            (*root != record.root || !known).then(|| {
                "the replicated directories carry a marker that does not belong to this node's \
                 record: another disk is mounted, or one of the two was restored"
                    .to_owned()
            })
        }
    }
}

impl Mirror {
    /// What this node's copy is worth.
    pub(crate) fn copy(&self) -> Copy {
        if self.fault.is_some() {
            return Copy::None;
        }
        self.recorded_copy()
    }

    /// What this node's copy is worth if it is only not to be seen: a disk that is not mounted.
    pub(crate) fn recorded_copy(&self) -> Copy {
        if self.copy_failed.is_some() || self.replicator.restored {
            return self.record.copy.quality().min(Copy::Outdated);
        }
        let earlier = |boot: BootId| boot != self.boot;
        match self.record.copy.quality() {
            Copy::Intact if self.record.open_in.is_some_and(earlier) => Copy::Crashed,
            quality => quality,
        }
    }

    /// Whether this copy is worth asking for, while the peer may hold a better one. After a crash
    /// it is, if what was acknowledged is on this disk, or the operator does not insist on that.
    pub(super) fn may_ask(&self) -> bool {
        let will_do = self.config.failover.after_double_crash == AfterDoubleCrash::GoOn;
        match self.copy() {
            Copy::Intact => true,
            Copy::Crashed => self.record.fsynced || will_do,
            Copy::Outdated | Copy::Inconsistent | Copy::None => false,
        }
    }

    /// Whether all that is acknowledged from now on, and what was since the copy was last closed
    /// cleanly, survives a crash on this disk.
    pub(super) fn fsyncs(&self) -> bool {
        let so_far = self.record.open_in.is_none() || self.record.fsynced;
        self.config.replication.ack == Ack::Fsync && so_far
    }

    pub(crate) fn epoch_id(&self) -> Option<EpochId> {
        self.record.epoch.as_ref().map(|epoch| epoch.id)
    }

    /// R5: nobody else can have rights in this node's epoch.
    pub(crate) fn is_sole(&self) -> bool {
        self.record.epoch.as_ref().is_some_and(|epoch| {
            epoch.is_sole_member(&self.me)
                || (epoch.author == self.me && !self.record.target_may_promote)
        })
    }

    /// Whether the epoch names the peer, rights or not.
    pub(crate) fn names_peer(&self) -> bool {
        self.record.epoch.as_ref().is_some_and(|epoch| epoch.members.contains(&self.peer_name))
    }

    /// Whether the peer is not lost. Until a node has listened for a whole timeout it assumes so.
    pub(crate) fn in_contact(&mut self) -> bool {
        let until = self.contact_until();
        !self.due(until)
    }

    /// As `in_contact`, for views.
    pub(crate) fn in_contact_at(&self, now: Time) -> bool {
        now < self.contact_until()
    }

    /// The newest proof that there is contact, if there was any since the daemon's start.
    pub(super) fn contact_proof(&self) -> Option<Time> {
        let peer = &self.peer;
        if self.record.holds_role {
            peer.echoed.max(peer.link_echoed)
        } else {
            peer.received.max(peer.link_received)
        }
    }

    fn contact_until(&self) -> Time {
        self.contact_proof().map_or(self.listening, |at| at.max(self.listening)) + self.timeout()
    }

    /// When the node without the role, having lost contact, may act on that.
    pub(crate) fn silence_due(&mut self) -> bool {
        let delay = if self.record.holds_role { Duration::ZERO } else { SECOND_DELAY };
        let at = self.contact_until() + delay;
        self.due(at)
    }

    /// The newest proof that the peer knew of this node.
    pub(crate) fn last_echo(&self) -> Time {
        self.peer.echoed.max(self.peer.link_echoed).unwrap_or(self.listening)
    }

    /// The newest sign of life.
    pub(crate) fn last_receipt(&self) -> Time {
        self.peer.received.max(self.peer.link_received).unwrap_or(Time::ZERO).max(self.listening)
    }

    /// Whether heartbeats pass both ways: only then the peer's report counts.
    pub(crate) fn is_heard(&mut self) -> bool {
        if !self.peer.two_way || self.peer.report.is_none() {
            return false;
        }
        let until = self.peer.received.map_or(Time::ZERO, |at| at + self.timeout());
        !self.due(until)
    }

    /// The peer's report, if it counts.
    pub(crate) fn heard(&mut self) -> Option<Arc<Report>> {
        if self.is_heard() { self.peer.report.clone() } else { None }
    }

    /// The configuration keys in which the nodes differ.
    pub(crate) fn config_differences(&self) -> Vec<String> {
        let Some(report) = &self.peer.report else {
            return Vec::new();
        };
        // Mostly so, and asked very often.
        if self.peer.cluster_digest == self.cluster_digest && self.digest == report.config {
            return Vec::new();
        }
        let both = self.digest.keys().chain(report.config.keys());
        let differ = both.filter(|key| self.digest.get(*key) != report.config.get(*key));
        let mut keys: Vec<String> = differ.cloned().collect();
        keys.sort();
        keys.dedup();
        if self.peer.cluster_digest != self.cluster_digest {
            keys.push("cluster.toml".to_owned());
        }
        keys
    }

    /// How this node's data relates to what the peer reports.
    pub(crate) fn standing(&self, peer: &Report) -> Standing {
        let (mine, theirs) = match (&self.record.epoch, &peer.epoch) {
            (None, None) => return Standing::BothNew,
            (Some(_), None) => return Standing::PeerNew,
            (None, Some(_)) => return Standing::MeNew,
            (Some(mine), Some(theirs)) => (mine.id, theirs.id),
        };
        if self.record.root != peer.root {
            Standing::Foreign
        } else if mine == theirs {
            Standing::Same
        } else if self.record.lineage.contains(theirs) {
            Standing::Ahead
        } else if peer.lineage.contains(mine) {
            Standing::Behind
        } else {
            Standing::Split
        }
    }

    /// An epoch that continues this node's, with these members.
    pub(crate) fn next_epoch(&mut self, with_peer: bool) -> Epoch {
        let mut members = std::collections::BTreeSet::from([self.me.clone()]);
        if with_peer {
            members.insert(self.peer_name.clone());
        }
        let number = self.record.epoch.as_ref().map_or(1, |epoch| epoch.number + 1);
        let id = EpochId(self.rng.id());
        Epoch { number, id, parent: self.epoch_id(), author: self.me.clone(), members }
    }

    /// Adopts an epoch in which this node is an authority, and the role with it.
    pub(crate) fn adopt(&mut self, epoch: Epoch, granted: bool) {
        let (me, boot, sole) = (self.me.clone(), self.boot, self.is_sole());
        let root = if self.record.root == 0 { self.rng.id() } else { self.record.root };
        let counting = self.begin_counting();
        let fsyncs = self.fsyncs();
        self.number = None;
        self.replicator.restored = false;
        self.persist(|record| {
            record.root = root;
            if !sole {
                record.unopened = record.epoch.clone();
                record.served = Served { total: Duration::ZERO, since: Some(counting) };
            }
            if let Some(old) = record.epoch.take() {
                record.lineage.push(old.id);
            }
            if granted {
                record.registered = Some(epoch.id);
                record.forced = false;
            }
            record.quarantine = None;
            if !record.holds_role {
                record.role_term += 1;
            }
            record.holds_role = true;
            record.pending = None;
            record.copy = StoredCopy::Current;
            record.open_in = Some(boot);
            record.fsynced = fsyncs;
            record.number = None;
            record.target_may_promote = false;
            record.promotable = false;
            debug_assert!(epoch.members.contains(&me));
            record.epoch = Some(epoch);
        });
        self.proposal = None;
        self.consent = None;
        self.handover = None;
        self.leaving = false;
        self.session = None;
    }

    /// R4: the order in which two nodes of the same epoch may become its source, best last.
    pub(crate) fn outranks(&self, peer: &Report) -> bool {
        let mine = self.report();
        let rank = |r: &Report, first: bool| {
            let acting = is_acting(r) && !r.leaving;
            (acting, r.copy, !r.leaving, r.number, r.role_term, r.holds_role, first)
        };
        rank(&mine, self.first) > rank(peer, !self.first)
    }

    /// Whether both copies hold the same operations of the same epoch.
    pub(crate) fn in_sync_with(&self, peer: &Report) -> bool {
        self.standing(peer) == Standing::Same
            && self.names_peer()
            && self.copy() == Copy::Intact
            && peer.copy == Copy::Intact
            && self.number.is_some()
            && self.number == peer.number
    }

    /// Whether this node runs the application with an up-to-date peer.
    pub(crate) fn is_protected(&self) -> bool {
        let done = |s: &super::Session| s.step == crate::report::SessionStep::Done;
        self.names_peer() && self.session.as_ref().is_some_and(done)
    }

    pub(crate) fn is_acting_state(&self) -> bool {
        matches!(self.state, State::Promote(_) | State::Serve | State::HandOver { .. })
    }
}

/// Whether a report is that of a node that acts as primary.
pub(crate) fn is_acting(report: &Report) -> bool {
    matches!(report.role, Role::Prim | Role::Alone)
}

/// Whether a report is that of a node that runs the application.
pub(crate) fn is_serving(report: &Report) -> bool {
    is_acting(report) && report.phase == Phase::Ready
}
