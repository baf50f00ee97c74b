//! Who may start: rules R1, R4 and R7. The one place where a waiting node decides.
//!
//! It either follows an offer, takes up a role it certainly has, asks for a new epoch (`alone`),
//! or stays blocked with a reason.

use std::time::Duration;

use model::{Copy, Role};

use super::facts::{Standing, is_acting};
use super::{Mirror, Promote, State};
use crate::record::StoredCopy;
use crate::report::{Report, SessionStep};
use crate::witness::Answer;

/// How long a started node waits for an up-to-date peer to be started too.
const START_GRACE: Duration = Duration::from_secs(3);
/// How long an offered role may be left untaken before it counts as refused.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

impl Mirror {
    pub(crate) fn wait_step(&mut self) -> bool {
        if !self.record.started {
            self.leave_or_stop();
            return true;
        }
        if let Some(error) = self.persist_error.clone() {
            return self.record_anew(&error);
        }
        if let Some(why) = self.fault.clone() {
            return self.block("data-missing", why);
        }
        if self.copy() == Copy::Crashed && self.record.unopened.is_some() {
            self.fall_back();
            return true;
        }
        if self.record.epoch.is_some() && self.is_uncovered() {
            return self.cover();
        }
        if self.record.epoch.is_some() && self.replicator.ack.is_none() {
            // What the directories turn out to be is told by then.
            return false;
        }
        let peer = self.heard();
        if self.record.pending.is_some() {
            return self.settle_pending(peer.as_deref());
        }
        if let Some(why) = self.copy_failed.clone()
            && (self.failed_following || !peer.as_deref().is_some_and(|peer| self.may_follow(peer)))
        {
            if self.failed_following
                && peer.as_deref().is_some_and(is_acting)
                && self.due(self.retry.at)
            {
                self.failed_following = false;
                self.info("tries-again", format!("{} offers its copy to the peer again", self.me));
                return true;
            }
            return self.block("copy-failed", format!("the copy of {} failed: {why}", self.me));
        }
        if self.peer.two_way && self.peer.report.is_none() && self.in_contact() {
            let sentence = format!("{} does not know this module", self.peer_name);
            return self.block("peer-lacks-module", sentence);
        }
        if let Some(changed) = self.held_back(peer.as_deref()) {
            return changed;
        }
        if let Some(changed) = self.waits_for_word(peer.as_deref()) {
            return changed;
        }
        match peer {
            Some(peer) => self.wait_with(&peer),
            None if self.in_contact() => {
                self.block = None;
                false
            }
            None => self.wait_without(),
        }
    }

    /// Whether the peer has, or gets, the newer data.
    fn may_follow(&self, peer: &Report) -> bool {
        matches!(self.standing(peer), Standing::MeNew | Standing::Behind) || is_acting(peer)
    }

    /// The node went down before its own epoch began on disk: what the pair acknowledged before
    /// may have been in its cache alone here, so the epoch they shared counts again. It held the
    /// role in that one: where the peer has gone down uncleanly as well, this node leads.
    fn fall_back(&mut self) {
        self.info(
            "falls-back",
            format!("{} went down before it had gone on alone: the peer's copy counts", self.me),
        );
        self.persist(|record| {
            let Some(epoch) = record.unopened.take() else { return };
            let ids = record.lineage.ids().iter().copied();
            let older: Vec<_> = ids.skip_while(|id| *id != epoch.id).skip(1).collect();
            record.lineage = model::Lineage::new(older);
            record.epoch = Some(epoch);
            record.target_may_promote = true;
        });
    }

    /// A question to the witness left open by an earlier attempt is pursued or dropped, durably.
    fn settle_pending(&mut self, peer: Option<&Report>) -> bool {
        let moved_on = peer.is_some_and(|peer| self.standing(peer) == Standing::Behind);
        if self.may_ask() && !moved_on {
            self.go(State::Ask { since: self.now });
        } else {
            self.info(
                "pending-dropped",
                "an epoch asked for earlier is given up: this copy may no longer lead it".into(),
            );
            self.persist(|record| record.pending = None);
        }
        true
    }

    fn wait_with(&mut self, peer: &Report) -> bool {
        let keys = self.config_differences();
        if !keys.is_empty() {
            let sentence = format!(
                "the configuration of this module differs between {} and {} in: {}",
                self.me,
                self.peer_name,
                keys.join(", ")
            );
            return self.block("config-differs", sentence);
        }
        if peer.role != Role::Wait {
            self.look_back_since = None;
        }
        match self.standing(peer) {
            Standing::BothNew => self.first_start(peer),
            Standing::PeerNew | Standing::Ahead => self.lead(peer),
            Standing::MeNew | Standing::Behind => {
                self.leaving = false;
                self.follow_or_wait(peer)
            }
            Standing::Same => self.same_epoch(peer),
            // Nothing is lost by following: the copy was given up, or is a mixture.
            Standing::Split | Standing::Foreign if self.copy() == Copy::Inconsistent => {
                self.follow_or_wait(peer)
            }
            // It is nobody's data any more: this copy is what is left.
            Standing::Split | Standing::Foreign if peer.copy == Copy::Inconsistent => {
                self.lead(peer)
            }
            Standing::Split => self.block(
                "split-brain",
                format!("{} and {} both went on without the other", self.me, self.peer_name),
            ),
            Standing::Foreign => self.block(
                "different-data",
                format!("the data of {} and {} have no common origin", self.me, self.peer_name),
            ),
        }
    }

    /// R7: one side empty, the other wins; both empty, the first in the configuration.
    fn first_start(&mut self, peer: &Report) -> bool {
        let mixed = match (self.copy(), peer.copy) {
            (Copy::Inconsistent, _) => Some(&self.me),
            (_, Copy::Inconsistent) => Some(&self.peer_name),
            _ => None,
        };
        if let Some(mixed) = mixed.filter(|_| !is_acting(peer)) {
            // Where the data came from is gone: what is left of them is for nobody to overwrite.
            let sentence = format!(
                "the first copy of the module's data to {mixed} did not finish, and its source \
                 does not know them any more: the operator must say which node's directories to \
                 keep"
            );
            return self.block("first-start-choice", sentence);
        }
        let lead = match (self.empty, peer.empty) {
            (false, false) => {
                let sentence = format!(
                    "neither node holds data of this module yet, and the directories of both {} \
                     and {} have content: the operator must say which one to keep",
                    self.me, self.peer_name
                );
                return self.block("first-start-choice", sentence);
            }
            (false, true) => true,
            (true, false) => false,
            (true, true) => self.first,
        };
        if !lead && peer.role == Role::Stop {
            let sentence = format!(
                "at the first start the data of {} are taken, and the module is stopped there",
                self.peer_name
            );
            return self.block("first-start-needs-peer", sentence);
        }
        if lead {
            self.create("the first start");
            return true;
        }
        self.follow_or_wait(peer)
    }

    /// Creates the module's data from what the directories hold.
    pub(crate) fn create(&mut self, why: &str) {
        let epoch = self.next_epoch(false);
        self.info("created", format!("{why}: the data of {} become the module's", self.me));
        self.adopt(epoch, false);
        self.open();
    }

    /// The peer has nothing newer: this node leads if its copy is good.
    fn lead(&mut self, peer: &Report) -> bool {
        if self.copy() < Copy::Crashed {
            return self.block_outdated();
        }
        if is_acting(peer) {
            self.block = None;
            return false;
        }
        if self.is_sole() {
            if !self.due(self.retry.at) {
                return false;
            }
            self.take_sole("the peer's data are older");
        } else {
            self.go(State::Ask { since: self.now });
        }
        true
    }

    fn same_epoch(&mut self, peer: &Report) -> bool {
        let handed = peer.handover.is_some_and(|term| term > self.record.role_term);
        if handed && self.copy() == Copy::Intact && !self.leaving {
            let term = peer.handover.unwrap_or(self.record.role_term);
            self.info("role-taken", format!("{} hands the role over to this node", self.peer_name));
            self.persist(|record| {
                record.role_term = term;
                record.holds_role = true;
            });
            self.in_sync_since_boot = true;
            return true;
        }
        if self.handover.is_some() {
            let taken = peer.holds_role && Some(peer.role_term) >= self.handover;
            if !taken && !peer.leaving && !self.due(self.since + HANDOVER_MAX) {
                return false;
            }
            self.handover = None;
        }
        if self.copy() < Copy::Crashed || (is_acting(peer) && !peer.leaving) {
            return self.follow_or_wait(peer);
        }
        if self.leaving && (peer.copy < Copy::Intact || peer.role == Role::Stop) {
            self.leaving = false;
        }
        let wait_for_peer = peer.role == Role::Stop && !peer.leaving && !self.peer_had_its_time();
        if self.in_sync_with(peer) && !peer.leaving && !self.leaving {
            if peer.role == Role::Stop {
                return self.ask_unless(wait_for_peer);
            }
            match self.nothing_out_of_band(peer) {
                Some(true) => return self.start_in_sync(peer),
                None if !self.has_looked_back_long() => return false,
                Some(false) | None => {}
            }
        }
        if self.outranks(peer) {
            return self.ask_unless(wait_for_peer);
        }
        self.follow_or_wait(peer)
    }

    fn ask_unless(&mut self, wait: bool) -> bool {
        self.block = None;
        if !wait {
            self.go(State::Ask { since: self.now });
        }
        !wait
    }

    /// Whether a stopped peer has had time enough to be started too.
    fn peer_had_its_time(&mut self) -> bool {
        let since = *self.peer_stopped_since.get_or_insert(self.now);
        self.due(since + START_GRACE)
    }

    /// Both hold the same: the last primary leads, in the same epoch, needing the peer.
    fn start_in_sync(&mut self, peer: &Report) -> bool {
        let mine = (self.record.role_term, self.record.holds_role, self.first);
        if mine < (peer.role_term, peer.holds_role, !self.first) {
            return self.follow_or_wait(peer);
        }
        if !self.due(self.retry.at) {
            return false;
        }
        if !self.record.holds_role {
            let term = self.record.role_term.max(peer.role_term) + 1;
            self.persist(|record| {
                record.role_term = term;
                record.holds_role = true;
            });
        }
        self.info(
            "start-in-sync",
            format!("{} and {} hold the same data: this node leads", self.me, self.peer_name),
        );
        self.offer_session(false);
        self.go(State::Promote(Promote::Offer { since: self.now }));
        true
    }

    /// Joins the session that the peer offers, or says what is missing.
    fn follow_or_wait(&mut self, peer: &Report) -> bool {
        let offer = peer.session.as_ref().filter(|s| s.step == SessionStep::Offered);
        if let Some(offer) = offer
            && is_acting(peer)
            && self.burnt != Some(offer.id)
        {
            if self.due(self.retry.at) && self.is_prepared(offer.id, peer) {
                return self.follow(offer.id, peer);
            }
            return self.block_unprepared();
        }
        self.block = None;
        if peer.role == Role::Stop && !self.peer_had_its_time() {
            return false;
        }
        if peer.role == Role::Stop && peer.epoch.is_some() {
            let sentence = format!(
                "the data of {} are not proven up to date and {} is stopped",
                self.me, self.peer_name
            );
            return self.block("not-up-to-date", sentence);
        }
        let both = self.record.epoch.is_some() && peer.epoch.is_some() && !is_acting(peer);
        if both && self.copy() < Copy::Crashed && peer.copy < Copy::Crashed {
            let sentence = format!(
                "neither {} nor {} holds data that are proven up to date",
                self.me, self.peer_name
            );
            return self.block("no-current-copy", sentence);
        }
        if peer.role == Role::Wait && peer.phase == model::Phase::NotReady && !peer.leaving {
            let sentence =
                format!("this node follows {}, which cannot start itself", self.peer_name);
            return self.block("peer-blocked", sentence);
        }
        false
    }

    /// The peer is silent.
    fn wait_without(&mut self) -> bool {
        self.look_back_since = None;
        self.leaving = false;
        self.handover = None;
        if self.record.epoch.is_none() {
            let sentence = format!(
                "the first start needs both nodes, and {} is silent: its data may be the ones \
                 to keep",
                self.peer_name
            );
            return self.block("first-start-needs-peer", sentence);
        }
        if self.copy() < Copy::Crashed {
            return self.block_outdated();
        }
        if self.is_sole() {
            return self.due(self.retry.at) && self.start_sole();
        }
        if !self.may_ask() {
            let sentence = format!(
                "{} went down uncleanly and {} may hold newer data, but is silent",
                self.me, self.peer_name
            );
            return self.block("crashed-copy", sentence);
        }
        if !self.is_refused() && self.silence_due() {
            self.go(State::Ask { since: self.now });
            return true;
        }
        false
    }

    fn block_outdated(&mut self) -> bool {
        let why = match self.record.copy {
            StoredCopy::Restored => {
                "were put back to an earlier state, or its activity log was, and so are not up to \
                 date"
            }
            _ => "are not up to date",
        };
        let (me, peer) = (&self.me, &self.peer_name);
        let sentence =
            format!("the data of {me} {why}: it does not start the application without {peer}");
        self.block("not-up-to-date", sentence)
    }

    /// R1: the record says that the peer was left behind; the witness must not say otherwise.
    fn start_sole(&mut self) -> bool {
        let Some(registered) = self.record.registered.filter(|_| self.has_witness) else {
            self.take_sole("its record says that the peer was left behind");
            return true;
        };
        match self.ask_witness(self.probe()) {
            Some(Answer::Holds { current, .. })
                if current.id == registered || self.is_newer_own(current.id) =>
            {
                self.take_sole("the witness confirms that the peer was left behind");
                true
            }
            Some(Answer::Missing) => {
                self.take_sole("the witness knows of nobody else");
                true
            }
            Some(Answer::Holds { .. }) if self.witness_lags() => {
                self.take_sole("the witness knows only of an earlier epoch of this node's");
                true
            }
            Some(Answer::Holds { .. }) if self.record.forced => {
                self.take_sole("the operator has chosen its copy, whatever the witness says");
                true
            }
            Some(
                Answer::Holds { .. }
                | Answer::Refused { .. }
                | Answer::Granted
                | Answer::Locked { .. }
                | Answer::Half,
            ) => {
                self.talk.retry_at = self.now + Duration::from_secs(5);
                let sentence = format!("the witness says that {} went on alone", self.peer_name);
                self.block("outvoted", sentence)
            }
            None => {
                let Some(why) = &self.talk.unreachable else { return false };
                let sentence = format!(
                    "{} is silent and the witness cannot confirm that it was left behind: {why}",
                    self.peer_name
                );
                self.block("witness-unreachable", sentence)
            }
        }
    }

    /// Starts as the only node with rights in its epoch.
    fn take_sole(&mut self, why: &str) {
        self.info("start-alone", format!("{} starts without its peer: {why}", self.me));
        if self.names_peer() {
            let epoch = self.next_epoch(false);
            self.adopt(epoch, false);
        }
        self.open();
    }

    pub(crate) fn go(&mut self, state: State) {
        self.state = state;
        self.block = None;
        self.forget_preparation();
        self.leave_recovery();
        self.peer_stopped_since = None;
        self.look_back_since = None;
        self.undecided_since = None;
    }
}
