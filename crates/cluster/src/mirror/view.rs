//! What others see of the mirror: its report to the peer and its status for people.
//!
//! Reads only.

use model::{BootId, Headline, Phase, Role, Severity, Time};

use super::facts::is_acting;
use super::{Follow, Mirror, Quit, State};
use crate::effect::Assignment;
use crate::input::{BootModule, DataState, Running};
use crate::record::StoredCopy;
use crate::report::{Report, SessionReport, SessionStep};
use crate::status::{ContactState, ModuleStatus, PeerReport, PeerStatus, WitnessState};

impl Mirror {
    pub(crate) fn role(&self) -> (Role, Phase) {
        let acting = if self.names_peer() && !self.is_sole() { Role::Prim } else { Role::Alone };
        match &self.state {
            State::Stop => (Role::Stop, Phase::Ready),
            State::Wait | State::Ask { .. } if self.block.is_some() => {
                (Role::Wait, Phase::NotReady)
            }
            State::Wait | State::Ask { .. } | State::Fence { .. } | State::Lose | State::Settle => {
                (Role::Wait, Phase::Transient)
            }
            State::Promote(_) | State::HandOver { .. } => (acting, Phase::Transient),
            State::Serve if self.start_failure().is_some() => (acting, Phase::NotReady),
            State::Serve if self.is_restarting() => (acting, Phase::Transient),
            State::Serve if acting == Role::Prim => {
                let asking = self.undecided_since.is_some();
                let phase = if asking {
                    Phase::NotReady
                } else if self.is_protected() {
                    Phase::Ready
                } else {
                    Phase::Transient
                };
                (acting, phase)
            }
            State::Serve => (acting, Phase::Ready),
            State::Follow { step: Follow::Done, .. } => (Role::Second, Phase::Ready),
            State::Follow { .. } => (Role::Second, Phase::Transient),
            State::Quit { step: Quit::AwaitPrimary, .. } => (Role::Second, Phase::Transient),
            State::Quit { step: Quit::Address | Quit::Service | Quit::Hold, .. }
                if self.record.holds_role =>
            {
                (acting, Phase::Transient)
            }
            State::Quit { .. } => (Role::Stop, Phase::Transient),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let (role, phase) = self.role();
        let outdated = match self.record.copy {
            StoredCopy::Outdated { consent } => Some(consent),
            StoredCopy::None
            | StoredCopy::Inconsistent
            | StoredCopy::Restored
            | StoredCopy::Discarded
            | StoredCopy::Current => None,
        };
        Report {
            config: self.digest.clone(),
            role,
            phase,
            empty: self.empty,
            root: self.record.root,
            epoch: self.record.epoch.clone(),
            lineage: self.record.lineage.clone(),
            pending: self.record.pending.as_ref().map(|epoch| epoch.id),
            copy: self.copy(),
            consent: self.consent.or(outdated),
            proposal: self.proposal.clone(),
            number: self.number,
            looked_back: self.replicator.looked_back,
            role_term: self.record.role_term,
            holds_role: self.record.holds_role || self.front.running || self.front.addresses,
            handover: self.handover,
            promotable: self.record.promotable,
            session: self.session_report(),
            leaving: self.leaving,
            hindered: self.is_hindered(),
            maintained: self.is_maintained(),
            claim: self.claim(),
            unopened: self.record.unopened.is_some(),
        }
    }

    /// What a daemon that is started now would find.
    pub(crate) fn found(&self) -> BootModule {
        let data = match (&self.wrong, &self.record.epoch) {
            (Some(wrong), _) => wrong.clone(),
            (None, Some(epoch)) => DataState::Marked { root: self.record.root, epoch: epoch.id },
            (None, None) if self.empty => DataState::Empty,
            (None, None) => DataState::Unmarked,
        };
        let runs = self.replicator.died.is_none();
        let assigned = self.replicator.assigned.clone();
        let running = assigned.filter(|assigned| runs && *assigned != Assignment::Close);
        BootModule {
            config: self.config.clone(),
            digest: (*self.digest).clone(),
            record: self.record.clone(),
            data,
            running: running.map(|assignment| Running {
                assignment,
                addresses: self.front.addresses,
                service: self.front.running,
                farm: None,
            }),
        }
    }

    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    fn session_report(&self) -> Option<SessionReport> {
        match &self.state {
            State::Follow { step: Follow::Preparing, .. } => None,
            State::Follow { session, step: Follow::Ready, .. } => {
                Some(SessionReport { id: *session, step: SessionStep::Offered })
            }
            State::Follow { session, step: Follow::Done, .. } => {
                Some(SessionReport { id: *session, step: SessionStep::Done })
            }
            // A primary that stops keeps its session until it has drained it.
            State::Promote(_)
            | State::Serve
            | State::HandOver { .. }
            | State::Quit { step: Quit::Address | Quit::Service | Quit::Hold, .. } => {
                let session = self.session.as_ref()?;
                Some(SessionReport { id: session.id, step: session.step })
            }
            State::Quit { step: Quit::AwaitPrimary, .. } => {
                let step = SessionStep::Done;
                self.replicator.link.map(|id| SessionReport { id, step })
            }
            State::Stop
            | State::Wait
            | State::Ask { .. }
            | State::Fence { .. }
            | State::Lose
            | State::Settle
            | State::Quit { .. } => None,
        }
    }

    pub(crate) fn status(&self, now: Time) -> ModuleStatus {
        let (role, phase) = self.role();
        let last = self.peer.report.as_ref().map(|report| PeerReport {
            role: report.role,
            phase: report.phase,
            copy: report.copy,
        });
        ModuleStatus {
            kind: self.config.kind,
            headline: self.headline(now, role, phase),
            role,
            phase,
            since: self.since,
            started: self.record.started,
            copy: self.copy(),
            up_to_date: self.is_up_to_date(),
            epoch: self.record.epoch.as_ref().map_or(0, |epoch| epoch.number),
            reasons: self.base.reasons(),
            peer: Some(PeerStatus {
                node: self.peer_name.clone(),
                contact: self.contact(now),
                last,
            }),
            witness: match (self.has_witness, self.talk.answered, &self.talk.unreachable) {
                (false, _, _) => WitnessState::None,
                (true, _, Some(_)) => WitnessState::Unreachable,
                (true, true, None) => WitnessState::Answers,
                (true, false, None) => WitnessState::Unknown,
            },
            session: self.session_report().map(|session| session.step),
            addresses: self.front.addresses,
            service: self.front.running,
            takes_clients: matches!(role, Role::Prim | Role::Alone)
                && phase == Phase::Ready
                && self.front.running,
            checks: self.check_statuses(),
            farm: None,
        }
    }

    fn heartbeats_alive(&self, now: Time) -> bool {
        let fresh = |at: Time| now < at + self.timeout();
        self.peer.two_way && self.peer.received.is_some_and(fresh)
    }

    pub(crate) fn contact(&self, now: Time) -> ContactState {
        let fresh = |at: Time| now < at + self.timeout();
        if self.heartbeats_alive(now) {
            ContactState::Alive
        } else if self.peer.link_received.is_some_and(fresh) {
            ContactState::DataLinkOnly
        } else if self.in_contact_at(now) {
            ContactState::Listening
        } else {
            ContactState::Lost
        }
    }

    fn headline(&self, now: Time, role: Role, phase: Phase) -> Headline {
        let amber = self.reasons.values().any(|reason| reason.severity > Severity::Info);
        let alive = self.heartbeats_alive(now);
        let peer_serves =
            alive && self.peer.report.as_ref().is_some_and(|report| is_acting(report));
        match (role, phase) {
            (Role::Prim | Role::Second | Role::Up, Phase::Ready) if !amber => Headline::Protected,
            (Role::Prim | Role::Alone, Phase::NotReady) => Headline::Down,
            (Role::Prim | Role::Alone, Phase::Transient) => Headline::Changing,
            (Role::Prim | Role::Alone | Role::Second | Role::Up, _) => Headline::AtRisk,
            (Role::Wait | Role::Stop, _) if peer_serves => Headline::AtRisk,
            (Role::Wait, Phase::Transient) | (Role::Stop, Phase::Transient) => Headline::Changing,
            (Role::Stop, _) if !alive => Headline::Unknown,
            (Role::Wait | Role::Stop, _) => Headline::Down,
        }
    }
}
