//! What the operator asks for, and when it counts as done.
//!
//! A refusal changes nothing and says what to do instead.

use std::time::Duration;

use model::{Copy, Phase, Role};

use super::facts::{Standing, is_acting};
use super::{Mirror, State};
use crate::application::Job;
use crate::effect::Outcome;
use crate::input::{Command, JobId};
use crate::record::StoredCopy;

/// How long a start may be blocked by something that may pass before it is answered as refused.
const PATIENCE: Duration = Duration::from_secs(10);

impl Mirror {
    pub(crate) fn command(&mut self, id: JobId, command: Command) {
        let refusal = match command {
            Command::Start => self.refuse_start(),
            Command::Stop | Command::StopAll => None,
            Command::Switchover => self.refuse_switchover(),
            Command::ForcePrimary => self.refuse_force(),
            Command::Discard => self.refuse_discard(),
            Command::Pause(_)
            | Command::Resume
            | Command::Maintain(_)
            | Command::EndMaintenance => None,
        };
        if let Some((why, next)) = refusal {
            self.answer(id, Outcome::Refused { why, next: vec![next] });
            return;
        }
        let since = self.now;
        self.jobs.push(Job { id, command, since, begun: false });
        match command {
            Command::Start => self.begin_start(),
            Command::Stop | Command::StopAll => {
                self.forget_failures();
                if !matches!(self.state, State::Stop | State::Quit { .. }) {
                    self.begin_stop(command == Command::StopAll);
                } else if self.record.started {
                    self.persist(|record| record.started = false);
                }
            }
            Command::Switchover => {
                if self.state == State::Serve {
                    self.begin_hand_over(false);
                }
            }
            Command::ForcePrimary => self.force(),
            Command::Discard => self.discard(),
            Command::Pause(length) => self.pause(length),
            Command::Resume => self.end_pause(),
            Command::Maintain(length) => self.maintain(length),
            Command::EndMaintenance => self.end_maintenance(),
        }
    }

    pub(super) fn begin_start(&mut self) {
        let unwritten = self.persist_error.take().is_some();
        self.rewritten = false;
        self.copy_failed = None;
        self.failed_following = false;
        self.replicator.copy_failed = None;
        self.leaving = false;
        // Who starts it where it waits for the operator's word gives that word.
        self.held.word |= !self.is_acting_state() && !matches!(self.state, State::Follow { .. });
        self.forget_failures();
        self.retry.failures = 0;
        self.retry.at = self.now;
        if !self.record.started || unwritten {
            // What failed to be written may be on the disk all the same.
            self.persist(|record| record.started = true);
        }
        if self.state == State::Stop {
            self.go(State::Wait);
        }
    }

    fn refuse_start(&mut self) -> Option<(String, String)> {
        let keys = self.config_differences();
        if self.state == State::Stop && self.is_heard() && !keys.is_empty() {
            return Some((
                format!(
                    "the configuration differs between {} and {} in: {}",
                    self.me,
                    self.peer_name,
                    keys.join(", ")
                ),
                "make the files equal on both nodes, then start again".to_owned(),
            ));
        }
        if let (State::Stop, Some(why)) = (&self.state, &self.fault) {
            return Some((why.clone(), self.next_steps("data-missing").join("; ")));
        }
        None
    }

    fn refuse_switchover(&mut self) -> Option<(String, String)> {
        let status = "evenkeel status".to_owned();
        let peer_serves = self.heard().is_some_and(|peer| is_acting(&peer));
        if self.state != State::Serve {
            return Some(if peer_serves {
                let next = format!("ask {}: evenkeel switchover {}", self.peer_name, self.module);
                (format!("{} is not the primary", self.me), next)
            } else {
                (format!("{} does not run the application", self.me), status)
            });
        }
        if !self.is_protected() || self.undecided_since.is_some() || !self.in_contact() {
            let why = format!("{} is not up to date: it may not take over", self.peer_name);
            return Some((why, format!("evenkeel why {}", self.module)));
        }
        None
    }

    fn refuse_force(&mut self) -> Option<(String, String)> {
        let why = format!("evenkeel why {}", self.module);
        if let Some(fault) = &self.fault {
            return Some((fault.clone(), why));
        }
        if self.is_undecided() {
            return None;
        }
        if self.is_acting_state() {
            return Some((format!("{} is primary already", self.me), why));
        }
        if self.record.copy == StoredCopy::Inconsistent {
            let text = format!("a resync of {} did not finish: its data are a mixture", self.me);
            return Some((text, why));
        }
        let peer = self.heard();
        if let Some(peer) = &peer
            && is_acting(peer)
            && self.standing(peer) != Standing::Split
        {
            return Some((format!("{} runs the application", self.peer_name), why));
        }
        if !matches!(self.state, State::Wait | State::Ask { .. } | State::Stop) {
            return Some((format!("{} is in the middle of a change", self.me), why));
        }
        None
    }

    /// Whether this node runs the application but cannot tell whether it may go on.
    fn is_undecided(&self) -> bool {
        self.state == State::Serve && self.undecided_since.is_some()
    }

    /// The operator vouches that the other side is dead, or chooses this one.
    fn force(&mut self) {
        let given_up = self.given_up();
        let sentence = format!("{} becomes primary on the operator's word: {given_up}", self.me);
        self.warn("forced", sentence);
        self.given_up = Some(given_up);
        // Before anything follows from it: no effect may stand between two records of one decision.
        self.persist(|record| record.forced = true);
        if self.is_undecided() {
            let epoch = self.next_epoch(false);
            self.go_on(epoch, false, "the operator vouches that the peer is dead");
            return;
        }
        self.begin_start();
        self.go(State::Wait);
        if self.record.epoch.is_none() {
            self.create("the operator chose");
            return;
        }
        let epoch = self.next_epoch(false);
        self.adopt(epoch, false);
        self.open();
    }

    /// What nobody has any more once this node leads with the copy that it has.
    fn given_up(&self) -> String {
        let (me, peer) = (&self.me, &self.peer_name);
        let Some(epoch) = &self.record.epoch else {
            return format!("what {peer} may hold of the module's data is given up");
        };
        match self.copy() {
            Copy::Intact if self.names_peer() => {
                format!("what {peer} has acknowledged since {me} heard it last is given up, if any")
            }
            Copy::Intact => {
                format!(
                    "{peer} was left behind, and only what it was forced to go on with is given up"
                )
            }
            Copy::Crashed => format!(
                "what {me} had not on its disk as it went down is given up, and what {peer} has \
                 acknowledged since"
            ),
            Copy::None | Copy::Outdated | Copy::Inconsistent => format!(
                "the copy of {me} fell behind in epoch {}, and all that was acknowledged since is \
                 given up",
                epoch.number
            ),
        }
    }

    pub(crate) fn finish_jobs(&mut self) {
        for mut job in std::mem::take(&mut self.jobs) {
            match self.outcome(&mut job) {
                Some(outcome) => self.answer(job.id, outcome),
                None => self.jobs.push(job),
            }
        }
    }

    fn outcome(&mut self, job: &mut Job) -> Option<Outcome> {
        let (role, phase) = self.role();
        let ready = phase == Phase::Ready;
        match job.command {
            Command::Start | Command::ForcePrimary | Command::Discard => {
                if ready && matches!(role, Role::Prim | Role::Alone | Role::Second) {
                    let forced = (job.command == Command::ForcePrimary).then_some(&self.given_up);
                    let given_up = forced.and_then(Option::as_ref);
                    let given_up = given_up.map(|what| format!(": {what}")).unwrap_or_default();
                    return Some(Outcome::Done(format!("{} is {role}{given_up}", self.me)));
                }
                if !self.record.started {
                    if let Some(error) = &self.persist_error {
                        let text = format!("the record cannot be written: {error}");
                        return Some(Outcome::Failed(text));
                    }
                    return Some(Outcome::Failed(format!("{} was stopped", self.me)));
                }
                if let (State::Serve, Some(error)) = (&self.state, self.start_failure()) {
                    return Some(Outcome::Failed(format!("it did not start: {error}")));
                }
                self.blocked_outcome(job)
            }
            Command::Stop | Command::StopAll => {
                if self.state == State::Stop {
                    return Some(Outcome::Done(format!("{} is stopped", self.me)));
                }
                self.record.started.then(|| Outcome::Failed("it was started again".to_owned()))
            }
            Command::Switchover => {
                job.begun |= self.state != State::Serve;
                let peer = self.heard();
                if peer.as_deref().is_some_and(super::facts::is_serving) && !self.is_acting_state()
                {
                    return Some(Outcome::Done(format!("{} is primary", self.peer_name)));
                }
                let back = job.begun && self.state == State::Serve;
                let text = format!(
                    "{} could not take over; {} runs the application",
                    self.peer_name, self.me
                );
                back.then_some(Outcome::Failed(text))
            }
            Command::Pause(_)
            | Command::Resume
            | Command::Maintain(_)
            | Command::EndMaintenance => self.held_outcome(job),
        }
    }

    fn blocked_outcome(&mut self, job: &Job) -> Option<Outcome> {
        let block = self.block.clone()?;
        let passes = block.code == "prepares-copy" || self.claim.is_some();
        if passes || !matches!(self.state, State::Wait | State::Ask { .. }) {
            return None;
        }
        let lasting = matches!(
            block.code.as_ref(),
            "config-differs"
                | "data-missing"
                | "split-brain"
                | "first-start-choice"
                | "different-data"
                | "record-failed"
                | "peer-lacks-module"
        );
        if lasting || self.due(job.since + PATIENCE) {
            let next = self.next_steps(&block.code);
            return Some(Outcome::Refused { why: block.sentence, next });
        }
        None
    }

    /// Whether the copy is known to hold everything acknowledged.
    pub(crate) fn is_up_to_date(&self) -> bool {
        let joined = match &self.state {
            State::Follow { step, .. } => step.is_done(),
            State::Stop
            | State::Wait
            | State::Ask { .. }
            | State::Fence { .. }
            | State::Promote(_)
            | State::Serve
            | State::HandOver { .. }
            | State::Lose
            | State::Settle
            | State::Quit { .. } => true,
        };
        joined && self.copy() == Copy::Intact
    }
}
