//! What the operator asks for, and when it counts as done.
//!
//! A refusal changes nothing and says what to do instead.

use std::time::Duration;

use super::view::next_steps;
use super::{Farming, State};
use crate::application::{Job, PATIENCE, Stand, spoken};
use crate::effect::Outcome;
use crate::input::{Command, JobId};

impl Farming {
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
            Command::Switchover => "nothing is to be handed over",
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
        let why = format!("{module} is a farm, which every node serves: {what}");
        Some((
            why,
            format!("to free this node of clients: evenkeel maintenance on {}", self.base.me),
        ))
    }

    fn begin_stop(&mut self) {
        self.base.operator_wants(false);
        match self.state {
            State::Take(_) | State::Up => {
                let sentence =
                    format!("{} leaves the farm: others serve its clients", self.base.me);
                self.base.info("farm-leaves", sentence);
                self.leave();
            }
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
            return self.maintain_outcome(job, length);
        }
        let (up, stopped) = (self.state == State::Up, self.state == State::Stop);
        let stand = Stand { up, stopped, shown: self.role() };
        self.base.outcome(job, stand, next_steps)
    }

    /// Maintenance is in force once the clients are with others, as far as others can take them.
    fn maintain_outcome(&mut self, job: &Job, length: Duration) -> Option<Outcome> {
        let (me, module) = (&self.base.me, &self.base.module);
        let length = spoken(length);
        let told = format!("{me} is in maintenance for {length}");
        if self.state != State::Up {
            return Some(Outcome::Done(format!("{told}, and does not run {module}")));
        }
        if self.farm.count() == 0 && self.farm.is_followed() {
            return Some(Outcome::Done(format!("{told}, and serves no new clients of {module}")));
        }
        let until = job.since + PATIENCE;
        self.base.due(until).then(|| {
            let (me, module) = (&self.base.me, &self.base.module);
            let what = "goes on serving clients of";
            Outcome::Done(format!("{told}; {me} {what} {module}, as nobody else can"))
        })
    }
}
