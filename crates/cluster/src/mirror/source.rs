//! The source's side of joining: rule R5, and what happens when a session ends.
//!
//! Runs while this node acts. Alone it offers, resynchronises and names the target; together it
//! watches that the target stays, and else drops it (`alone`).

use std::time::Duration;

use model::{Copy, Phase, Role, SessionId};

use super::facts::Standing;
use super::{Mirror, Promote, Session, State};
use crate::effect::{Assignment, Serve, ServeSession};
use crate::report::{Report, SessionReport, SessionStep};

/// How long a target that could join may leave an offer untaken before another one is made.
const OFFER_MAX: Duration = Duration::from_secs(5);

impl Mirror {
    pub(crate) fn source_step(&mut self) -> bool {
        if self.replicator.ack.is_some() && self.record.unopened.is_some() {
            self.persist(|record| record.unopened = None);
            self.assign_serve();
            return true;
        }
        if !self.names_peer() {
            self.sole_step()
        } else if self.is_sole() {
            self.named_step()
        } else {
            self.shared_step()
        }
    }

    /// The only member: looks for a target, and brings it up to date.
    fn sole_step(&mut self) -> bool {
        let Some(session) = self.session.clone() else {
            self.register_alone();
            return self.state == State::Serve && self.find_target();
        };
        if self.session_over(&session) {
            self.session = None;
            self.back_off();
            if session.assigned {
                self.join_failed = self.why_over(session.id);
                let why = self.join_failed.as_ref();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                self.warn("resync-ended", format!("the session to {} ended{why}", self.peer_name));
                self.assign_serve();
            }
            return true;
        }
        if !session.joined {
            return self.note_joined(&session);
        }
        if self.replicator.synced == Some(session.id) && self.replicator.ack.is_some() {
            let epoch = self.next_epoch(true);
            self.info(
                "named",
                format!("{} holds all data: every write needs it from now on", self.peer_name),
            );
            self.adopt(epoch, false);
            self.join_failed = None;
            self.session = Some(session);
            self.assign_serve();
            return true;
        }
        false
    }

    fn find_target(&mut self) -> bool {
        if !self.due(self.retry.at) || !self.in_contact() {
            return false;
        }
        // Who joins gives its copy up to the resync, and until then a crash would lead back to it.
        if self.record.unopened.is_some() {
            return false;
        }
        let Some(peer) = self.heard() else {
            return false;
        };
        if !self.is_joinable(&peer) || !self.config_differences().is_empty() {
            return false;
        }
        // What is compared must include what was changed past replication.
        if self.replicator.looked_back.is_none() {
            return false;
        }
        self.info("offers", format!("{} offers {} to join", self.me, self.peer_name));
        self.offer_session(true);
        true
    }

    fn is_joinable(&self, peer: &Report) -> bool {
        let related = match self.standing(peer) {
            Standing::PeerNew => true,
            Standing::Ahead => peer.copy > Copy::None && peer.looked_back.is_some(),
            // A copy that was given up, or is a mixture, is nobody's data.
            Standing::Split | Standing::Foreign => {
                peer.copy == Copy::Inconsistent && peer.looked_back.is_some()
            }
            Standing::BothNew | Standing::MeNew | Standing::Same | Standing::Behind => false,
        };
        related && peer.role == Role::Wait && !peer.leaving && peer.pending.is_none()
    }

    pub(crate) fn offer_session(&mut self, resync: bool) {
        self.session = Some(Session {
            id: SessionId(self.rng.id()),
            since: self.now,
            resync,
            step: SessionStep::Offered,
            joined: false,
            assigned: false,
            barrier: None,
        });
    }

    /// The target is ready: the replicator may connect.
    fn note_joined(&mut self, session: &Session) -> bool {
        let theirs = self.heard().and_then(|peer| peer.session.as_ref().map(|session| session.id));
        if theirs != Some(session.id) {
            return false;
        }
        let step = SessionStep::Resync;
        self.session = Some(Session { joined: true, assigned: true, step, ..session.clone() });
        self.info("resync", format!("{} is brought up to date in the background", self.peer_name));
        self.assign_serve();
        true
    }

    /// Whether a session has ended, or can come to nothing.
    pub(crate) fn session_over(&mut self, session: &Session) -> bool {
        let id = session.id;
        let lost = self.replicator.lost.as_ref().is_some_and(|(lost, _)| *lost == id);
        let failed = self.replicator.target_failed.as_ref().is_some_and(|(s, _)| *s == id);
        if lost || failed || !self.in_contact() {
            return true;
        }
        let Some(peer) = self.heard() else {
            return !session.joined;
        };
        if session.joined {
            peer.session.as_ref().map(|theirs| theirs.id) != Some(id)
        } else {
            let preparing = peer.role == Role::Second && peer.session.is_none();
            let joins = peer.session.as_ref().is_some_and(|theirs| theirs.id == id);
            // A target that has tried and failed unseen never joins this one again; one that
            // cannot join yet says so.
            let could = session.resync && peer.phase != Phase::NotReady;
            let ignored = could && self.due(session.since + OFFER_MAX);
            !preparing && !joins && (ignored || !self.is_joinable(&peer))
        }
    }

    /// Why a session is over, as far as the replicator has said.
    pub(super) fn why_over(&self, session: SessionId) -> Option<String> {
        let (failed, lost) = (&self.replicator.target_failed, &self.replicator.lost);
        let said = failed.iter().chain(lost).find(|(id, _)| *id == session);
        said.map(|(_, why)| why.clone())
    }

    /// The epoch names both, but the target has no rights yet.
    fn named_step(&mut self) -> bool {
        let session = match self.session.clone() {
            Some(session) if !self.session_over(&session) => session,
            Some(_) | None => {
                self.warn(
                    "join-ended",
                    format!(
                        "{} left before it was up to date: this node goes on alone",
                        self.peer_name
                    ),
                );
                let epoch = self.next_epoch(false);
                self.adopt(epoch, false);
                self.back_off();
                self.assign_serve();
                return true;
            }
        };
        let Some((number, _)) = self.replicator.ack else {
            return false;
        };
        let Some(barrier) = session.barrier else {
            let step = SessionStep::Named;
            self.session = Some(Session { barrier: Some(number), step, ..session });
            return true;
        };
        let durable = self.replicator.durable.filter(|(id, _)| *id == session.id);
        if durable.is_none_or(|(_, number)| number < barrier) || !self.register_join() {
            return false;
        }
        self.persist(|record| record.target_may_promote = true);
        self.session = Some(Session { step: SessionStep::Final, ..session });
        self.info("final", format!("{} may take over from now on", self.peer_name));
        true
    }

    /// Both have rights: the peer is kept, or dropped with a verdict.
    fn shared_step(&mut self) -> bool {
        let session = self.session.clone();
        let alive = session.as_ref().is_some_and(|session| !self.session_over(session));
        let Some(session) = session.filter(|_| alive && self.record.pending.is_none()) else {
            return self.drop_peer();
        };
        if self.contact_proof().is_some() {
            self.unfence();
        }
        if self.proposal.take().is_some() {
            self.block = None;
            self.undecided_since = None;
        }
        if session.step == SessionStep::Done {
            self.keep_enrolled();
            return false;
        }
        let done = SessionReport { id: session.id, step: SessionStep::Done };
        let theirs = self.heard().and_then(|peer| peer.session.clone());
        if theirs != Some(done) || self.replicator.link != Some(session.id) {
            return false;
        }
        self.retry.failures = 0;
        self.in_sync_since_boot = true;
        // Whatever was found has been taken in, and nobody else has changed anything since.
        self.replicator.looked_back = Some(true);
        self.by_policy = false;
        self.wait_before_moving();
        self.session = Some(Session { step: SessionStep::Done, joined: true, ..session });
        self.info("protected", format!("{} is up to date: the pair is protected", self.peer_name));
        true
    }

    /// Tells the replicator how to serve, as the record and the session have it now. As long as
    /// the opening checkpoint is not durably noted, nothing is acknowledged without the peer.
    pub(crate) fn assign_serve(&mut self) {
        let Some(epoch) = self.epoch_id() else { return };
        let mut required = std::collections::BTreeSet::new();
        if self.names_peer() || self.record.unopened.is_some() {
            required.insert(self.peer_name.clone());
        }
        let session = self.session.as_ref().filter(|session| session.assigned);
        let session = session.map(|session| ServeSession {
            id: session.id,
            target: self.peer_name.clone(),
            resync: session.resync,
        });
        let role_term = self.record.role_term;
        let replication = self.config.replication.clone();
        self.assign(Assignment::Serve(Serve { epoch, role_term, required, session, replication }));
    }

    /// A daemon restarted over a serving replicator carries on.
    pub(crate) fn resume_serving(&mut self, serve: &Serve) {
        self.state = State::Serve;
        self.counts = self.record.served.since.is_some_and(|since| since.boot == self.boot);
        self.info("carries-on", format!("{} carries on as primary", self.me));
        let shared = !self.is_sole();
        if let Some(session) = &serve.session
            && shared
        {
            self.replicator.link = Some(session.id).filter(|_| self.front.running);
            self.in_sync_since_boot = true;
            self.session = Some(Session {
                id: session.id,
                since: self.now,
                resync: session.resync,
                step: SessionStep::Final,
                joined: true,
                assigned: true,
                barrier: None,
            });
        } else if serve.session.is_some() && !self.names_peer() {
            self.assign_serve();
        }
        if !self.front.running {
            self.opened_at = self.now;
            self.state = State::Promote(Promote::Open);
        } else if !self.front.addresses && shared {
            // Dropped while it could not be told who goes on, perhaps: the peer may have them.
            self.fenced = true;
        } else if !self.front.addresses {
            self.set_addresses(true);
        }
        self.retry.at = self.now + Duration::from_secs(1);
    }
}
