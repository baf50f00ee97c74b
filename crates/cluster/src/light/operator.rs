//! What the operator asks for, and when it counts as done.
//!
//! A refusal changes nothing and says what to do instead.

use super::{Light, State};
use crate::application::{Base, Job, Stand, spoken};
use crate::effect::Outcome;
use crate::input::{Command, JobId};

impl Light {
    pub(super) fn command(&mut self, id: JobId, command: Command) {
        if let Some((why, next)) = self.refusal(command) {
            self.base.answer(id, Outcome::Refused { why, next: vec![next] });
            return;
        }
        self.base.jobs.push(Job { id, command, since: self.base.now, begun: false });
        match command {
            Command::Start => self.base.operator_wants(true),
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

    fn begin_stop(&mut self) {
        self.base.operator_wants(false);
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
        if let Command::Maintain(length) = job.command
            && self.base.persist_error.is_none()
        {
            return Some(Outcome::Done(format!(
                "{} is in maintenance for {}; what it runs of {} goes on, as that runs on each \
                 node by itself",
                self.base.me,
                spoken(length),
                self.base.module
            )));
        }
        let (up, stopped) = (self.state == State::Up, self.state == State::Stop);
        let stand = Stand { up, stopped, shown: self.role() };
        self.base.outcome(job, stand, Base::next_steps)
    }
}
