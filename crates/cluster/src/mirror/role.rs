//! Taking up the role and handing it over: rule R8.
//!
//! Order of taking: data, addresses, application. Order of giving: addresses, application, data,
//! and only then, durably, the role. Whatever fails before that is undone.

use std::time::Duration;

use super::{HandOver, Mirror, Promote, Quit, State};
use crate::effect::{Ending, ServiceAction};
use crate::record::StoredCopy;
use crate::report::SessionStep;

/// How long an in-sync peer may take to prepare for receiving.
const OFFER_MAX: Duration = Duration::from_secs(5);

impl Mirror {
    /// Opens the directories under the role, durably noted first.
    pub(crate) fn open(&mut self) {
        let (boot, fsyncs) = (self.boot, self.fsyncs());
        let noted = self.record.open_in == Some(boot)
            && self.record.holds_role
            && self.record.fsynced == fsyncs;
        if !noted || self.record.copy != StoredCopy::Current || !self.counts {
            let counting = self.begin_counting();
            self.persist(|record| {
                record.served.since = Some(counting);
                record.role_term += u64::from(!record.holds_role);
                record.holds_role = true;
                record.open_in = Some(boot);
                record.fsynced = fsyncs;
                record.number = None;
                record.copy = StoredCopy::Current;
            });
        }
        self.number = None;
        self.replicator.restored = false;
        self.held.word = false;
        self.proposal = None;
        self.replicator.copy_failed = None;
        if let Some(session) = &mut self.session {
            session.assigned = true;
        }
        self.opened_at = self.now;
        self.go(State::Promote(Promote::Open));
        self.assign_serve();
    }

    pub(crate) fn promote_step(&mut self, step: Promote) -> bool {
        if let Promote::Offer { since } = step {
            return self.offer_step(since);
        }
        if self.fail_closed() || self.source_step() {
            return true;
        }
        match step {
            Promote::Offer { .. } => false,
            Promote::Open => {
                let opened = self.replicator.ack.is_some() && self.is_linked();
                if opened {
                    if !self.fenced {
                        self.set_addresses(true);
                    }
                    self.state = State::Promote(Promote::Address);
                }
                opened
            }
            Promote::Address => {
                if self.front.addresses_busy {
                    return false;
                }
                if !self.front.running {
                    self.start_service();
                }
                self.state = State::Promote(Promote::Service);
                true
            }
            Promote::Service => {
                if self.front.busy.is_some() {
                    return false;
                }
                self.state = State::Serve;
                if self.start_failure().is_none() {
                    self.info("serves", format!("{} runs the application", self.me));
                }
                true
            }
        }
    }

    /// Whether the session of a peer in sync stands: the application starts only then, so that
    /// nothing is written before the peer gets it. A link that does not come ends the session.
    fn is_linked(&mut self) -> bool {
        let Some(session) = self.session.clone().filter(|_| self.names_peer()) else { return true };
        if self.replicator.link == Some(session.id) || session.step == SessionStep::Done {
            return true;
        }
        if self.due(self.opened_at + OFFER_MAX) {
            self.replicator.lost = Some((session.id, "the link did not come up".to_owned()));
            self.source_step();
        }
        false
    }

    /// The peer prepares to receive; until it does, nothing has been opened.
    fn offer_step(&mut self, since: model::Time) -> bool {
        let Some(session) = self.session.clone() else {
            self.go(State::Wait);
            return true;
        };
        let peer = self.heard();
        let theirs = peer.as_ref().and_then(|peer| peer.session.as_ref()).map(|s| s.id);
        if theirs == Some(session.id) {
            let joined = super::Session { joined: true, assigned: true, ..session };
            self.session = Some(joined);
            self.open();
            return true;
        }
        let gone = peer.is_none_or(|peer| peer.leaving || peer.copy < model::Copy::Intact);
        if gone || self.due(since + OFFER_MAX) {
            self.session = None;
            self.retry.at = self.now;
            self.number = self.number.filter(|_| gone);
            self.go(State::Wait);
            return true;
        }
        false
    }

    /// Runs the application: keeps the peer, or goes on without it.
    pub(crate) fn serve_step(&mut self) -> bool {
        self.fail_closed() || self.source_step() || self.recover_step() || self.move_step()
    }

    pub(crate) fn begin_hand_over(&mut self, stop: bool) {
        self.info("hands-over", format!("{} hands the role to {}", self.me, self.peer_name));
        self.set_addresses(false);
        self.go(State::HandOver { step: HandOver::Address, stop });
    }

    pub(crate) fn hand_over_step(&mut self, step: HandOver, stop: bool) -> bool {
        if self.fail_closed() {
            return true;
        }
        let over = self.session.clone().is_none_or(|session| self.session_over(&session));
        match step {
            HandOver::Address => {
                if self.front.addresses_busy {
                    return false;
                }
                self.run_service(ServiceAction::Stop);
                self.state = State::HandOver { step: HandOver::Service, stop };
            }
            HandOver::Service => {
                if self.front.busy.is_some() {
                    return false;
                }
                if over {
                    self.go_back(stop);
                    return true;
                }
                self.hold(Ending::Drain);
                self.state = State::HandOver { step: HandOver::Drain, stop };
            }
            HandOver::Drain => {
                let Some((_, drained)) = self.replicator.ack else {
                    let contact = self.in_contact();
                    if self.replicator.refused.is_some() || !contact {
                        self.go_back(stop);
                        return true;
                    }
                    return false;
                };
                if drained { self.give_role(stop) } else { self.go_back(stop) }
            }
        }
        true
    }

    /// The point of no return: the role is durably given up.
    pub(super) fn give_role(&mut self, stop: bool) {
        let (term, number) = (self.record.role_term + 1, self.number);
        self.persist(|record| {
            record.role_term = term;
            record.holds_role = false;
            record.promotable = true;
            record.number = number;
        });
        self.session = None;
        self.handover = Some(term);
        self.info("role-given", format!("{} offers the role to {}", self.me, self.peer_name));
        if stop {
            self.leaving = true;
            self.go(State::Quit { step: Quit::Leave, since: self.now });
        } else {
            self.go(State::Wait);
        }
    }

    /// The role was not given up yet: take everything up again, or stop as the last one.
    fn go_back(&mut self, stop: bool) {
        if stop {
            self.go(State::Quit { step: Quit::Close, since: self.now });
            self.close();
            return;
        }
        self.warn("switchover-failed", format!("{} could not take over in time", self.peer_name));
        self.session = None;
        self.open();
    }

    /// A broken replicator or copy must not serve: let go, and let the peer take over.
    fn fail_closed(&mut self) -> bool {
        let failed = self.replicator.copy_failed.take();
        let broken =
            failed.is_some() || self.replicator.died.is_some() || self.replicator.refused.is_some();
        if !broken {
            return false;
        }
        self.copy_failed = failed;
        self.leaving = self.names_peer() && !self.is_sole();
        let done = self.session.as_ref().is_some_and(|s| s.step == SessionStep::Done);
        self.back_off();
        self.lose(
            "fails-closed",
            if done {
                "it cannot serve its copy, and the peer can"
            } else {
                "it cannot serve its copy"
            },
        );
        true
    }
}
