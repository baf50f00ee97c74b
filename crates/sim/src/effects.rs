//! Performs what a node wants done, in order, as far as the host lives and its disk allows.

use std::time::Duration;

use cluster::effect::{Outcome, ServiceAction};
use cluster::input::{ReplicatorEvent, ScriptError};
use cluster::record::StoredCopy;
use cluster::{Effect, Input, Record, data_fault};

use crate::disks;
use crate::light::web;
use crate::world::{Happening, World, shop};

/// How long addresses take to be taken or dropped.
const ADDRESS: Duration = Duration::from_millis(5);
/// How long the application takes to start or stop.
const SERVICE: Duration = Duration::from_millis(100);

impl World {
    pub(crate) fn perform(&mut self, i: usize, effects: Vec<Effect>) {
        let mut left = effects.into_iter();
        while let Some(effect) = left.next() {
            if self.crashes_now(i) {
                self.power(i);
                return;
            }
            if self.is_dropped(i, &effect) {
                self.hosts[i].unannounced |= matches!(effect, Effect::Announce);
                continue;
            }
            let persists = matches!(effect, Effect::Persist { .. });
            if let Effect::Persist { module, .. } = &effect
                && self.hosts[i].full
            {
                self.hosts[i].failed.push(module.clone());
                continue;
            }
            self.effect(i, effect);
            let slow = self.hosts[i].slow;
            if persists && !slow.is_zero() {
                let host = &mut self.hosts[i];
                host.backlog = left.collect();
                host.busy = self.now + slow;
                self.after(slow, Happening::Resume(i));
                return;
            }
        }
        let failed = std::mem::take(&mut self.hosts[i].failed);
        self.hosts[i].untold += failed.len();
        for module in failed {
            let host = &mut self.hosts[i];
            host.untold = host.untold.saturating_sub(1);
            let error = "no space left".to_owned();
            self.give(i, Input::PersistFailed { module, error });
        }
        let host = &mut self.hosts[i];
        if host.unannounced && host.untold == 0 && host.backlog.is_empty() {
            host.unannounced = false;
            self.effect(i, Effect::Announce);
        }
    }

    /// Whether an effect may not be performed, as its module's record could not be written before.
    fn is_dropped(&self, i: usize, effect: &Effect) -> bool {
        let failed = &self.hosts[i].failed;
        match effect.module() {
            Some(module) => failed.contains(module),
            None if matches!(effect, Effect::Announce) => {
                !failed.is_empty() || self.hosts[i].untold > 0
            }
            None => !failed.is_empty(),
        }
    }

    /// The disk has done what the daemon waited for.
    pub(crate) fn resume(&mut self, i: usize) {
        let effects = std::mem::take(&mut self.hosts[i].backlog);
        self.perform(i, effects);
        self.plan_wake(i);
    }

    pub(crate) fn crashes_now(&mut self, i: usize) -> bool {
        match &mut self.hosts[i].crash_after {
            Some(0) => {
                self.hosts[i].crash_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn effect(&mut self, i: usize, effect: Effect) {
        if effect.module() == Some(&web()) {
            return self.light_effect(i, effect);
        }
        match effect {
            Effect::Persist { record, .. } => self.persist(i, *record),
            Effect::Announce => {
                let reports = self.hosts[i].node.as_ref().map(cluster::Node::reports);
                self.hosts[i].announced = reports.unwrap_or_default();
                self.send_heartbeat(i);
            }
            Effect::AskWitness { request, .. } => self.ask(i, request),
            Effect::Assign { serial, assignment, .. } => {
                if !disks::starts_none(self, i, serial, &assignment) {
                    self.assigned(i, serial, assignment);
                }
            }
            Effect::SetAddresses { held, .. } => {
                self.hosts[i].addresses = held;
                let set = Input::AddressesSet { module: shop(), held, error: None };
                self.after(ADDRESS, Happening::Give(i, set));
            }
            Effect::RunService { action, .. } => self.run_service(i, action),
            Effect::RunChecks { serial, checks, .. } => self.run_checks(i, serial, checks),
            Effect::PrepareResync { serial, .. } => self.keep(i, serial),
            Effect::HoldOff { serial, .. } => {
                let takes = self.fence.unwrap_or_default();
                self.after(takes, Happening::HeldOff(i, serial));
            }
            // There is no farm in this world; they have one of their own.
            Effect::Pulse { .. } | Effect::SetShares { .. } => {}
            Effect::Explain(event) => {
                let line = format!("{} {}: {}", self.hosts[i].name, event.code, event.sentence);
                self.note(&line);
                self.checks.exempt |= event.code == "forced";
                self.hosts[i].refilled |= event.code == "refills";
                self.events.push((i, event));
            }
            Effect::Answer { job, outcome } => {
                let text = match &outcome {
                    Outcome::Done(text) => format!("done: {text}"),
                    Outcome::Failed(text) => format!("failed: {text}"),
                    Outcome::Refused { why, .. } => format!("refused: {why}"),
                };
                let line = format!("{} answers the operator, {text}", self.hosts[i].name);
                self.note(&line);
                self.outcomes.insert(job.0, outcome);
            }
        }
    }

    fn persist(&mut self, i: usize, record: Record) {
        let mixes = |record: &Record| record.copy == StoredCopy::Inconsistent;
        let host = &self.hosts[i];
        if self.keeps_before_resync(i) && mixes(&record) && !mixes(&host.record) {
            let found = self.checks.kept(i, host.kept.as_ref(), &host.replicator.tree);
            self.judge(found);
        }
        let given_up = |record: &Record| record.copy == StoredCopy::Discarded;
        if given_up(&record) && !given_up(&self.hosts[i].record) {
            let (tree, other) = (&self.hosts[i].replicator.tree, &self.hosts[1 - i]);
            let is_kept = !(mixes(&other.record) || given_up(&other.record));
            let found = self.checks.give_up(i, tree, &other.replicator.tree, is_kept);
            self.judge(found);
        }
        let whole = self.hosts.iter().all(|host| !host.replicator.broken);
        if record.promotable && !self.hosts[i].record.promotable && whole {
            // From here on it may take over, and vouches for what it holds. One that has lost power
            // since it was opened vouches anew only for what both have on their disks.
            let crashed = record.open_in.is_some_and(|boot| boot != self.hosts[i].boot);
            let [one, two] = [0, 1].map(|i| &self.hosts[i].replicator.tree);
            self.checks.vouched([one, two], crashed);
        }
        let host = &mut self.hosts[i];
        if record.root == 0 && record.quarantine != host.record.quarantine {
            host.marker = None;
        }
        // What is not the record's is not marked; a replicator holds on to what it has found.
        let known = data_fault(&host.record, &host.data()).is_none();
        if known || host.replicator.running {
            host.marker = record.epoch.as_ref().map(|epoch| (record.root, epoch.id));
        }
        host.record = record;
    }

    pub(crate) fn tell_restored(&mut self, i: usize) {
        let why = "the disk was put back to an earlier state".to_owned();
        self.replicator_event(i, Duration::ZERO, ReplicatorEvent::Restored { why });
    }

    /// A copy of the host is to be kept before a resync mixes it.
    fn keeps_before_resync(&self, i: usize) -> bool {
        match self.in_use(i) {
            Some(parsed) => {
                let module = parsed.module(&shop());
                module.is_some_and(|module| module.scripts.before_resync.is_some())
            }
            None => self.script.is_some(),
        }
    }

    /// A host's command has switched the other host off, if it could.
    pub(crate) fn hold_off(&mut self, i: usize, serial: u64) {
        let fails = self.hosts[i].fence_broken || self.network.isolated.contains(&i);
        if !fails {
            let line = format!("{} is switched off", self.hosts[1 - i].name);
            self.note(&line);
            self.power(1 - i);
        }
        let error = fails.then(|| ScriptError {
            how: "ended with exit status: 1".to_owned(),
            said: vec!["it said: no answer".to_owned()],
        });
        self.give_when_free(i, Input::HeldOff { module: shop(), serial, error });
    }

    fn run_service(&mut self, i: usize, action: ServiceAction) {
        self.hosts[i].service = action == ServiceAction::Start;
        self.hosts[i].starting = self.hosts[i].service;
        let broken = self.hosts[i].service && self.broken_service == Some(i);
        if self.hosts[i].service {
            self.application_starts(i);
        }
        let error = broken.then(|| ScriptError {
            how: "the start script ended with exit status: 1".to_owned(),
            said: vec!["it said: it is broken".to_owned()],
        });
        let done = Input::ServiceDone { module: shop(), action, error };
        self.after(SERVICE, Happening::Give(i, done));
    }

    /// A replicator tells its daemon something.
    pub fn replicator_event(&mut self, i: usize, delay: Duration, event: ReplicatorEvent) {
        self.after(delay, Happening::Give(i, Input::Replicator { module: shop(), event }));
    }
}
