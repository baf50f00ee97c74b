//! Performs the effects of the core, strictly in order.

use std::collections::BTreeMap;
use std::io;

use cluster::effect::{Assignment, Effect, Outcome, ServiceAction};
use cluster::input::{DataState, JobId, ReplicatorEvent};
use cluster::record::Record;
use cluster::{Input, witness};
use model::config::InUse;
use model::{ModuleName, NodeName};
use wire::control::{Exit, Reply};

use crate::clock;
use crate::daemon::Daemon;
use crate::daemon::ask;
use crate::daemon::copies;
use crate::daemon::event::{Event, Line};
use crate::daemon::farms::Order;
use crate::daemon::hold_off::Wanted;
use crate::daemon::marking;
use crate::daemon::module::{Module, RunningState, data_state};
use crate::daemon::replicators::{Replicator, Start, replication_addresses};
use crate::daemon::start::is_the_labs;
use crate::durable;
use crate::layout::Layout;

impl Daemon {
    /// Performs effects. When a record cannot be made durable, the rest of its module's effects is
    /// dropped, an operator who asked for it hears so, nothing is announced before the core knows,
    /// and it is told before anything else happens.
    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        let mut failed = BTreeMap::new();
        for effect in effects {
            if effect.module().is_some_and(|module| failed.contains_key(module)) {
                continue;
            }
            let now = clock::now();
            self.watchdog.keep(now);
            self.watchdog.order(now, &effect);
            match effect {
                Effect::Persist { module, record } => {
                    if let Err(error) = self.persist(&module, &record) {
                        failed.insert(module, error.to_string());
                    }
                }
                Effect::Announce => self.unwritten.unannounced = true,
                Effect::AskWitness { module, request } => self.ask_witness(&module, request),
                Effect::Assign { module, serial, assignment } => {
                    self.assign(&module, serial, assignment);
                }
                Effect::SetAddresses { module, held } => self.set_addresses(&module, held),
                Effect::RunService { module, action } => self.run_service(&module, action),
                Effect::RunChecks { module, serial, checks } => {
                    if let Some(module) = self.modules.get(&module) {
                        module.checks.run(serial, checks);
                    }
                }
                Effect::PrepareResync { module, serial, source, copy } => {
                    if let Some(module) = self.modules.get(&module) {
                        module.before_resync.run(serial, source, copy);
                    }
                }
                Effect::HoldOff { module, serial, peer } => {
                    let log = self.layout.log_file(&module, "hold-off");
                    self.hold_off.run(Wanted { module, serial, peer, log });
                }
                Effect::Pulse { module, pulse } => self.heartbeats.say(&module, *pulse),
                Effect::SetShares { module, shares } => self.set_shares(&module, shares),
                Effect::Explain(event) => self.journal.write(event),
                Effect::Answer { job, outcome } => {
                    let module = self.jobs.get(&job).map(|pending| &pending.module);
                    let error = module.and_then(|module| failed.get(module));
                    let unwritten = error.map(|error| {
                        Outcome::Failed(format!("the record cannot be written: {error}"))
                    });
                    self.answer(job, unwritten.unwrap_or(outcome));
                }
            }
        }
        let failed = failed.into_iter();
        let failed = failed.map(|(module, error)| Input::PersistFailed { module, error });
        self.unwritten.untold.extend(failed);
        self.announce();
    }

    /// Lets peers hear what the core reports, unless that says more than what is written down. That
    /// is the last effect of each batch, so that nothing of a batch comes after it.
    fn announce(&mut self) {
        if self.unwritten.unannounced && self.unwritten.untold.is_empty() {
            self.unwritten.unannounced = false;
            self.heartbeats.announce(self.node.reports());
        }
    }

    fn persist(&mut self, name: &ModuleName, record: &Record) -> io::Result<()> {
        let Some(module) = self.modules.get_mut(name) else {
            return durable::write(&self.layout.record_file(name), record);
        };
        let before = module.record.epoch.as_ref().map(|epoch| epoch.id);
        marking::persist(&self.layout, module, record)?;
        if let Some(number) = record.number {
            module.number = number;
        }
        match &record.epoch {
            // One that is written once more was taken up earlier.
            Some(epoch) if before != Some(epoch.id) => {
                copies::note_epoch(&self.layout.epochs_file(name), epoch.id);
            }
            _ => {}
        }
        Ok(())
    }

    fn ask_witness(&mut self, module: &ModuleName, request: witness::Request) {
        let Some(address) = self.cluster.witness else {
            let why = "no witness is configured".to_owned();
            self.later(Input::WitnessUnreachable { module: module.clone(), why });
            return;
        };
        let question = ask::question(&self.cluster.cluster, module, &self.name, request);
        let fingerprint = self.cluster.witness_fingerprint;
        let witness = ask::Witness { address, fingerprint, keys: self.keys() };
        ask::witness(witness, question, self.sender.clone());
    }

    fn assign(&mut self, name: &ModuleName, serial: u64, assignment: Assignment) {
        if let Err(error) = self.try_assign(name, serial, assignment) {
            let why = format!("the replicator cannot be given its task: {error}");
            let event = ReplicatorEvent::Refused { serial, why };
            self.later(Input::Replicator { module: name.clone(), event });
        }
    }

    fn try_assign(
        &mut self,
        name: &ModuleName,
        serial: u64,
        assignment: Assignment,
    ) -> io::Result<()> {
        let mut peer = peer_of(&assignment)
            .map(|peer| replication_addresses(&self.cluster, peer))
            .unwrap_or_default();
        let silent = self.house.networks.silent_addresses(&self.cluster);
        peer.sort_by_key(|address| silent.contains(&address.ip()));
        let generation = self.next_generation;
        let Some(module) = self.modules.get_mut(name) else { return Ok(()) };
        // Nothing may keep a copy that is about to change. What cannot be ended is no reason not to
        // serve.
        match &assignment {
            Assignment::Receive { .. } => module.before_resync.end()?,
            Assignment::Serve(_) => drop(module.before_resync.end()),
            Assignment::Hold { .. } | Assignment::Close => {}
        }
        if module.replicator.is_none() {
            if assignment == Assignment::Close {
                module.clean_leftovers(&self.layout);
                let number = module.number;
                let event = ReplicatorEvent::Assigned { serial, number, drained: false };
                self.later(Input::Replicator { module: name.clone(), event });
                return Ok(());
            }
            self.next_generation += 1;
            // Nothing of the application may run while no replicator covers the directories.
            module.application.kill_now()?;
            module.clean_leftovers(&self.layout);
            check_data(&self.layout, module).map_err(io::Error::other)?;
            check_openers(module).map_err(io::Error::other)?;
            module.replicator = Some(Replicator::start(&Start {
                layout: &self.layout,
                cluster: &self.cluster.cluster,
                node: &self.name,
                config: &module.config,
                number: module.number,
                generation,
                events: &self.sender,
            })?);
        }
        module.closing_serial = (assignment == Assignment::Close).then_some(serial);
        let Some(replicator) = &module.replicator else { return Ok(()) };
        replicator.resync_rate(module.resync_rate)?;
        replicator.assign(serial, assignment, peer)
    }

    fn set_addresses(&mut self, name: &ModuleName, held: bool) {
        if self.set_farm(name, held) {
            return;
        }
        let Some(module) = self.modules.get_mut(name) else { return };
        let vips = &module.config.vips;
        let result = if held {
            module.addresses.take(vips, clock::now())
        } else {
            module.addresses.release(vips)
        };
        let holds = module.addresses.is_held() || (held && vips.is_empty());
        let error = result.err();
        self.note_running(name, |running| running.addresses = holds);
        self.later(Input::AddressesSet { module: name.clone(), held, error });
    }

    /// Has a farm take part, or no longer; answered by its driver. False if the module is no farm.
    fn set_farm(&self, name: &ModuleName, held: bool) -> bool {
        let driver = self.modules.get(name).and_then(|module| module.farm.as_ref());
        let Some(driver) = driver else { return false };
        self.note_running(name, |running| running.addresses = held);
        driver.order(if held { Order::Hold } else { Order::Release });
        true
    }

    fn set_shares(&self, name: &ModuleName, shares: Box<cluster::farm::Shares>) {
        let driver = self.modules.get(name).and_then(|module| module.farm.as_ref());
        let Some(driver) = driver else { return };
        driver.order(Order::Apply(shares, self.node.farm_left(name).map(Box::new)));
    }

    fn run_service(&mut self, name: &ModuleName, action: ServiceAction) {
        // Half of an application must not be taken for the whole. A kill waits for nothing.
        if action != ServiceAction::Kill {
            self.note_running(name, |running| running.order(action));
        }
        let Some(module) = self.modules.get(name) else { return };
        module.application.run(action);
        if action == ServiceAction::Kill {
            self.note_running(name, |running| running.order(action));
        }
    }

    /// Notes what an application has done, for a daemon that follows.
    pub(super) fn note_done(&self, input: &Input) {
        if let Input::ServiceDone { module, action, error: None } = input {
            self.note_running(module, |running| running.done(*action));
        }
    }

    /// Keeps what a following daemon of this boot must know. It is no record: a reboot voids it.
    fn note_running(&self, name: &ModuleName, change: impl FnOnce(&mut RunningState)) {
        let path = self.layout.running_file(name);
        let mut running: RunningState = durable::read(&path).ok().flatten().unwrap_or_default();
        change(&mut running);
        running.boot = clock::boot_id().ok();
        if let Err(error) = durable::write(&path, &running) {
            eprintln!("! {}: {error}", path.display());
        }
    }

    fn answer(&mut self, job: JobId, outcome: Outcome) {
        let Some(pending) = self.jobs.remove(&job) else { return };
        let reply = match outcome {
            Outcome::Done(sentence) => Reply::new(Exit::Done, sentence),
            Outcome::Failed(sentence) => Reply::new(Exit::Failed, sentence),
            Outcome::Refused { why, next } => Reply { next, ..Reply::new(Exit::Refused, why) },
        };
        let _ = pending.lines.send(Line::Reply(reply));
    }

    /// Queues an input behind what is being performed.
    fn later(&self, input: Input) {
        // The receiver is this very thread.
        let _ = self.sender.send(Event::Input(input));
    }
}

/// Whether the directories are those that the record speaks of. The disk may have been unmounted or
/// replaced since the daemon started.
fn check_data(layout: &Layout, module: &Module) -> Result<(), String> {
    let record: Record = durable::read(&layout.record_file(&module.config.name))
        .map_err(|error| error.to_string())?
        .unwrap_or_default();
    match (data_state(&module.config), &record.epoch) {
        (DataState::Unusable { why, .. }, _) => Err(why),
        (DataState::Marked { root, .. }, _) if root != record.root => {
            Err("the directories hold other data than the record says: mount the right disk".into())
        }
        (DataState::Empty | DataState::Unmarked, Some(_)) => {
            Err("the directories carry no marker, but the record says that they hold the module's \
                 data: the disk is not mounted or was replaced"
                .to_owned())
        }
        (DataState::Marked { .. } | DataState::Empty | DataState::Unmarked, _) => Ok(()),
    }
}

/// Whether nobody would change the directories past their replication.
pub(super) fn check_openers(module: &Module) -> Result<(), String> {
    if module.config.replication.in_use == InUse::Allow {
        return Ok(());
    }
    for path in &module.config.replicate {
        let not_seen = |errno| format!("{} cannot be looked at: {errno}", path.display());
        let ways = mount::ways(path).map_err(not_seen)?;
        if let Some(way) = ways.iter().find(|way| !is_the_labs(&way.place)) {
            return Err(format!(
                "there is another way to {}: {way}; what is changed there would not be replicated. \
                 Unmount it, or set in_use = \"allow\" in [replication] if nobody changes anything \
                 there",
                path.display()
            ));
        }
        let found = mount::openers(path).map_err(not_seen)?;
        let Some(first) = found.first() else { continue };
        let more = match found.len() - 1 {
            0 => String::new(),
            count => format!(", and {count} more"),
        };
        return Err(format!(
            "{first}{more}: what it changes there would not be replicated. End it and start the \
             module first, or set in_use = \"allow\" in [replication] if it changes nothing"
        ));
    }
    Ok(())
}

/// The peer of an assignment's session.
fn peer_of(assignment: &Assignment) -> Option<&NodeName> {
    match assignment {
        Assignment::Close | Assignment::Hold { .. } => None,
        Assignment::Receive { source, .. } => Some(source),
        Assignment::Serve(serve) => serve.session.as_ref().map(|session| &session.target),
    }
}
