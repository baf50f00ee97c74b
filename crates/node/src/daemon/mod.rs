//! The daemon: one event loop around `cluster::Node`, and the runners of its effects.
//!
//! ```text
//! heartbeats ─┐                                  ┌─ records, markers (before anything later)
//! replicators ┤                                  ├─ heartbeats
//! applications┼─> Event ─> Node::handle ─> Effect┼─ replicators
//! witness ────┤        one thread, no lock       ├─ addresses, applications
//! requests ───┘                                  └─ events, replies
//! ```
//!
//! No decision is taken here.

mod addresses;
mod admit;
mod application;
mod ask;
mod before_resync;
mod cgroup;
mod checks;
mod configuring;
mod copies;
mod effects;
mod event;
mod farms;
mod found;
mod guard;
mod health;
mod heartbeat;
mod hold_off;
mod inherited;
mod isolation;
mod journal;
mod left;
mod listen;
mod marking;
mod membership;
mod module;
mod networks;
mod programs;
mod quarantines;
mod queue;
mod recorder;
mod renewal;
mod replicators;
mod requests;
mod rotation;
mod start;
mod units;
mod verify;
mod waiting;
mod watchdog;

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Duration;

use cluster::input::{JobId, ReplicatorEvent};
use cluster::{Effect, Input, Node};
use model::config::ClusterConfig;
use model::{ModuleName, NodeName, Time};
use wire::hello::Welcome;
use wire::local::{Caller, FromReplicator};

use crate::clock;
use crate::connection;
use crate::daemon::admit::Door;
use crate::daemon::configuring::Configuring;
use crate::daemon::event::{Event, Line};
use crate::daemon::health::Health;
use crate::daemon::heartbeat::{Heartbeats, PULSE};
use crate::daemon::hold_off::HoldOff;
use crate::daemon::inherited::Inherited;
use crate::daemon::journal::Journal;
use crate::daemon::module::Module;
use crate::daemon::networks::Networks;
use crate::daemon::queue::Queue;
use crate::daemon::recorder::Recorder;
use crate::daemon::renewal::Renewal;
use crate::daemon::waiting::Waiting;
use crate::daemon::watchdog::Watchdog;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::room;
use crate::stream::Stream;
use crate::urgent;

pub use start::{StartError, run};
pub(crate) use start::{check_keys, check_system};

/// How long a command may take when no resync explains it.
const JOB_MAX: Duration = Duration::from_secs(60);

/// Time between two looks at what only has to be looked at now and then.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Time between two attempts to set aside room that was used up.
const ROOM: Duration = Duration::from_secs(60);

/// How to run a daemon.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The directory that everything lies below; `/` in production.
    pub root: PathBuf,
    /// Name of this node; the host name when absent.
    pub node: Option<NodeName>,
}

/// The daemon's state, all of it owned by the main loop.
struct Daemon {
    layout: Layout,
    cluster: ClusterConfig,
    name: NodeName,
    node: Node,
    modules: BTreeMap<ModuleName, Module>,
    heartbeats: Heartbeats,
    hold_off: HoldOff,
    health: Health,
    door: Arc<Door>,
    configuring: Arc<Configuring>,
    renewal: Renewal,
    journal: Journal,
    recorder: Recorder,
    sender: Sender<Event>,
    queue: Queue,
    jobs: BTreeMap<JobId, Pending>,
    next_job: u64,
    waiting: Vec<Waiting>,
    next_generation: u64,
    witness: WitnessSeen,
    watchdog: Watchdog,
    inherited: Inherited,
    house: House,
    unwritten: Unwritten,
}

/// Records that could not be written.
#[derive(Debug, Default)]
struct Unwritten {
    /// Those of which the core does not know yet: until then no peer may hear what it reports.
    untold: VecDeque<Input>,
    /// Something is to be announced once it knows.
    unannounced: bool,
}

/// An operator's job without an outcome.
struct Pending {
    module: ModuleName,
    since: Time,
    lines: Sender<Line>,
}

/// How a daemon ends.
enum Ending {
    End,
    Again,
}

/// What is known of the witness, for the status.
#[derive(Debug, Clone, Default)]
struct WitnessSeen {
    last_answer: Option<Time>,
    error: Option<String>,
}

/// When what goes on by itself was looked after.
struct House {
    kept: Time,
    quarantines: Option<Time>,
    /// When room was set aside.
    room: Time,
    networks: Networks,
}

impl Daemon {
    /// Serves until it is told to end, or to start anew. What it runs goes on.
    fn serve(mut self) -> Ending {
        // Heartbeats stop when this loop is late, and an address must be dropped in time.
        urgent::prefer();
        loop {
            // Before this node shows that it lives: what could not be written is not to be said.
            self.tell_unwritten();
            let now = clock::now();
            self.heartbeats.tick(now);
            for event in self.watchdog.tick(now) {
                self.journal.write(event);
            }
            let pause = self.node.deadline().map_or(PULSE, |at| at.since(now)).min(PULSE);
            match self.queue.next(pause) {
                Ok(Event::Terminate) | Err(RecvTimeoutError::Disconnected) => {
                    return self.end(Ending::End);
                }
                Ok(Event::Again) => return self.end(Ending::Again),
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = clock::now();
            if self.node.deadline().is_some_and(|at| at <= now) {
                self.input(Input::Tick);
            }
            self.keep_house(now);
            self.answer_waiting(now);
            if self.health.is_asked() {
                self.health.tell(now, &self.node.status(now));
            }
        }
    }

    /// The farms of others are told that the kernel goes on, unless the machine goes down.
    fn end(mut self, ending: Ending) -> Ending {
        match ending {
            Ending::End => self.watchdog.end(),
            Ending::Again => self.watchdog.hand_on(),
        }
        if self.heartbeats.are_awaited()
            && (matches!(ending, Ending::Again) || !farms::is_machine_going())
        {
            self.heartbeats.end();
        }
        ending
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.input(input),
            Event::Replicator { module, generation, message } => {
                if self.is_current(&module, generation) {
                    self.hear_replicator(module, message);
                }
            }
            Event::ReplicatorEnded { module, generation, how } => {
                if self.is_current(&module, generation) {
                    self.replicator_ended(module, how);
                }
            }
            Event::Connection { module, caller, stream } => {
                self.connection(&module, caller, stream);
            }
            Event::WitnessHeard { module, request, result } => {
                self.witness_heard(module, request, result);
            }
            Event::Request { verb, lines } => self.request(verb, lines),
            Event::Explain(event) => self.journal.write(event),
            Event::Reserve(reservation) => self.reserve(reservation),
            Event::Terminate | Event::Again => {}
        }
    }

    /// Hands an input to the core and performs what it wants done.
    fn input(&mut self, input: Input) {
        self.tell_unwritten();
        self.hand_in(input);
    }

    /// Tells the core which records could not be written. What follows from that may fail too, and
    /// is told later, so that the loop goes on turning.
    fn tell_unwritten(&mut self) {
        for _ in 0..self.unwritten.untold.len() {
            if let Some(failed) = self.unwritten.untold.pop_front() {
                self.hand_in(failed);
            }
        }
    }

    /// What the other nodes of farms have said by now is known before anything is decided.
    fn hand_in(&mut self, input: Input) {
        for pulse in self.queue.pulses() {
            self.hand_in_alone(pulse);
        }
        self.hand_in_alone(input);
    }

    fn hand_in_alone(&mut self, input: Input) {
        let now = clock::now();
        self.recorder.input(now, &input);
        self.watchdog.hear(&input);
        self.note_done(&input);
        let effects = self.node.handle(now, input);
        self.record(now, &effects);
        self.perform(effects);
    }

    /// Records what came of the input before, or of the start.
    fn record(&mut self, now: Time, effects: &[Effect]) {
        if let Some(event) = self.recorder.effects(now, effects, &self.node) {
            self.journal.write(event);
        }
    }

    /// Hands a peer's connection on to the replicator, which knows the sessions.
    fn connection(&self, name: &ModuleName, caller: Caller, stream: TcpStream) {
        // If the replicator cannot take it, the peer sees its connection closed and tries again.
        let from = caller.from.clone();
        if let Err(refusal) = self.pass_on(name, caller, &stream) {
            self.door.turn_away(&format_args!("an address of {from}"), &refusal);
            // A caller that does not listen has gone.
            let _ = connection::welcome(&Stream::plain(stream), &Welcome::Refused(refusal));
        }
    }

    fn pass_on(&self, name: &ModuleName, caller: Caller, stream: &TcpStream) -> Result<(), String> {
        let module = self.modules.get(name);
        let module = module.ok_or_else(|| format!("this node has no module {name}"))?;
        let replicator = module.replicator.as_ref();
        let replicator =
            replicator.ok_or_else(|| format!("module {name} is not running on this node"))?;
        self.keys().agree(caller.protection, module.config.replication.encrypt)?;
        drop(replicator.connection(caller, stream));
        Ok(())
    }

    /// The cluster's keys on this node.
    fn keys(&self) -> Keys {
        Keys::new(&self.layout.keys_directory())
    }

    fn is_current(&self, module: &ModuleName, generation: u64) -> bool {
        let replicator = self.modules.get(module).and_then(|module| module.replicator.as_ref());
        replicator.is_some_and(|replicator| replicator.generation == generation)
    }

    fn hear_replicator(&mut self, module: ModuleName, message: FromReplicator) {
        match message {
            FromReplicator::Event(ReplicatorEvent::Assigned { serial, number, .. })
                if self.is_closing(&module, serial) =>
            {
                if let Some(module) = self.modules.get_mut(&module) {
                    module.closing = Some((serial, number));
                }
            }
            FromReplicator::Event(event) => {
                if matches!(event, ReplicatorEvent::Resumed { .. }) {
                    self.verification_died(&module);
                }
                self.input(Input::Replicator { module, event });
            }
            FromReplicator::DataLink { received, echoed } => {
                self.input(Input::DataLink { module, received, echoed });
            }
            FromReplicator::Progress(progress) => {
                if let Some(module) = self.modules.get_mut(&module) {
                    module.progress = progress;
                }
            }
            FromReplicator::Verified(report) => self.verified(&module, &report),
            FromReplicator::TurnedAway { from, why } => {
                self.door.turn_away(&format_args!("an address of {from}"), &why);
            }
            // Taken by the thread that hears the replicator.
            FromReplicator::Marked { .. } | FromReplicator::State { .. } => {}
        }
    }

    fn is_closing(&self, module: &ModuleName, serial: u64) -> bool {
        self.modules.get(module).is_some_and(|module| module.closing_serial == Some(serial))
    }

    fn replicator_ended(&mut self, module: ModuleName, how: String) {
        self.verification_died(&module);
        let Some(state) = self.modules.get_mut(&module) else { return };
        state.replicator = None;
        state.closing_serial = None;
        state.progress = wire::local::Progress::default();
        let event = match state.closing.take() {
            Some((serial, number)) => {
                state.number = number;
                ReplicatorEvent::Assigned { serial, number, drained: false }
            }
            // Its dead mount stays, as it keeps everybody away from the directories, until the
            // next replicator is started.
            None => ReplicatorEvent::Died { how },
        };
        self.input(Input::Replicator { module, event });
    }

    fn witness_heard(
        &mut self,
        module: ModuleName,
        request: cluster::witness::Request,
        result: Result<cluster::witness::Answer, String>,
    ) {
        match result {
            Ok(answer) => {
                self.witness = WitnessSeen { last_answer: Some(clock::now()), error: None };
                self.input(Input::Witness { module, request, answer });
            }
            Err(why) => {
                self.witness.error = Some(why.clone());
                self.input(Input::WitnessUnreachable { module, why });
            }
        }
    }

    fn look_at_networks(&mut self, now: Time) {
        let heard = self.heartbeats.heard();
        let before = self.house.networks.silent_addresses(&self.cluster);
        for event in self.house.networks.look(&self.cluster, &self.name, &heard, now) {
            self.journal.write(event);
        }
        let silent = self.house.networks.silent_addresses(&self.cluster);
        if silent == before {
            return;
        }
        for module in self.modules.values() {
            let Some(replicator) = &module.replicator else { continue };
            if let Err(error) = replicator.silent(silent.clone()) {
                eprintln!("! {} silent networks: {error}", module.config.name);
            }
        }
    }

    fn keep_house(&mut self, now: Time) {
        if now.since(self.house.kept) < HOUSEKEEPING {
            return;
        }
        self.house.kept = now;
        self.give_up_jobs(now);
        self.expire_quarantines(now);
        self.look_at_networks(now);
        if now.since(self.house.room) >= ROOM {
            self.house.room = now;
            let directory = self.layout.state_directory();
            // A disk may be slow, and one that takes nothing shows at what is to be written.
            let setting_aside = move || drop(room::set_aside(&directory));
            let _ = std::thread::Builder::new().name("room".to_owned()).spawn(setting_aside);
        }
        self.renewal.keep(now);
        self.inherited.look();
        // Not by the thread that sends heartbeats, which must not wait for a disk.
        self.heartbeats.refresh_key();
        for (name, module) in &mut self.modules {
            if let Err(error) = module.addresses.keep(now) {
                eprintln!("! {name} address: {error}");
            }
        }
    }
}
