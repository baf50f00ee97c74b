//! A module that is a farm, on one node: the application and the node's part in the farm.
//!
//! ```text
//!          start        filter, application               serves
//!   STOP --------> WAIT --------------------> takes up --------> UP
//!    ^              ^                                             |
//!    |              +------- drain, application, filter <---------+ check to wait for is down
//!    +---------------------- drain, application, filter <---------+ stop, or restarts used up
//! ```
//!
//! Who serves whom is decided in `farm`; whether this node may serve at all is decided here, by its
//! application: while that is down or being restarted the node stands by, and others serve its
//! clients. How applications are started, checked and restarted is in `application`.

mod operator;
mod view;

#[cfg(test)]
mod tests;

use std::time::Duration;

use model::{Severity, Time};
use serde::{Deserialize, Serialize};

use crate::application::{Answered, Base};
use crate::effect::{Effect, ServiceAction};
use crate::farm::{Farm, Part, Pulse, Settings, Told, Wish};
use crate::input::{Boot, BootModule, Input, Running};

/// Rounds of `step` after one input; more would be a loop of decisions undoing each other.
const ROUNDS_MAX: usize = 16;
/// How long a node that stops waits until its clients are with others.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long it serves on where a balancer sends the clients, which has to ask first.
const BALANCER_DRAIN: Duration = Duration::from_secs(15);
/// Pause before the filter is put up again, or told again what it could not be told.
const RETRY: Duration = Duration::from_secs(5);

/// What the node is doing for the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Not started.
    Stop,
    /// Is to serve, and perhaps cannot.
    Wait,
    /// Takes up what belongs to serving.
    Take(Take),
    /// Runs the application.
    Up,
    /// Gives up what belongs to serving.
    Leave(Leave),
}

/// Steps of taking up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Take {
    /// The filter is put up, with the addresses.
    Filter,
    Service,
}

/// Steps of giving up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Leave {
    /// The clients go to others.
    Drain {
        since: Time,
    },
    Service,
    /// The kernel serves nobody any more.
    Out {
        since: Time,
    },
    /// The filter is taken away, with the addresses.
    Filter,
}

/// One farm module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Farming {
    base: Base,
    farm: Farm,
    state: State,
    /// What it was before the newest decision that is to be recorded, and whether it was proving.
    before: (State, bool),
    /// Why the kernel does not go by the shares, and when to try again.
    filter_failed: Option<(String, Time)>,
    /// The application was started, and its checks have not all been up since: it has no clients.
    proving: bool,
    /// It was not started: this daemon has found it running. Until its checks have been up it keeps
    /// the connections that it has, and gets no others as long as anybody else may have them.
    #[serde(default)]
    resumed: bool,
}

impl Farming {
    /// A farm module when a daemon starts; none if this node has no part in it.
    pub(crate) fn new(now: Time, boot: &Boot, module: &BootModule) -> Option<Farming> {
        let settings = Settings::of(&module.config, &boot.name)?;
        let left = module.running.as_ref().and_then(|running| running.farm.as_deref().cloned());
        let alive = (boot.boot, now.as_nanos().max(1));
        let state = if module.record.started { State::Wait } else { State::Stop };
        Some(Farming {
            base: Base::new(now, boot, module),
            farm: Farm::new(now, settings, alive, left),
            state,
            before: (state, false),
            filter_failed: None,
            proving: false,
            resumed: false,
        })
    }

    /// Applies `change` to the facts and decides until nothing is left to do.
    pub(crate) fn run(&mut self, now: Time, change: impl FnOnce(&mut Farming)) -> Vec<Effect> {
        self.base.begin(now);
        let before = (self.state, self.proving);
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
        self.proving &= !runs || self.base.awaits_checks();
        self.take_part();
        self.try_filter_again();
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
        } else if running.service && running.addresses {
            self.state = State::Up;
            // One that had no clients has to show anew that it may have some.
            self.proving = self.farm.count() == 0;
            self.resumed = true;
            let sentence = format!("{} goes on running the application", self.base.me);
            self.base.info("carries-on", sentence);
        }
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    pub(crate) fn farm(&self) -> &Farm {
        &self.farm
    }

    pub(crate) fn begin_batch(&mut self) {
        self.base.begin_batch();
    }

    pub(crate) fn wake(&self) -> Option<Time> {
        self.base.wake().into_iter().chain(self.farm.deadline()).min()
    }

    /// Decides what was put off until now.
    pub(crate) fn wake_up(&mut self, now: Time) -> Vec<Effect> {
        if self.wake().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.run(now, |farming| {
            let wishes = farming.farm.tick(now);
            farming.wish(wishes);
        })
    }

    /// A pulse was received, and something else follows at once.
    pub(crate) fn note(&mut self, received: Time, pulse: Pulse) {
        self.farm.note(received, pulse);
    }

    /// Takes an input in as a fact.
    pub(crate) fn take_in(&mut self, now: Time, input: Input) {
        match input {
            Input::Pulse { received, pulse, .. } => {
                let wishes = self.farm.hear(now, received, *pulse);
                self.wish(wishes);
            }
            Input::SharesSet { edition, error, .. } => self.shares_set(now, edition, error),
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
            | Input::Reach(_)
            | Input::Unread { .. }
            | Input::Tick => {}
        }
    }

    fn shares_set(&mut self, now: Time, edition: u64, error: Option<String>) {
        match error {
            None => {
                self.filter_failed = None;
                let wishes = self.farm.shares_set(now, edition);
                self.wish(wishes);
            }
            Some(error) if edition == self.farm.shares().edition => {
                if self.filter_failed.is_none() {
                    let sentence = format!("the kernel does not take the shares: {error}");
                    self.base.explain(Severity::Critical, "farm-filter-failed", sentence);
                }
                self.filter_failed = Some((error, self.base.now + RETRY));
            }
            Some(_) => {}
        }
    }

    /// What the kernel did not take is told once more.
    fn try_filter_again(&mut self) {
        let Some((_, at)) = self.filter_failed.clone() else { return };
        if self.base.due(at) {
            self.filter_failed = self.filter_failed.take().map(|(why, at)| (why, at + RETRY));
            let (module, shares) = (self.base.module.clone(), self.farm.shares().clone());
            self.base.effects.push(Effect::SetShares { module, shares: Box::new(shares) });
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
                Some(changed) => {
                    (self.proving, self.resumed) = (true, false);
                    changed
                }
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
        self.go(State::Take(Take::Filter))
    }

    fn take_step(&mut self, step: Take) -> bool {
        match step {
            Take::Filter if self.base.front.addresses_busy => false,
            // It is tried again.
            Take::Filter if self.base.front.address_error.is_some() => false,
            Take::Filter => {
                self.base.start_service();
                self.go(State::Take(Take::Service))
            }
            Take::Service if self.base.front.busy.is_some() => false,
            Take::Service => {
                (self.proving, self.resumed) = (true, false);
                if self.base.start_failure().is_none() {
                    let sentence = format!("{} runs the application", self.base.me);
                    self.base.info("serves", sentence);
                }
                self.go(State::Up)
            }
        }
    }

    /// The clients go to others first, unless there is nothing left that could serve them; then the
    /// application is stopped.
    fn leave(&mut self) -> bool {
        if self.base.failure().is_some() {
            self.base.run_service(ServiceAction::Stop);
            return self.go(State::Leave(Leave::Service));
        }
        let since = self.base.now;
        self.go(State::Leave(Leave::Drain { since }))
    }

    fn leave_step(&mut self, step: Leave) -> bool {
        match step {
            Leave::Drain { since } => {
                if !self.is_drained(since) {
                    return false;
                }
                self.base.run_service(ServiceAction::Stop);
                self.go(State::Leave(Leave::Service))
            }
            Leave::Service if self.base.front.busy.is_some() => false,
            Leave::Service => {
                let since = self.base.now;
                self.go(State::Leave(Leave::Out { since }))
            }
            // What the kernel is not told goes away with the filter.
            Leave::Out { since } if !self.farm.is_out() && !self.base.due(since + DRAIN_MAX) => {
                false
            }
            Leave::Out { .. } => {
                self.base.set_addresses(false);
                self.go(State::Leave(Leave::Filter))
            }
            Leave::Filter if self.base.front.addresses_busy => false,
            Leave::Filter if self.base.record.started => self.go(State::Wait),
            Leave::Filter => {
                let sentence = format!("{} is stopped", self.base.me);
                self.base.info("stopped", sentence);
                self.go(State::Stop)
            }
        }
    }

    /// Whether nobody sends clients here any more, or long enough was waited for that.
    fn is_drained(&mut self, since: Time) -> bool {
        if self.base.start_failure().is_some() {
            return true;
        }
        if self.base.config.vips.is_empty() {
            return !self.farm.has_another_fit() || self.base.due(since + BALANCER_DRAIN);
        }
        let drained = self.farm.part() == Part::Draining && self.farm.is_drained();
        drained || self.base.due(since + DRAIN_MAX)
    }

    /// All of the batch counts as undone. What the farm wished in it is wished once more, as it may
    /// not have been done.
    fn persist_failed(&mut self, error: String) {
        self.base.record_failed(error);
        (self.state, self.proving) = self.before;
        let wishes = self.farm.wish_again();
        self.wish(wishes);
    }

    /// Tells the farm what this node takes part in.
    fn take_part(&mut self) {
        let part = self.part();
        if part != self.farm.part() {
            let wishes = self.farm.set_part(self.base.now, part);
            self.wish(wishes);
            // What it waits for may be so at once.
            self.step();
        }
    }

    fn part(&mut self) -> Part {
        let able = self.is_able();
        match self.state {
            State::Stop | State::Wait | State::Take(Take::Filter) => Part::Out,
            State::Take(Take::Service) | State::Leave(Leave::Service) => Part::Standby,
            State::Up if !able => Part::Standby,
            State::Up if self.base.is_maintained() || self.proving => Part::Draining,
            State::Up => Part::Ready,
            State::Leave(Leave::Drain { .. }) => Part::Draining,
            State::Leave(Leave::Out { .. } | Leave::Filter) => Part::Out,
        }
    }

    /// Whether the application and the kernel are fit to serve. Whoever wants no failure answered
    /// wants clients to stay where they are.
    fn is_able(&mut self) -> bool {
        let runs = self.base.is_at_rest() && self.base.failure().is_none();
        let unproven = self.proving && !self.resumed;
        !unproven && self.filter_failed.is_none() && (runs || self.base.is_paused())
    }

    fn wish(&mut self, wishes: Vec<Wish>) {
        let module = self.base.module.clone();
        for wish in wishes {
            match wish {
                Wish::Pulse(pulse) => {
                    self.base.effects.push(Effect::Pulse { module: module.clone(), pulse });
                }
                Wish::SetShares(shares) => {
                    self.base.effects.push(Effect::SetShares { module: module.clone(), shares });
                }
                Wish::Tell(told) => self.tell(told),
            }
        }
    }

    fn tell(&mut self, told: Told) {
        let me = self.base.me.clone();
        let (severity, code, sentence) = match told {
            Told::Leads => (Severity::Info, "farm-leads", format!("{me} leads the farm")),
            Told::Follows(leader) => {
                (Severity::Info, "farm-follows", format!("{me} goes by the table of {leader}"))
            }
            Told::Lost(node) => {
                let sentence = format!("{node} is silent: others serve its clients");
                (Severity::Warning, "farm-node-lost", sentence)
            }
            Told::Came(node) => {
                (Severity::Info, "farm-node-came", format!("{node} takes part in the farm"))
            }
            Told::Healed { other, leader } => {
                let sentence = format!(
                    "two parts of the farm served all clients apart, and {other} led the other \
                     one: from now on all go by the table of {leader}"
                );
                (Severity::Warning, "farm-healed", sentence)
            }
            Told::Estranged(leader) => {
                let sentence = format!(
                    "{me} serves nobody: the others follow {leader}, and {leader} and {me} do not \
                     hear each other"
                );
                (Severity::Critical, "farm-estranged", sentence)
            }
            Told::Nobody => {
                let sentence = "no node of the farm may serve: clients get no answer".to_owned();
                (Severity::Critical, "farm-nobody", sentence)
            }
        };
        self.base.explain(severity, code, sentence);
    }
}
