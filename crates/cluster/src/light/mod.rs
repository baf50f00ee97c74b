//! The light module: an application on one node, with nothing to replicate and no peer.
//!
//! ```text
//!          start             address, application
//!   STOP --------> WAIT -------------------------> UP
//!    ^              ^  check is up                 |
//!    |              +---------- leave <------------+ check to wait for is down
//!    +------------------------- leave <------------+ stop, or restarts used up
//! ```
//!
//! Each node that its configuration names runs it by itself and does not ask another one: nothing
//! of it is in heartbeats, no witness knows it, and a failover has nowhere to go. How applications
//! are started, checked and restarted is in `application`.
//!
//! A record that cannot be written loses no data here, so nothing is let go of for it: what was
//! decided together with it counts as undone, and no failure is answered until it can be written.

mod operator;
mod view;

use model::Time;
use serde::{Deserialize, Serialize};

use crate::application::{Answered, Base};
use crate::effect::{Effect, ServiceAction};
use crate::input::{Boot, BootModule, Input, Running};

/// Rounds of `step` after one input; more would be a loop of decisions undoing each other.
const ROUNDS_MAX: usize = 16;

/// What the node is doing for the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Not started.
    Stop,
    /// Is to run the application, and perhaps cannot.
    Wait,
    /// Takes up what belongs to the application.
    Take(Step),
    /// Runs the application.
    Up,
    /// Gives up what belongs to the application.
    Leave(Step),
}

/// Steps of taking up and giving up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Address,
    Service,
}

/// One light module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Light {
    base: Base,
    state: State,
    /// What it was before the newest decision that is to be recorded.
    before: State,
}

impl Light {
    pub(crate) fn new(now: Time, boot: &Boot, module: &BootModule) -> Light {
        let base = Base::new(now, boot, module);
        let state = if module.record.started { State::Wait } else { State::Stop };
        Light { base, state, before: state }
    }

    /// Applies `change` to the facts and decides until nothing is left to do.
    pub(crate) fn run(&mut self, now: Time, change: impl FnOnce(&mut Light)) -> Vec<Effect> {
        self.base.begin(now);
        let before = self.state;
        change(self);
        for _ in 0..ROUNDS_MAX {
            if !self.step() {
                break;
            }
        }
        if self.base.persisted {
            self.before = before;
        }
        let runs = self.state == State::Up && self.base.is_at_rest();
        self.base.run_checks(runs);
        self.base.retry_addresses();
        self.finish_jobs();
        self.update_reasons();
        std::mem::take(&mut self.base.effects)
    }

    /// Picks up what an earlier daemon of this boot left running.
    pub(crate) fn resume(&mut self, running: Option<&Running>) {
        let Some(running) = running else { return };
        self.base.front.addresses = running.addresses;
        self.base.front.running = running.service;
        if !self.base.record.started {
            if running.addresses || running.service {
                self.leave();
            }
        } else if running.service {
            self.state = State::Up;
            let sentence = format!("{} goes on running the application", self.base.me);
            self.base.info("carries-on", sentence);
            if !running.addresses {
                self.base.set_addresses(true);
            }
        }
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    pub(crate) fn begin_batch(&mut self) {
        self.base.begin_batch();
    }

    /// Takes an input in as a fact.
    pub(crate) fn take_in(&mut self, input: Input) {
        match input {
            Input::AddressesSet { held, error, .. } => self.base.addresses_set(held, error),
            Input::ServiceDone { action, error, .. } => self.base.service_done(action, error),
            Input::CheckResult { serial, check, up, evidence, .. } => {
                self.base.hear_check(serial, check, up, evidence);
            }
            Input::PersistFailed { error, .. } => self.persist_failed(error),
            Input::Operator { job, command, .. } => self.command(job, command),
            // There is no peer, no witness and no replicator.
            Input::Heartbeat { .. }
            | Input::DataLink { .. }
            | Input::Witness { .. }
            | Input::WitnessUnreachable { .. }
            | Input::Replicator { .. }
            | Input::ResyncPrepared { .. }
            | Input::HeldOff { .. }
            | Input::Pulse { .. }
            | Input::SharesSet { .. }
            | Input::Reach(_)
            | Input::Unread { .. }
            | Input::Tick => {}
        }
    }

    /// One decision. Returns whether anything changed, so that it is worth looking again.
    fn step(&mut self) -> bool {
        if self.base.end_spans() || self.base.retry_record() {
            return true;
        }
        match self.state {
            State::Stop if self.base.record.started => self.go(State::Wait),
            State::Stop => false,
            State::Wait => self.wait_step(),
            State::Take(step) => self.take_step(step),
            State::Up => match self.base.restart_step() {
                Some(changed) => changed,
                None => match self.base.answer_failure() {
                    Answered::Nothing => false,
                    Answered::Restarts => true,
                    Answered::GivesUp => self.leave(),
                },
            },
            State::Leave(step) => self.leave_step(step),
        }
    }

    fn go(&mut self, state: State) -> bool {
        self.state = state;
        self.base.block = None;
        self.base.leave_recovery();
        true
    }

    fn wait_step(&mut self) -> bool {
        if !self.base.record.started {
            return self.go(State::Stop);
        }
        if self.base.blocked_by_check() {
            return false;
        }
        self.base.set_addresses(true);
        self.go(State::Take(Step::Address))
    }

    fn take_step(&mut self, step: Step) -> bool {
        match step {
            Step::Address => {
                if self.base.front.addresses_busy {
                    return false;
                }
                self.base.start_service();
                self.go(State::Take(Step::Service))
            }
            Step::Service => {
                if self.base.front.busy.is_some() {
                    return false;
                }
                if self.base.start_failure().is_none() {
                    let sentence = format!("{} runs the application", self.base.me);
                    self.base.info("serves", sentence);
                }
                self.go(State::Up)
            }
        }
    }

    /// The application is stopped, and started again only if it is meant to run.
    fn leave(&mut self) -> bool {
        self.base.set_addresses(false);
        self.go(State::Leave(Step::Address))
    }

    fn leave_step(&mut self, step: Step) -> bool {
        match step {
            Step::Address => {
                if self.base.front.addresses_busy {
                    return false;
                }
                self.base.run_service(ServiceAction::Stop);
                self.go(State::Leave(Step::Service))
            }
            Step::Service => {
                if self.base.front.busy.is_some() {
                    return false;
                }
                if self.base.record.started {
                    return self.go(State::Wait);
                }
                let sentence = format!("{} is stopped", self.base.me);
                self.base.info("stopped", sentence);
                self.go(State::Stop)
            }
        }
    }

    /// All of the batch counts as undone.
    fn persist_failed(&mut self, error: String) {
        self.base.record_failed(error);
        self.state = self.before;
    }
}
