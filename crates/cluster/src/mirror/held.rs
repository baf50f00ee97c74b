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
//! better copy leads: that is no failover. What
//! ends by itself goes by the clock on the wall, as it was when the daemon started, for it has to
//! outlast a boot.

use std::time::Duration;

use model::config::FailoverMode;
use model::{Role, Severity, Time};
use serde::{Deserialize, Serialize};

use super::facts::{is_acting, is_serving};
use super::recover::spoken;
use super::{Job, Mirror, State};
use crate::effect::Outcome;
use crate::input::{Boot, Command};
use crate::record::Span;
use crate::report::Report;

/// How long a pair has been protected before the application is moved for no more than a wish.
const SETTLED: Duration = Duration::from_secs(10);
/// Pause between two such moves, of which the first did not come about.
const MOVE_PAUSE: Duration = Duration::from_secs(300);

/// What is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// When the daemon started: on its own clock and on the wall.
    began: (Time, Duration),
    /// The operator has said that this node shall run the application.
    pub(super) word: bool,
    /// Not before this is the application moved for no more than a wish.
    move_at: Time,
}

impl Held {
    pub(super) fn new(now: Time, boot: &Boot) -> Held {
        Held { began: (now, boot.wall), word: false, move_at: now }
    }

    /// When this node's own clock shows the end of a span.
    fn end(&self, span: Span) -> Time {
        let (now, wall) = self.began;
        now + span.end.saturating_sub(wall)
    }
}

impl Mirror {
    /// What ends by itself has ended. That is not worth a write of its own, which could fail and
    /// end the application with it: on the disk it has ended as well.
    pub(super) fn end_spans(&mut self) -> bool {
        let ends = [self.record.paused, self.record.maintenance];
        let over = ends.map(|span| span.is_some_and(|span| self.due(self.held.end(span))));
        if over[0] {
            self.record.paused = None;
            self.tell_resumed();
        }
        if over[1] {
            self.record.maintenance = None;
            self.tell_maintained();
        }
        over.contains(&true)
    }

    pub(super) fn pause(&mut self, length: Duration) {
        let span = self.span(length);
        self.persist(|record| record.paused = Some(span));
        let sentence = format!(
            "failures of {} are not answered by {} for {}",
            self.module,
            self.me,
            spoken(length)
        );
        self.info("pauses", sentence);
    }

    pub(super) fn end_pause(&mut self) {
        if self.record.paused.is_some() {
            self.persist(|record| record.paused = None);
            self.tell_resumed();
        }
    }

    fn tell_resumed(&mut self) {
        self.info("resumes", format!("{} answers failures by itself again", self.me));
    }

    pub(super) fn begin_maintenance(&mut self, length: Duration) {
        let span = self.span(length);
        self.persist(|record| record.maintenance = Some(span));
        self.held.move_at = self.now;
        self.info(
            "maintenance-begins",
            format!("{} is being worked on for {}", self.me, spoken(length)),
        );
    }

    pub(super) fn end_maintenance(&mut self) {
        if self.record.maintenance.is_some() {
            self.persist(|record| record.maintenance = None);
            self.tell_maintained();
        }
    }

    fn tell_maintained(&mut self) {
        self.info("maintenance-ends", format!("nobody works on {} any more", self.me));
    }

    fn span(&self, length: Duration) -> Span {
        Span { end: self.wall(self.now) + length, length }
    }

    /// What the clock on the wall shows, as far as this daemon knows.
    pub(crate) fn wall(&self, now: Time) -> Duration {
        let (began, wall) = self.held.began;
        wall + now.since(began)
    }

    /// Whether failures are to be left to the operator; the node is woken when that ends.
    pub(super) fn is_paused(&mut self) -> bool {
        let end = self.record.paused.map(|span| self.held.end(span));
        end.is_some_and(|end| !self.due(end))
    }

    pub(super) fn is_maintained(&self) -> bool {
        self.record.maintenance.is_some_and(|span| self.now < self.held.end(span))
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

    /// How long what ends by itself goes on.
    pub(super) fn span_says(&self, code: &str) -> Vec<String> {
        let span = match code {
            "paused" => self.record.paused,
            "maintenance" => self.record.maintenance,
            _ => None,
        };
        let left = span.map(|span| self.held.end(span).since(self.now));
        let minutes = |left: Duration| left.as_secs().div_ceil(60) * 60;
        left.map(|left| format!("it ends in {}", spoken(Duration::from_secs(minutes(left)))))
            .into_iter()
            .collect()
    }
}
