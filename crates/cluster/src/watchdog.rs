//! When the watchdog of this machine has to be fed, and when it must not be: pure, by what was
//! ordered of the node and what came of it.
//!
//! Whoever has nothing in its hands harms nobody by standing still. Whoever serves is to be reset
//! if its daemon stands still, for then nobody would let go in time. Whoever cannot let go of what
//! it has lost is to be reset in any case. The device is not known here.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ModuleName, Time};

use crate::effect::{Assignment, Effect, Ending, ServiceAction};
use crate::input::{BootModule, Input, ReplicatorEvent};

/// How long letting go may take where it does not wait for anybody: killing and dropping.
const LETTING_GO_MAX: Duration = Duration::from_secs(10);
/// Time between two attempts to open the device while it is needed.
const RETRY: Duration = Duration::from_secs(5);
/// The same while it runs and is not fed, as after a feed that failed.
const RETRY_RUNNING: Duration = Duration::from_secs(1);
/// Time between two looks at a device that could not be opened and is not needed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The device is fed so often at least.
const FEED_EVERY_MAX: Duration = Duration::from_secs(1);
/// How many times it is fed within its time, at least.
const FEEDS: u32 = 5;

/// What the node has in its hands.
#[derive(Debug, Default)]
pub struct Policy {
    modules: BTreeMap<ModuleName, Hands>,
}

/// What it has in its hands of one module.
#[derive(Debug, Default)]
struct Hands {
    data: Grip,
    /// The newest assignment of the replicator.
    serial: u64,
    addresses: Grip,
    application: Grip,
}

/// How one thing is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Grip {
    #[default]
    Free,
    Held,
    /// It is to be let go in order, which may take its time.
    Ending,
    /// It is to be let go at once.
    Losing {
        since: Time,
    },
    /// It could not be let go.
    Stuck {
        why: String,
    },
}

/// What is to become of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node has nothing in its hands.
    Idle,
    /// It serves: as long as its main loop turns, the device is fed.
    Feed,
    /// It could not let go: the machine has to be reset.
    Starve(String),
}

/// How the device stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stand {
    /// If it is open.
    pub open: Option<Open>,
    /// Whether it stops when it is told.
    pub stops: bool,
    /// Whether this boot has started it, and as far as is known nothing has stopped it.
    pub runs: bool,
    /// When it was tried to open last.
    pub tried: Option<Time>,
    /// Whether that failed.
    pub failed: bool,
}

/// A device that is open.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// After which time without food it resets the machine.
    pub timeout: Duration,
    /// When it was fed last.
    pub fed: Time,
}

/// What is to be done to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Leave it as it is.
    Nothing,
    /// Open it, by which it runs.
    Open,
    /// Open it and stop it again, to see whether it is there.
    Probe,
    /// Feed it.
    Feed,
    /// Stop it and close it.
    Stop,
}

impl Policy {
    /// What an earlier daemon of this boot left in the node's hands.
    pub fn of(modules: &[BootModule]) -> Policy {
        let hands = modules.iter().filter_map(|module| {
            let running = module.running.as_ref()?;
            let held = |held: bool| if held { Grip::Held } else { Grip::Free };
            let hands = Hands {
                data: held(matches!(running.assignment, Assignment::Serve(_))),
                serial: 0,
                addresses: held(running.addresses),
                application: held(running.service),
            };
            Some((module.config.name.clone(), hands))
        });
        Policy { modules: hands.collect() }
    }

    /// What an earlier daemon was to end of an application runs still.
    pub fn left(&mut self, now: Time, module: &ModuleName) {
        self.hands(module).application = Grip::Losing { since: now };
    }

    /// This is about to be done.
    pub fn order(&mut self, now: Time, effect: &Effect) {
        match effect {
            Effect::Assign { module, serial, assignment } => {
                let hands = self.hands(module);
                hands.serial = *serial;
                hands.data = match assignment {
                    Assignment::Serve(_) => Grip::Held,
                    Assignment::Hold { ending: Ending::Cut } => hands.data.lose(now),
                    Assignment::Hold { ending: Ending::Drain }
                    | Assignment::Receive { .. }
                    | Assignment::Close => hands.data.end(),
                };
            }
            Effect::SetAddresses { module, held } => {
                let grip = &mut self.hands(module).addresses;
                *grip = if *held { Grip::Held } else { grip.lose(now) };
            }
            Effect::RunService { module, action } => {
                let grip = &mut self.hands(module).application;
                *grip = match action {
                    ServiceAction::Start => Grip::Held,
                    ServiceAction::Stop => grip.end(),
                    ServiceAction::Kill => grip.lose(now),
                };
            }
            Effect::Persist { .. }
            | Effect::Announce
            | Effect::AskWitness { .. }
            | Effect::RunChecks { .. }
            | Effect::PrepareResync { .. }
            | Effect::HoldOff { .. }
            | Effect::Pulse { .. }
            | Effect::SetShares { .. }
            | Effect::Explain(_)
            | Effect::Answer { .. } => {}
        }
    }

    /// This has happened.
    pub fn hear(&mut self, input: &Input) {
        if let Input::AddressesSet { module, held: false, error } = input {
            let grip = &mut self.hands(module).addresses;
            *grip = grip.let_go(error.clone());
        }
        if let Input::ServiceDone { module, action, error } = input {
            let grip = &mut self.hands(module).application;
            match action {
                ServiceAction::Kill => {
                    *grip = grip.let_go(error.as_ref().map(|error| error.how.clone()));
                }
                // What was not clean about it has been told; a stop always ends.
                ServiceAction::Stop if *grip == Grip::Ending => *grip = Grip::Free,
                ServiceAction::Stop | ServiceAction::Start => {}
            }
        }
        if let Input::Replicator { module, event } = input {
            let hands = self.hands(module);
            let newest = hands.serial;
            let answers =
                matches!(event, ReplicatorEvent::Assigned { serial, .. } if *serial == newest);
            if matches!(event, ReplicatorEvent::Died { .. }) {
                // Whatever it was told since: nobody serves any more.
                hands.data = Grip::Free;
            } else if answers {
                hands.data = hands.data.let_go(None);
            }
        }
    }

    /// What is to become of the watchdog.
    pub fn verdict(&self, now: Time) -> Verdict {
        let mut verdict = Verdict::Idle;
        for (name, hands) in &self.modules {
            let things = [
                ("the directories", &hands.data),
                ("an address", &hands.addresses),
                ("the application", &hands.application),
            ];
            for (what, grip) in things {
                match grip {
                    Grip::Free => continue,
                    Grip::Stuck { why } => {
                        return Verdict::Starve(format!("{what} of {name}: {why}"));
                    }
                    Grip::Losing { since } if now.since(*since) > LETTING_GO_MAX => {
                        let seconds = LETTING_GO_MAX.as_secs();
                        let why = format!("{what} of {name}: not within {seconds} seconds");
                        return Verdict::Starve(why);
                    }
                    Grip::Held | Grip::Ending | Grip::Losing { .. } => verdict = Verdict::Feed,
                }
            }
        }
        verdict
    }

    fn hands(&mut self, module: &ModuleName) -> &mut Hands {
        self.modules.entry(module.clone()).or_default()
    }
}

impl Grip {
    /// It is to be let go in order.
    fn end(&self) -> Grip {
        if *self == Grip::Held { Grip::Ending } else { self.clone() }
    }

    /// It is to be let go at once. Asked again, its time does not begin anew.
    fn lose(&self, now: Time) -> Grip {
        match self {
            Grip::Held | Grip::Ending => Grip::Losing { since: now },
            Grip::Free | Grip::Losing { .. } | Grip::Stuck { .. } => self.clone(),
        }
    }

    /// It has been let go, or could not be. That crosses an order to hold it again.
    fn let_go(&self, error: Option<String>) -> Grip {
        match (self, error) {
            (Grip::Held, _) => Grip::Held,
            // Whoever has nothing cannot have failed to let it go.
            (Grip::Free, _) | (_, None) => Grip::Free,
            (_, Some(why)) => Grip::Stuck { why },
        }
    }
}

/// How often a device is fed that resets the machine after this time.
fn feed_every(timeout: Duration) -> Duration {
    (timeout / FEEDS).min(FEED_EVERY_MAX)
}

/// What is to be done to the device now.
pub fn act(now: Time, verdict: &Verdict, stand: Stand) -> Act {
    let after = |pause| stand.tried.is_none_or(|at| now.since(at) >= pause);
    let retry = if stand.runs { RETRY_RUNNING } else { RETRY };
    match (verdict, stand.open) {
        (Verdict::Starve(_), _) => Act::Nothing,
        (Verdict::Idle, Some(_)) if stand.stops => Act::Stop,
        (Verdict::Idle | Verdict::Feed, Some(open)) => {
            let due = now.since(open.fed) >= feed_every(open.timeout);
            if due { Act::Feed } else { Act::Nothing }
        }
        (Verdict::Feed, None) if after(retry) => Act::Open,
        // It runs, so it has to be stopped, or where nothing stops it, fed whatever this node does.
        (Verdict::Idle, None) if stand.runs && after(retry) => {
            if stand.stops {
                Act::Probe
            } else {
                Act::Open
            }
        }
        (Verdict::Idle, None) if stand.stops && (stand.failed || stand.tried.is_none()) => {
            if after(LOOK_AGAIN) { Act::Probe } else { Act::Nothing }
        }
        (Verdict::Idle | Verdict::Feed, None) => Act::Nothing,
    }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
