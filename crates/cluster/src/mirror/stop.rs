//! Stopping: addresses, application, data; with a peer in sync, never without telling it.
//!
//! A primary with an up-to-date peer hands over first (`role`); this file begins after that.

use std::time::Duration;

use model::{Copy, Role};

use super::facts::is_acting;
use super::{Mirror, Quit, State};
use crate::effect::{Assignment, Ending, ServiceAction};
use crate::record::StoredCopy;

/// How long a leaving node waits for its peer's proposal.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// How long an application that stops may wait for a peer to which there is no link.
const STUCK_MAX: Duration = Duration::from_secs(2);
/// How long a secondary waits for the end of a primary that is being stopped too.
const AWAIT_MAX: Duration = Duration::from_secs(30);

impl Mirror {
    /// The operator wants the module stopped here; `all`: on the peer too.
    pub(crate) fn begin_stop(&mut self, all: bool) {
        self.persist(|record| record.started = false);
        let protected = self.is_protected() && self.in_contact();
        let peer_leaves = self.heard().is_none_or(|peer| peer.leaving);
        match self.state.clone() {
            State::Serve if protected && !all && !peer_leaves => self.begin_hand_over(true),
            State::Serve | State::Promote(_) | State::HandOver { .. } => {
                self.info("stops", format!("{} stops the application", self.me));
                self.set_addresses(false);
                self.quit(Quit::Address);
            }
            State::Follow { step, .. } if all && step.is_done() => self.quit(Quit::AwaitPrimary),
            State::Follow { step, .. } if step.is_done() => {
                self.info("leaves", format!("{} asks {} to go on alone", self.me, self.peer_name));
                self.leaving = true;
                self.quit(Quit::Leave);
            }
            State::Follow { .. } | State::Settle => {
                self.hold(Ending::Cut);
                self.quit(Quit::Hold);
            }
            State::Stop
            | State::Wait
            | State::Ask { .. }
            | State::Fence { .. }
            | State::Lose
            | State::Quit { .. } => {
                self.proposal = None;
                if self.front.running || self.front.busy.is_some() || self.front.addresses {
                    self.set_addresses(false);
                    self.quit(Quit::Address);
                } else {
                    self.close();
                    self.quit(Quit::Close);
                }
            }
        }
    }

    /// A node that is not meant to run: what is still open is closed.
    pub(crate) fn leave_or_stop(&mut self) {
        match self.replicator.assigned {
            None | Some(Assignment::Close) => self.go(State::Stop),
            Some(Assignment::Hold { .. } | Assignment::Receive { .. } | Assignment::Serve(_)) => {
                self.close();
                self.quit(Quit::Close);
            }
        }
    }

    pub(super) fn quit(&mut self, step: Quit) {
        self.fenced = false;
        self.go(State::Quit { step, since: self.now });
    }

    pub(crate) fn close(&mut self) {
        self.session = None;
        self.assign(Assignment::Close);
    }

    pub(crate) fn quit_step(&mut self, step: Quit, since: model::Time) -> bool {
        let ended = self.replicator.ack.is_some()
            || self.replicator.refused.is_some()
            || self.replicator.died.is_some();
        match step {
            Quit::Leave => {
                if !self.may_leave(since) {
                    return false;
                }
                self.hold(Ending::Cut);
                self.quit(Quit::Hold);
            }
            Quit::AwaitPrimary => {
                let acting = self.heard().is_some_and(|peer| is_acting(&peer));
                if acting && self.replicator.link.is_some() && !self.due(since + AWAIT_MAX) {
                    return false;
                }
                self.hold(Ending::Cut);
                self.quit(Quit::Hold);
            }
            Quit::Address => {
                if self.front.addresses_busy || self.front.busy == Some(ServiceAction::Kill) {
                    return false;
                }
                self.run_service(ServiceAction::Stop);
                self.quit(Quit::Service);
            }
            Quit::Service => {
                if self.front.busy.is_some() {
                    if self.waits_for_lost_peer() && self.due(since + STUCK_MAX) {
                        self.warn(
                            "stop-cut",
                            format!("writes wait for {}: they are cut", self.peer_name),
                        );
                        self.hold(Ending::Cut);
                    }
                    return false;
                }
                self.hold(Ending::Drain);
                self.quit(Quit::Hold);
            }
            Quit::Hold => {
                if !ended && !self.due(since + AWAIT_MAX) {
                    return false;
                }
                self.close();
                self.quit(Quit::Close);
            }
            Quit::Close => {
                if !ended {
                    return false;
                }
                self.closed();
            }
        }
        true
    }

    /// Whether the application may be unable to stop because its writes wait for a peer to which
    /// there is no link any more.
    fn waits_for_lost_peer(&self) -> bool {
        let required = match &self.replicator.assigned {
            Some(Assignment::Serve(serve)) => !serve.required.is_empty(),
            Some(Assignment::Close | Assignment::Hold { .. } | Assignment::Receive { .. }) => false,
            None => false,
        };
        required && self.replicator.link.is_none()
    }

    fn may_leave(&mut self, since: model::Time) -> bool {
        let consented = matches!(self.record.copy, StoredCopy::Outdated { .. });
        let Some(peer) = self.heard() else {
            return true;
        };
        let both = !is_acting(&peer) && (peer.leaving || peer.role == Role::Stop);
        let over = self.copy() < Copy::Intact;
        consented || both || over || self.due(since + LEAVE_MAX)
    }

    /// The directories are plain again.
    fn closed(&mut self) {
        let clean = self.replicator.ack.is_some() && self.replicator.died.is_none();
        if !clean {
            self.number = None;
        }
        let (boot, number) = (self.boot, self.number);
        let served = self.end_counting();
        self.persist(|record| {
            record.served = served;
            if clean && record.open_in == Some(boot) {
                record.open_in = None;
                record.number = number.filter(|_| record.copy == StoredCopy::Current);
            }
        });
        self.leaving = false;
        self.handover = None;
        self.proposal = None;
        if !self.record.started {
            self.info("stopped", format!("{} is stopped", self.me));
        }
        self.go(State::Stop);
    }
}
