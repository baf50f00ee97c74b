//! What is left to the operator, for a time or always, and where the application belongs.
//!
//! ```text
//!   paused        no failure is answered: no restart, no stop, no failover; it ends by itself
//!   maintenance   the peer gets the application if it can take it, and this node takes it over
//!                 only if the peer is lost; it ends by itself
//!   manual        `mode`: a node takes over on the operator's word only
//!   prefer        the node that gets the application back once both are up to date
//! ```
//!
//! A node that had the role and comes back takes it up again in any case, and where both wait the
//! better copy leads: that is no failover. How what ends by itself is
//! kept is in `application`.

use std::time::Duration;

use model::config::FailoverMode;
use model::{Role, Severity, Time};
use serde::{Deserialize, Serialize};

use super::facts::{is_acting, is_serving};
use super::{Mirror, State};
use crate::application::{Job, spoken};
use crate::effect::Outcome;
use crate::input::Command;
use crate::report::Report;

/// How long a pair has been protected before the application is moved for no more than a wish.
const SETTLED: Duration = Duration::from_secs(10);
/// Pause between two such moves, of which the first did not come about.
const MOVE_PAUSE: Duration = Duration::from_secs(300);

/// What is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The operator has said that this node shall run the application.
    pub(super) word: bool,
    /// Not before this is the application moved for no more than a wish.
    move_at: Time,
}

impl Held {
    pub(super) fn new(now: Time) -> Held {
        Held { word: false, move_at: now }
    }
}

impl Mirror {
    pub(super) fn maintain(&mut self, length: Duration) {
        self.begin_maintenance(length);
        self.held.move_at = self.now;
    }

    /// Whether the application may come to run on another node without the operator.
    pub(super) fn moves_by_itself(&mut self) -> bool {
        match self.config.failover.mode {
            FailoverMode::Automatic => !self.is_paused(),
            FailoverMode::Manual => false,
        }
    }

    /// A waiting node that would take over, and may not. None when nothing is in its way.
    pub(super) fn waits_for_word(&mut self, peer: Option<&Report>) -> Option<bool> {
        let offered = peer.is_some_and(|peer| is_acting(peer) || peer.handover.is_some());
        let waits = peer.is_none() && self.in_contact();
        let first = self.record.epoch.is_none() || peer.is_some_and(|peer| peer.epoch.is_none());
        let own = self.record.holds_role || self.held.word;
        // Both are there and neither runs it: that is a start, and the better copy leads.
        let start = peer.is_some_and(|peer| peer.role == Role::Wait && !peer.leaving);
        if offered || waits || first || own || start || self.moves_by_itself() {
            return None;
        }
        let why = match self.config.failover.mode {
            FailoverMode::Manual => "as its `mode` is \"manual\"",
            FailoverMode::Automatic => "as that is paused",
        };
        let sentence = format!(
            "{} does not run the application, and {} takes over only on the operator's word, {why}",
            self.peer_name, self.me
        );
        Some(self.block("waits-for-operator", sentence))
    }

    /// The node follows: what was said of its running the application is over.
    pub(super) fn leave_to_source(&mut self) {
        self.held.word = false;
        self.held.move_at = self.now;
    }

    /// A pair that has just become protected is left alone for a while.
    pub(super) fn wait_before_moving(&mut self) {
        self.held.move_at = self.held.move_at.max(self.now + SETTLED);
    }

    /// The application is moved to where it belongs.
    pub(super) fn move_step(&mut self) -> bool {
        let maintained = self.is_maintained();
        let preferred = self.prefers_peer() && self.moves_by_itself();
        if !(maintained || preferred) || !self.is_at_rest() || !self.is_peer_able() {
            return false;
        }
        if !self.due(self.held.move_at) {
            return false;
        }
        self.held.move_at = self.now + MOVE_PAUSE;
        let (me, peer) = (&self.me, &self.peer_name);
        let sentence = if maintained {
            format!("{peer} is to run the application, as somebody works on {me}")
        } else {
            format!("{peer} is to run the application, as it is preferred")
        };
        self.info("moves", sentence);
        self.begin_hand_over(false);
        true
    }

    fn prefers_peer(&self) -> bool {
        self.config.failover.prefer.as_ref() == Some(&self.peer_name)
    }

    /// When what the operator wanted for a time counts as done: it is in force, and a node that is
    /// being worked on has got rid of the application, if it can.
    pub(super) fn held_outcome(&mut self, job: &mut Job) -> Option<Outcome> {
        if let Some(error) = &self.persist_error {
            return Some(Outcome::Failed(format!("the record cannot be written: {error}")));
        }
        let (me, peer) = (self.me.clone(), self.peer_name.clone());
        let module = self.module.clone();
        let sentence = match job.command {
            Command::Pause(length) => {
                format!("{me} answers no failure of {module} for {}", spoken(length))
            }
            Command::Maintain(length) => {
                let moving = matches!(self.state, State::HandOver { .. });
                job.begun |= moving;
                let moves = !job.begun && self.is_at_rest() && self.is_peer_able();
                let served = self.heard().as_deref().is_some_and(is_serving);
                let moved = job.begun && !self.is_acting_state();
                if moving || moves || (moved && !served) {
                    return None;
                }
                let length = spoken(length);
                if self.is_acting_state() {
                    format!(
                        "{me} is in maintenance for {length}, and goes on running {module}, as \
                         {peer} cannot take it"
                    )
                } else {
                    format!("{me} is in maintenance for {length}, and does not run {module}")
                }
            }
            Command::Resume => format!("{me} answers failures of {module} by itself"),
            Command::EndMaintenance => format!("{me} is not in maintenance"),
            Command::Start
            | Command::Stop
            | Command::StopAll
            | Command::Switchover
            | Command::ForcePrimary
            | Command::Discard => return None,
        };
        Some(Outcome::Done(sentence))
    }

    pub(super) fn held_reasons(&mut self, found: &mut Vec<(&'static str, Severity, String)>) {
        let (me, peer) = (self.me.clone(), self.peer_name.clone());
        if let Some(span) = self.record.paused.filter(|_| self.is_paused()) {
            let length = spoken(span.length);
            let sentence = format!("{me} answers no failure, for {length}: the operator's wish");
            found.push(("paused", Severity::Warning, sentence));
        }
        if let Some(span) = self.record.maintenance.filter(|_| self.is_maintained()) {
            let length = spoken(span.length);
            let sentence = if self.is_acting_state() {
                format!("{me} is in maintenance for {length}, but runs the application still")
            } else {
                format!("{me} is in maintenance for {length}: it takes over only if {peer} is lost")
            };
            found.push(("maintenance", Severity::Warning, sentence));
        }
        let maintained = self.peer.report.as_ref().is_some_and(|peer| peer.maintained);
        if maintained && self.is_acting_state() {
            let sentence = format!("{peer} is in maintenance: it takes over only if {me} is lost");
            found.push(("peer-maintained", Severity::Warning, sentence));
        }
        if self.prefers_peer() && self.is_acting_state() {
            let sentence =
                format!("{me} runs the application until {peer}, which is preferred, can take it");
            found.push(("not-preferred", Severity::Info, sentence));
        }
    }

    /// What to do about what is left to the operator.
    pub(super) fn held_steps(&self, code: &str) -> Vec<String> {
        let (module, me, peer) = (&self.module, &self.me, &self.peer_name);
        match code {
            "waits-for-operator" => vec![
                format!("bring {peer} back"),
                format!("to have {me} take over: evenkeel start {module} --node {me}"),
            ],
            "paused" => vec![format!("evenkeel resume {module}")],
            "maintenance" => vec![format!("evenkeel maintenance off {me}")],
            "peer-maintained" => vec![format!("evenkeel maintenance off {peer}")],
            _ => Vec::new(),
        }
    }
}
