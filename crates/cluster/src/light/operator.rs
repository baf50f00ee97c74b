//! What the operator asks for, and when it counts as done.
//!
//! A refusal changes nothing and says what to do instead.

use std::time::Duration;

use model::Phase;

use super::{Light, State};
use crate::application::{Job, spoken};
use crate::effect::Outcome;
use crate::input::{Command, JobId};

/// How long a start may be blocked by something that may pass before it is answered as refused.
const PATIENCE: Duration = Duration::from_secs(10);

impl Light {
    pub(super) fn command(&mut self, id: JobId, command: Command) {
        if let Some((why, next)) = self.refusal(command) {
            self.base.answer(id, Outcome::Refused { why, next: vec![next] });
            return;
        }
        self.base.jobs.push(Job { id, command, since: self.base.now, begun: false });
        match command {
            Command::Start => self.begin_start(),
            Command::Stop | Command::StopAll => self.begin_stop(),
            Command::Pause(length) => self.base.pause(length),
            Command::Resume => self.base.end_pause(),
            Command::Maintain(length) => self.base.begin_maintenance(length),
            Command::EndMaintenance => self.base.end_maintenance(),
            Command::Switchover | Command::ForcePrimary | Command::Discard => {}
        }
    }

    fn refusal(&self, command: Command) -> Option<(String, String)> {
        let module = &self.base.module;
        let what = match command {
            Command::Switchover => "there is no node to hand it to",
            Command::ForcePrimary => "it has no primary",
            Command::Discard => "it has no copies",
            Command::Start
            | Command::Stop
            | Command::StopAll
            | Command::Pause(_)
            | Command::Resume
            | Command::Maintain(_)
            | Command::EndMaintenance => return None,
        };
        let why = format!("{module} is a light module, which each node runs by itself: {what}");
        Some((why, format!("evenkeel start {module} or evenkeel stop {module}")))
    }

    fn begin_start(&mut self) {
        self.base.persist_error = None;
        self.base.rewritten = false;
        self.base.forget_failures();
        if !self.base.record.started {
            self.base.persist(|record| record.started = true);
        }
    }

    fn begin_stop(&mut self) {
        self.base.persist_error = None;
        self.base.rewritten = false;
        self.base.forget_failures();
        if self.base.record.started {
            self.base.persist(|record| record.started = false);
        }
        match self.state {
            State::Take(_) | State::Up => {
                let sentence = format!("{} stops the application", self.base.me);
                self.base.info("stops", sentence);
                self.leave();
            }
            // What is being given up stays so, as it is not meant to run any more.
            State::Stop | State::Wait | State::Leave(_) => {}
        }
    }

    pub(super) fn finish_jobs(&mut self) {
        for job in std::mem::take(&mut self.base.jobs) {
            match self.outcome(&job) {
                Some(outcome) => self.base.answer(job.id, outcome),
                None => self.base.jobs.push(job),
            }
        }
    }

    fn outcome(&mut self, job: &Job) -> Option<Outcome> {
        if let Some(error) = &self.base.persist_error {
            return Some(Outcome::Failed(format!("the record cannot be written: {error}")));
        }
        let (me, module) = (self.base.me.clone(), self.base.module.clone());
        let done = match job.command {
            Command::Start => return self.start_outcome(job),
            Command::Stop | Command::StopAll => {
                if self.base.record.started {
                    return Some(Outcome::Failed("it was started again".to_owned()));
                }
                if self.state != State::Stop {
                    return None;
                }
                format!("{me} is stopped")
            }
            Command::Pause(length) => {
                format!("{me} answers no failure of {module} for {}", spoken(length))
            }
            Command::Resume => format!("{me} answers failures of {module} by itself"),
            Command::Maintain(length) => format!(
                "{me} is in maintenance for {}; what it runs of {module} goes on, as that runs on \
                 each node by itself",
                spoken(length)
            ),
            Command::EndMaintenance => format!("{me} is not in maintenance"),
            Command::Switchover | Command::ForcePrimary | Command::Discard => return None,
        };
        Some(Outcome::Done(done))
    }

    fn start_outcome(&mut self, job: &Job) -> Option<Outcome> {
        let (role, phase) = self.role();
        if !self.base.record.started {
            return Some(Outcome::Failed(format!("{} was stopped", self.base.me)));
        }
        if let (State::Up, Some(error)) = (self.state, self.base.start_failure()) {
            return Some(Outcome::Failed(format!("it did not start: {error}")));
        }
        if self.state == State::Up && phase == Phase::Ready {
            return Some(Outcome::Done(format!("{} is {role}", self.base.me)));
        }
        let block = self.base.block.clone()?;
        if !self.base.due(job.since + PATIENCE) {
            return None;
        }
        let next = self.next_steps(&block.code);
        Some(Outcome::Refused { why: block.sentence, next })
    }
}
