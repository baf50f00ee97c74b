//! What is done when the application fails: restart in place, failover, wait, stop.
//!
//! A check that is down and a start that fails are failures alike, and go through the same rules:
//!
//! ```text
//!   restart   stopped and started here, as long as `max_restarts` are not used up; then failover
//!   failover  the peer takes over if it is up to date and has not failed itself; else restart,
//!             and when those are used up, the module is stopped here
//!   wait      the peer takes over, or the application waits here until the check is up
//!   stop      the module is stopped here, and the peer takes over if it can
//!   none      shown
//! ```
//!
//! A start that fails as the role is taken up counts as `failover`: the peer had it a moment ago.
//! What is not about two nodes, such as restarts in place, is in `application`.

use std::sync::Arc;

use model::config::CheckAction;
use model::{Role, Severity};

use super::facts::is_acting;
use super::{Mirror, Quit};
use crate::application::{Failure, down, spoken};
use crate::report::Report;

impl Mirror {
    /// Whether the application was started and nothing is being done to it or waited for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.base.is_at_rest() && self.undecided_since.is_none()
    }

    /// A node that serves looks after its application.
    pub(super) fn recover_step(&mut self) -> bool {
        self.restart_step().unwrap_or_else(|| self.answer_failure())
    }

    fn answer_failure(&mut self) -> bool {
        // While writes wait the application cannot do better.
        if self.undecided_since.is_some() || self.front.busy.is_some() || self.is_paused() {
            return false;
        }
        let Some(failure) = self.failure() else { return false };
        match failure.action {
            CheckAction::None => return false,
            CheckAction::Restart => self.restart_or_leave(failure),
            CheckAction::Failover if self.is_peer_fit() => self.leave_to_peer(failure),
            CheckAction::Failover => self.restart_or_leave(failure),
            CheckAction::Wait => self.wait_for_check(&failure),
            CheckAction::Stop => {
                let sentence = format!("{} stops the module: {}", self.me, failure.sentence);
                self.give_up("stopped-by-check", sentence, failure.evidence);
                self.begin_stop(false);
            }
        }
        true
    }

    /// Whether the application may be left to the peer by itself, and the peer can take it.
    fn is_peer_fit(&mut self) -> bool {
        self.moves_by_itself() && self.is_peer_able()
    }

    /// Whether the peer can take over in order and has not failed itself.
    pub(super) fn is_peer_able(&mut self) -> bool {
        let able = |peer: Arc<Report>| !peer.hindered && !peer.maintained && !peer.leaving;
        self.heard().is_some_and(able) && self.is_protected() && self.in_contact()
    }

    fn restart_or_leave(&mut self, failure: Failure) {
        let Err(failure) = self.restart(failure) else { return };
        if self.is_peer_fit() {
            return self.leave_to_peer(failure);
        }
        let failover = &self.config.failover;
        let sentence = format!(
            "{} stops the module, as restarts within {} are used up ({}) and {} cannot take \
             over: {}",
            self.me,
            spoken(failover.restart_window),
            failover.max_restarts,
            self.peer_name,
            failure.sentence
        );
        self.give_up("gave-up", sentence, failure.evidence);
        self.begin_stop(true);
    }

    fn leave_to_peer(&mut self, failure: Failure) {
        let sentence = format!(
            "{} is to run the application, which failed on {}: {}",
            self.peer_name, self.me, failure.sentence
        );
        self.give_up("failed-over", sentence, failure.evidence);
        self.begin_hand_over(false);
    }

    fn wait_for_check(&mut self, failure: &Failure) {
        let evidence = failure.evidence.clone();
        if self.is_peer_fit() {
            let (me, peer) = (&self.me, &self.peer_name);
            let why = &failure.sentence;
            let sentence = format!("{peer} is to run the application, which {me} cannot: {why}");
            self.explain_with(Severity::Warning, "failed-over", sentence, evidence);
            self.begin_hand_over(false);
            return;
        }
        let sentence = format!("{} stops the application until: {}", self.me, failure.sentence);
        self.explain_with(Severity::Warning, "check-waits", sentence, evidence);
        self.set_addresses(false);
        self.quit(Quit::Address);
    }

    /// A waiting node whose application could not run here only follows. None when nothing is in
    /// its way.
    pub(super) fn held_back(&mut self, peer: Option<&Report>) -> Option<bool> {
        if peer.is_some_and(is_acting) {
            return None;
        }
        if let Some((check, evidence)) = self.down_for(CheckAction::Wait) {
            let idle = peer.filter(|peer| peer.role == Role::Wait && !peer.hindered);
            if self.record.holds_role && idle.is_some_and(|peer| self.in_sync_with(peer)) {
                self.give_role(false);
                return Some(true);
            }
            let why = down(&check, &evidence);
            let sentence = format!("{} does not start the application before: {why}", self.me);
            return Some(self.block("check-waits", sentence));
        }
        let both = peer.is_some_and(|peer| peer.hindered && peer.role == Role::Stop);
        if both && self.given_up().is_some() {
            let sentence = format!(
                "the application failed on {} and on {}: neither starts it again by itself",
                self.peer_name, self.me
            );
            return Some(self.block("gave-up", sentence));
        }
        None
    }

    /// Whether the peer is not to leave the application to this node.
    pub(super) fn is_hindered(&self) -> bool {
        self.given_up().is_some() || self.down_for(CheckAction::Wait).is_some()
    }

    /// That the peer could not run the application.
    pub(super) fn peer_reason(&self, found: &mut Vec<(&'static str, Severity, String)>) {
        let hindered = self.peer.report.as_ref().is_some_and(|peer| peer.hindered);
        if hindered && self.is_acting_state() {
            let sentence = format!(
                "the application has failed on {}, or cannot run there: it takes over only if this \
                 node is lost",
                self.peer_name
            );
            found.push(("peer-hindered", Severity::Warning, sentence));
        }
    }
}
