//! Going on without the peer: rule R2, from both sides, and the consent that replaces a grant.
//!
//! A new epoch is adopted only here or by a sole member; until then every write waits.

use std::time::Duration;

use model::{Copy, Epoch};

use super::facts::{Standing, is_acting};
use super::witnessing::standing;
use super::{Follow, Mirror, State};
use crate::record::StoredCopy;
use crate::witness::{Answer, Request};

/// How long a peer in contact may take to consent before the witness is asked instead.
const CONSENT_MAX: Duration = Duration::from_secs(2);
/// A winner takes the role this much later than the timeout after the last receipt.
const FENCE_DELAY: Duration = Duration::from_millis(800);
/// An undecided primary drops its addresses this much later than the timeout after its last echo.
const FENCE_BOUND: Duration = Duration::from_millis(700);

/// What became of a wish to go on alone.
pub(super) enum Verdict {
    Granted,
    Policy,
    HeldOff,
    Refused,
    Open,
}

impl Mirror {
    /// A node without the role wants to go on.
    pub(crate) fn ask_step(&mut self, since: model::Time) -> bool {
        let pending = self.record.pending.is_some();
        let peer = self.heard();
        if let Some(peer) = &peer {
            let standing = self.standing(peer);
            let split = standing == Standing::Split && peer.copy != Copy::Inconsistent;
            let lost = standing == Standing::Behind || split;
            let yields = !pending && (!self.outranks(peer) || self.config_differs());
            if lost || yields {
                return self.stop_asking();
            }
        } else if self.in_contact() && !pending {
            return self.stop_asking();
        }
        let epoch = self.propose();
        if let Some(peer) = &peer {
            if peer.consent == Some(epoch.id) {
                self.info("consent", format!("{} consents to stay behind", self.peer_name));
                self.adopt(epoch, false);
                self.open();
                return true;
            }
            if !pending && !self.due(since + CONSENT_MAX) {
                return false;
            }
        } else if !pending && !self.silence_due() {
            return false;
        }
        if !self.may_ask() {
            if pending {
                return self.stop_asking();
            }
            let (me, peer) = (&self.me, &self.peer_name);
            let sentence = format!("{me} went down uncleanly, and what {peer} holds may be newer");
            return self.block("crashed-copy", sentence);
        }
        if !(self.has_witness || pending) && self.in_contact() {
            // Neither the policy nor a command is for a peer that is there.
            let (me, peer) = (&self.me, &self.peer_name);
            let sentence = format!("{peer} is heard, but does not consent that {me} goes on");
            return self.block("no-consent", sentence);
        }
        match self.verdict(&epoch, self.in_sync_since_boot) {
            Verdict::Granted => self.won(epoch, true, "the witness grants"),
            Verdict::Policy => self.won(epoch, false, "no witness is configured and policy allows"),
            Verdict::HeldOff => {
                let why = format!("{} is held off, so", self.peer_name);
                self.won(epoch, false, &why)
            }
            Verdict::Refused => self.stop_asking(),
            Verdict::Open => false,
        }
    }

    fn won(&mut self, epoch: Epoch, granted: bool, why: &str) -> bool {
        let until = self.last_receipt() + self.timeout() + FENCE_DELAY;
        self.info(
            "takes-over",
            format!(
                "{why} that {} goes on: it starts once {} has certainly let go",
                self.me, self.peer_name
            ),
        );
        self.by_policy = !granted;
        self.adopt(epoch, granted);
        self.go(State::Fence { until });
        true
    }

    pub(crate) fn fence_step(&mut self, until: model::Time) -> bool {
        if let Some(peer) = self.heard()
            && matches!(self.standing(&peer), Standing::Behind)
        {
            self.counts = false;
            self.go(State::Wait);
            return true;
        }
        if self.due(until) {
            self.open();
            return true;
        }
        false
    }

    /// The epoch this node would go on in: the one asked for before, if any.
    fn propose(&mut self) -> Epoch {
        let epoch = self.record.pending.clone().or_else(|| self.proposal.clone());
        let epoch = epoch.unwrap_or_else(|| {
            let epoch = self.next_epoch(false);
            self.info(
                "wants-alone",
                format!("{} wants to go on without {}", self.me, self.peer_name),
            );
            epoch
        });
        self.proposal = Some(epoch.clone());
        epoch
    }

    /// Gives up the wish, durably where the witness may have heard of it.
    fn stop_asking(&mut self) -> bool {
        if self.record.pending.is_some() {
            self.persist(|record| record.pending = None);
        }
        self.proposal = None;
        self.go(State::Wait);
        true
    }

    /// Asks the witness, or the policy where there is none.
    fn verdict(&mut self, epoch: &Epoch, was_in_sync: bool) -> Verdict {
        if !self.has_witness {
            return self.verdict_unwitnessed(was_in_sync);
        }
        if self.is_refused() {
            return Verdict::Open;
        }
        let Some(expected) = self.record.registered else {
            self.block("not-enrolled", "the witness does not know this pair yet".into());
            return Verdict::Open;
        };
        if self.record.pending.as_ref() != Some(epoch) {
            let pending = Some(epoch.clone());
            self.persist(|record| record.pending = pending);
        }
        let members = epoch.members.clone();
        match self.ask_witness(Request::Swap { expected, new: standing(epoch), members }) {
            Some(Answer::Granted) => Verdict::Granted,
            Some(Answer::Refused { .. }) => {
                self.warn(
                    "refused",
                    format!(
                        "the witness refuses: {} went on and {} must follow it",
                        self.peer_name, self.me
                    ),
                );
                self.refused_in = self.epoch_id();
                Verdict::Refused
            }
            Some(Answer::Locked { .. }) => self.witness_unsure(),
            Some(Answer::Missing | Answer::Half | Answer::Holds { .. }) => {
                self.talk.retry_at = self.now + Duration::from_secs(1);
                self.block("not-enrolled", "the witness does not know this pair".into());
                Verdict::Open
            }
            None => {
                if let Some(why) = self.talk.unreachable.clone() {
                    self.block(
                        "witness-unreachable",
                        format!("{} is silent and so is the witness: {why}", self.peer_name),
                    );
                }
                Verdict::Open
            }
        }
    }

    /// The witness may have been put back to an earlier state, and waits for both nodes.
    fn witness_unsure(&mut self) -> Verdict {
        self.talk.retry_at = self.now + Duration::from_secs(1);
        let sentence = "the witness has started anew, or was put back to an earlier state: it \
                        grants nothing before it has heard both nodes";
        self.block("witness-unsure", sentence.to_owned());
        Verdict::Open
    }

    /// Whether the witness has refused this node in its present epoch already.
    pub(crate) fn is_refused(&mut self) -> bool {
        let refused = self.refused_in.is_some() && self.refused_in == self.epoch_id();
        if refused {
            let sentence = format!(
                "the witness says that {} went on: {} waits for it",
                self.peer_name, self.me
            );
            self.block("outvoted", sentence);
        }
        refused
    }

    /// The acting primary cannot go on with its peer as it is: consent, witness or policy.
    pub(crate) fn drop_peer(&mut self) -> bool {
        if self.undecided_since.is_none() {
            self.tell_why_dropped();
        }
        let since = *self.undecided_since.get_or_insert(self.now);
        let epoch = self.propose();
        let peer = self.heard();
        if let Some(peer) = &peer
            && peer.consent == Some(epoch.id)
        {
            return self.go_on(epoch, false, "it consents");
        }
        let contact = self.in_contact();
        if !contact {
            self.fence_when_due();
        }
        let unresolved = self.record.pending.is_some();
        if contact && !unresolved && !(self.has_witness && self.due(since + CONSENT_MAX)) {
            return false;
        }
        match self.verdict(&epoch, !contact) {
            Verdict::Granted => self.go_on(epoch, true, "the witness grants it"),
            Verdict::Policy => {
                self.by_policy = true;
                self.go_on(epoch, false, "no witness is configured and policy allows it")
            }
            Verdict::HeldOff => self.go_on(epoch, false, "it is held off"),
            Verdict::Refused => {
                self.persist(|record| record.pending = None);
                self.lose("outvoted", "the witness gave the next epoch to the peer");
                true
            }
            Verdict::Open => false,
        }
    }

    /// A peer that is silent has a reason of its own; one that failed is named with its failure.
    fn tell_why_dropped(&mut self) {
        let session = self.session.as_ref().map(|session| session.id);
        let failed = self.replicator.target_failed.as_ref();
        if let Some((_, why)) = failed.filter(|(id, _)| Some(*id) == session) {
            let sentence = format!("{} is dropped: {why}", self.peer_name);
            self.warn("dropped", sentence);
        }
    }

    pub(crate) fn go_on(&mut self, epoch: Epoch, granted: bool, why: &str) -> bool {
        self.info("alone", format!("{} goes on alone without {}: {why}", self.me, self.peer_name));
        self.adopt(epoch, granted);
        self.undecided_since = None;
        self.block = None;
        self.assign_serve();
        self.unfence();
        true
    }

    /// R6: at the fence bound an undecided primary drops its addresses.
    fn fence_when_due(&mut self) {
        let bound = self.last_echo() + self.timeout() + FENCE_BOUND;
        if self.front.addresses && self.due(bound) {
            self.warn(
                "fenced",
                format!("{} is undecided for too long: it drops its addresses", self.me),
            );
            self.fenced = true;
            self.set_addresses(false);
        }
    }

    pub(crate) fn unfence(&mut self) {
        if self.fenced {
            self.fenced = false;
            self.set_addresses(true);
        }
    }

    /// Records, durably, that the peer may go on without this node.
    pub(crate) fn give_consent(&mut self) -> bool {
        let may = match &self.state {
            State::Stop | State::Wait | State::Follow { .. } | State::Settle => true,
            State::Ask { .. } | State::Quit { .. } => !self.front.running && !self.front.addresses,
            State::Fence { .. }
            | State::Promote(_)
            | State::Serve
            | State::HandOver { .. }
            | State::Lose => false,
        };
        if !may || self.persist_error.is_some() {
            return false;
        }
        let Some(peer) = self.heard() else {
            return false;
        };
        let Some(proposal) = peer.proposal.as_ref().map(|epoch| epoch.id) else {
            return false;
        };
        let known = self.consent == Some(proposal) || self.epoch_id() == Some(proposal);
        let standing = self.standing(&peer);
        let unfit = self.stands_against(standing);
        // A disk that is not mounted may hold what a peer has lost that went down uncleanly.
        let better = !is_acting(&peer) && self.recorded_copy() > peer.copy;
        let asking = matches!(self.state, State::Ask { .. }) && self.outranks(&peer);
        if known || unfit || better || asking {
            return false;
        }
        self.info(
            "consents",
            format!("{} consents that {} goes on without it", self.me, self.peer_name),
        );
        // Whether or not the copy is to be seen now: its disk may be mounted again.
        if self.record.copy == StoredCopy::Current {
            self.persist(|record| {
                record.copy = StoredCopy::Outdated { consent: proposal };
                record.pending = None;
                record.promotable = false;
                record.holds_role = false;
            });
        }
        self.consent = Some(proposal);
        self.proposal = None;
        self.handover = None;
        match self.state {
            State::Follow { .. } => self.settle(),
            State::Ask { .. } => self.go(State::Wait),
            State::Stop
            | State::Wait
            | State::Settle
            | State::Quit { .. }
            | State::Fence { .. }
            | State::Promote(_)
            | State::Serve
            | State::HandOver { .. }
            | State::Lose => {}
        }
        true
    }

    /// Whether this copy may be needed, so that a peer in this standing gets no consent.
    fn stands_against(&self, standing: Standing) -> bool {
        match standing {
            Standing::Same | Standing::Behind | Standing::MeNew => false,
            // What was given up, or is a mixture, stands in nobody's way.
            Standing::Split | Standing::Foreign => self.copy() != Copy::Inconsistent,
            Standing::BothNew | Standing::PeerNew | Standing::Ahead => true,
        }
    }

    /// Consent is void once its author, in contact, shows that it never used it.
    pub(crate) fn withdraw_consent(&mut self) -> bool {
        let given = match self.record.copy {
            StoredCopy::Outdated { consent } => Some(consent),
            StoredCopy::None
            | StoredCopy::Inconsistent
            | StoredCopy::Restored
            | StoredCopy::Discarded
            | StoredCopy::Current => None,
        };
        let Some(given) = given.or(self.consent) else {
            return false;
        };
        let Some(peer) = self.heard() else {
            return false;
        };
        let wanted = peer.proposal.as_ref().map(|epoch| epoch.id) == Some(given)
            || peer.pending == Some(given);
        if wanted || self.standing(&peer) != Standing::Same || self.persist_error.is_some() {
            return false;
        }
        self.consent = None;
        if self.record.copy == (StoredCopy::Outdated { consent: given }) {
            self.info(
                "consent-void",
                format!("{} never used this node's consent: its copy counts again", self.peer_name),
            );
            self.persist(|record| {
                record.copy = StoredCopy::Current;
                record.promotable = true;
            });
        }
        true
    }

    fn config_differs(&self) -> bool {
        !self.config_differences().is_empty()
    }
}

impl Follow {
    /// Whether the target holds everything that is acknowledged.
    pub(crate) fn is_done(self) -> bool {
        match self {
            Follow::Done => true,
            Follow::Preparing | Follow::Ready => false,
        }
    }
}
