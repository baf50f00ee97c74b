//! An application on one node: what every kind of module does for one.
//!
//! ```text
//!   this file   the facts that all kinds keep, the record, what is being done to the application
//!   checks      what its checks say, and which of them are carried out
//!   recover     failures: how many there were, restart in place, giving it up
//!   spans       what the operator wants for a time: pause, maintenance
//!   reasons     why the application is not as it should be
//!   unaided     what the kinds share whose application no other node takes over
//!   wanted      what is asked of the shell
//! ```
//!
//! Whether and where an application is to run is not decided here: that is what kinds of modules
//! differ in. Each of them has a `Base`, tells it what happened, and asks it what is so.

mod checks;
mod reasons;
mod recover;
mod spans;
mod unaided;
mod wanted;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use model::config::ModuleConfig;
use model::{BootId, ModuleName, NodeName, Phase, Reason, Role, Severity, Time};
use serde::{Deserialize, Serialize};

use crate::effect::{Effect, Outcome, ServiceAction};
use crate::input::{Boot, BootModule, Command, JobId, ScriptError};
use crate::record::Record;

pub(crate) use checks::down;
pub(crate) use reasons::Found;
pub(crate) use recover::Failure;
pub(crate) use spans::spoken;
pub(crate) use unaided::{Answered, PATIENCE, Stand};

/// Pause before addresses that could not be taken or dropped are tried again.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);
/// Pause before a record that could not be written is tried again.
pub(crate) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// When a record that was tried again counts as written, as no failure was told.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// Addresses and application: what was asked of the shell and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Front {
    pub(crate) addresses: bool,
    pub(crate) addresses_busy: bool,
    pub(crate) address_error: Option<String>,
    /// When what could not be done about the addresses is tried again.
    address_at: Option<Time>,
    pub(crate) busy: Option<ServiceAction>,
    pub(crate) running: bool,
}

/// An operator's job under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) command: Command,
    pub(crate) since: Time,
    pub(crate) begun: bool,
}

/// What failed is not tried again at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// How often in a row.
    pub(crate) failures: u32,
    pub(crate) at: Time,
}

/// Why a waiting node cannot go on; kept as the reason shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) code: Cow<'static, str>,
    pub(crate) sentence: String,
    pub(crate) critical: bool,
}

/// What every kind of module has, on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) module: ModuleName,
    pub(crate) me: NodeName,
    pub(crate) config: ModuleConfig,
    pub(crate) boot: BootId,
    pub(crate) record: Record,
    /// What is durable for certain: the record before the first persist of the present batch. Of a
    /// batch everything counts as undone when one persist of it fails.
    last_good: Record,
    /// What was being done to the application at that moment.
    last_front: (Front, recover::Recovery),
    pub(crate) persisted: bool,
    pub(crate) persist_error: Option<String>,
    /// The record that could not be written is being written again.
    pub(crate) rewritten: bool,
    /// Role and phase, since when they are what they are.
    shown: (Role, Phase),
    pub(crate) since: Time,
    pub(crate) front: Front,
    pub(crate) recovery: recover::Recovery,
    pub(crate) jobs: Vec<Job>,
    pub(crate) block: Option<Block>,
    pub(crate) reasons: BTreeMap<String, Reason>,
    pub(crate) retry: Retry,
    /// When the daemon started: on its own clock and on the wall.
    began: (Time, Duration),
    pub(crate) now: Time,
    wake: Option<Time>,
    pub(crate) effects: Vec<Effect>,
}

impl Base {
    /// What is known of a module when a daemon starts.
    pub(crate) fn new(now: Time, boot: &Boot, module: &BootModule) -> Base {
        Base {
            module: module.config.name.clone(),
            me: boot.name.clone(),
            config: module.config.clone(),
            boot: boot.boot,
            record: module.record.clone(),
            last_good: module.record.clone(),
            last_front: Default::default(),
            persisted: false,
            persist_error: None,
            rewritten: false,
            shown: (Role::Stop, Phase::Ready),
            since: now,
            front: Front::default(),
            recovery: recover::Recovery::default(),
            jobs: Vec::new(),
            block: None,
            reasons: BTreeMap::new(),
            retry: Retry::default(),
            began: (now, boot.wall),
            now,
            wake: None,
            effects: Vec::new(),
        }
    }

    /// An input is handled at `now`: when to be woken is found out anew.
    pub(crate) fn begin(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.wake = None;
    }

    pub(crate) fn wake(&self) -> Option<Time> {
        self.wake
    }

    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.wake.is_some_and(|wake| wake <= now)
    }

    /// Whether `at` has been reached; if not, the node is woken then.
    pub(crate) fn due(&mut self, at: Time) -> bool {
        if self.now >= at {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Notes that something failed, and when to try again.
    pub(crate) fn back_off(&mut self) {
        let seconds = (1u64 << self.retry.failures.min(5)).min(30);
        self.retry.failures += 1;
        self.retry.at = self.now + Duration::from_secs(seconds);
    }

    /// Records why the node cannot go on; never worth another round.
    pub(crate) fn block(&mut self, code: &'static str, sentence: String) -> bool {
        let critical = matches!(
            code,
            "split-brain" | "different-data" | "data-missing" | "waits-for-operator"
        );
        self.block = Some(Block { code: code.into(), sentence, critical });
        false
    }

    pub(crate) fn answer(&mut self, job: JobId, outcome: Outcome) {
        self.effects.push(Effect::Answer { job, outcome });
    }

    /// Addresses were taken or dropped, or could not be: that is tried again, and nothing that
    /// comes after they are dropped begins before.
    pub(crate) fn addresses_set(&mut self, held: bool, error: Option<String>) {
        if held != self.front.addresses {
            return;
        }
        self.front.addresses_busy = !held && error.is_some();
        self.front.address_at = error.is_some().then(|| self.now + ADDRESS_RETRY);
        self.front.address_error = error;
    }

    /// Tries again what could not be done about the addresses.
    pub(crate) fn retry_addresses(&mut self) {
        let Some(at) = self.front.address_at else { return };
        if self.due(at) {
            self.front.address_at = None;
            let (module, held) = (self.module.clone(), self.front.addresses);
            self.effects.push(Effect::SetAddresses { module, held });
        }
    }

    /// What was done to the application has ended.
    pub(crate) fn service_done(&mut self, action: ServiceAction, error: Option<ScriptError>) {
        if self.front.busy != Some(action) {
            return;
        }
        self.front.busy = None;
        match action {
            ServiceAction::Start => {
                self.front.running = true;
                self.service_started(error);
            }
            ServiceAction::Stop | ServiceAction::Kill => {
                self.front.running = false;
                self.service_stopped();
                if let Some(error) = error {
                    let sentence = format!("stopping was not clean: {}", error.how);
                    let severity = Severity::Warning;
                    self.explain_with(severity, "service-stop-failed", sentence, error.said);
                }
            }
        }
    }

    /// The record on disk is one that was written in the failed batch before the failure, or the
    /// one before that batch. All of the batch counts as undone: then memory is never ahead of
    /// the disk, and as records are written whole the next persist brings both together. Returns
    /// whether it is known already that records cannot be written.
    pub(crate) fn undo_batch(&mut self, error: String) -> bool {
        self.record = self.last_good.clone();
        self.rewritten = false;
        let heard = self.recovery.checks.serial();
        self.recovery.checks.retell(heard);
        self.persist_error.replace(error).is_some()
    }

    /// What was wanted of the shell after a record of that batch, it has not done: no effect that
    /// comes after a record that could not be written is performed.
    pub(crate) fn undo_front(&mut self) {
        let heard = self.recovery.checks.serial();
        (self.front, self.recovery) = self.last_front.clone();
        self.recovery.checks.retell(heard);
        self.retry.at = self.now + RETRY_FIRST;
    }

    /// Whether the record, which is being written again, is written: a failure would have been told
    /// before this.
    pub(crate) fn is_written_again(&mut self) -> bool {
        if !self.rewritten || self.persisted {
            return false;
        }
        self.rewritten = false;
        self.persist_error = None;
        self.retry.failures = 0;
        self.retry.at = self.now;
        true
    }

    /// A record that could not be written is tried again, as it was: a disk that was full may have
    /// room again.
    pub(crate) fn write_again(&mut self) {
        let retry = self.retry.at;
        if !self.rewritten && self.due(retry) {
            self.back_off();
            self.persist(|_| {});
            self.rewritten = true;
        }
        if self.rewritten {
            let next = self.now + TOLD_WITHIN;
            self.due(next);
        }
    }
}
