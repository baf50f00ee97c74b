//! The target's side of joining: rule R5, and the end of a session: R3.
//!
//! A target never promotes itself out of a session. It settles it for good first and then looks
//! at the facts as any waiting node does.

use model::{Copy, SessionId};

use super::facts::Standing;
use super::{Follow, Mirror, State};
use crate::effect::{Assignment, Ending};
use crate::record::StoredCopy;
use crate::report::{Report, SessionStep};

impl Mirror {
    /// Joins an offered session. Whether anything is copied follows from the source's epoch:
    /// only a source that already needs this node resumes without.
    pub(crate) fn follow(&mut self, session: SessionId, peer: &Report) -> bool {
        let resume = self.is_needed_by(peer);
        let same = self.standing(peer) == Standing::Same;
        if resume && !(same && self.copy() == Copy::Intact) {
            return false;
        }
        let (boot, fsyncs) = (self.boot, self.fsyncs());
        self.number = None;
        self.copy_failed = None;
        self.replicator.restored = false;
        self.leave_to_source();
        self.persist(|record| {
            record.open_in = Some(boot);
            record.fsynced = fsyncs;
            record.number = None;
            record.holds_role = false;
            if resume {
                record.promotable = true;
            } else {
                record.copy = StoredCopy::Inconsistent;
                record.promotable = false;
                record.pending = None;
            }
        });
        self.consent = None;
        self.handover = None;
        self.leaving = false;
        self.session = None;
        self.info("follows", format!("{} joins the session of {}", self.me, self.peer_name));
        let source = self.peer_name.clone();
        let quarantine = self.record.quarantine;
        self.assign(Assignment::Receive { session, source, quarantine });
        self.go(State::Follow { session, resume, step: Follow::Preparing });
        true
    }

    /// Whether the source's epoch names this node: what it offers then is no resync.
    pub(super) fn is_needed_by(&self, peer: &Report) -> bool {
        peer.epoch.as_ref().is_some_and(|epoch| epoch.members.contains(&self.me))
    }

    pub(crate) fn follow_step(&mut self, session: SessionId, resume: bool, step: Follow) -> bool {
        let failed = self.replicator.copy_failed.take();
        if failed.is_some() {
            self.copy_failed = failed;
            self.failed_following = true;
        }
        let trouble = self.replicator.died.is_some()
            || self.replicator.refused.is_some()
            || self.failed_following;
        let lost = self.replicator.lost.as_ref().is_some_and(|(lost, _)| *lost == session);
        if trouble || lost {
            self.back_off();
            let why = self.why_over(session).map(|why| format!(": {why}")).unwrap_or_default();
            self.info("session-ended", format!("the session from {} ended{why}", self.peer_name));
            self.settle();
            return true;
        }
        if step == Follow::Preparing {
            if self.replicator.ack.is_none() {
                return false;
            }
            let step = if resume { Follow::Done } else { Follow::Ready };
            self.in_sync_since_boot |= resume;
            self.state = State::Follow { session, resume, step };
            return true;
        }
        let Some(peer) = self.heard() else {
            let silent = !self.in_contact() && self.silence_due();
            if silent {
                self.warn("contact-lost", format!("{} is silent", self.peer_name));
                self.settle();
            }
            return silent;
        };
        let theirs = peer.session.as_ref().filter(|theirs| theirs.id == session);
        let Some(theirs) = theirs else {
            self.info("session-ended", format!("{} ended the session", self.peer_name));
            self.settle();
            return true;
        };
        match theirs.step {
            SessionStep::Named => {
                self.enrol_as_target(&peer);
                false
            }
            SessionStep::Final if !step.is_done() => {
                self.become_promotable(&peer);
                self.state = State::Follow { session, resume, step: Follow::Done };
                true
            }
            SessionStep::Done if step.is_done() => {
                self.keep_enrolled();
                false
            }
            SessionStep::Offered | SessionStep::Resync | SessionStep::Final | SessionStep::Done => {
                false
            }
        }
    }

    /// R5's last step: the source has noted that this node may promote itself.
    fn become_promotable(&mut self, peer: &Report) {
        let has_witness = self.has_witness;
        let (root, epoch, lineage) = (peer.root, peer.epoch.clone(), peer.lineage.clone());
        let term = peer.role_term;
        self.persist(|record| {
            record.root = root;
            if has_witness {
                record.registered = epoch.as_ref().map(|epoch| epoch.id);
            }
            record.epoch = epoch;
            record.lineage = lineage;
            record.copy = StoredCopy::Current;
            record.promotable = true;
            record.role_term = term;
            record.holds_role = false;
            record.unopened = None;
            record.quarantine = None;
            record.forced = false;
        });
        self.retry.failures = 0;
        self.forgotten = None;
        self.replicator.lost = None;
        self.replicator.looked_back = Some(true);
        self.talk.stands = None;
        self.in_sync_since_boot = true;
        self.info("up-to-date", format!("{} is up to date and may take over", self.me));
    }

    /// Ends the session for good: nothing of it is accepted any more, all received is applied.
    pub(crate) fn settle(&mut self) {
        // One that the replicator never took up has carried nothing, and may be offered again.
        if let State::Follow { session, step, .. } = self.state
            && step != Follow::Preparing
        {
            self.burnt = Some(session);
        }
        self.hold(Ending::Cut);
        self.go(State::Settle);
    }

    pub(crate) fn settle_step(&mut self) -> bool {
        let replicator = &self.replicator;
        let over =
            replicator.ack.is_some() || replicator.refused.is_some() || replicator.died.is_some();
        if over {
            self.go(State::Wait);
        }
        over
    }
}
