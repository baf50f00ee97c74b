//! The mirror: one module on one node, as a state machine.
//!
//! ```text
//!            start                 offer                 in sync
//!   STOP ------------> Wait ------------------> Follow ------------+
//!    ^                 ^ ^ \  session over        |                | SECOND
//!    |                 | |  +<----- Settle <------+ <--------------+
//!    |           lost  | |
//!   Quit <-- any       | | refused            granted, consent, policy
//!                      | +--------- Ask -----------------> Fence
//!                      |                                     | waited out
//!                    Lose <--- Serve <------ Promote <-------+
//!                              |  ^             ^
//!                     switchover  | failed      | sole member, or in sync and chosen
//!                              v  |             |
//!                            HandOver --> Wait -+
//! ```
//!
//! `Wait` is where every decision to start is taken; `Serve` is ALONE or PRIM, depending on the
//! session that it keeps. Nothing is remembered about messages: after each input `step` looks at
//! the facts (own record, peer's report, what replicator, service and witness said) until there is
//! nothing left to do. This file holds the data and the loop, its siblings the rules; what is not
//! about two copies is in `application`.

mod alone;
mod cover;
mod facts;
mod heal;
mod held;
mod inputs;
mod isolated;
mod keep;
mod lose;
mod operator;
mod prepare;
mod reasons;
mod recover;
mod role;
mod source;
mod start;
mod stop;
mod target;
mod unwitnessed;
mod view;
mod wanted;
mod witnessing;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use model::{BootId, Epoch, EpochId, NodeName, SessionId, Time};
use serde::{Deserialize, Serialize};

pub use self::facts::data_fault;
use crate::application::Base;
use crate::effect::{Assignment, Effect};
use crate::input::{Boot, BootModule, DataState, Running};
use crate::report::{Report, SessionStep};
use crate::rng::Rng;
use crate::witness;

/// Rounds of `step` after one input; more would be a loop of decisions undoing each other.
const ROUNDS_MAX: usize = 64;

/// What the node is doing for the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Not started.
    Stop,
    /// Looks at the facts: who may start?
    Wait,
    /// Wants to go on without the peer; the epoch is in `proposal` and perhaps pending.
    Ask { since: Time },
    /// May go on, and waits until the old primary has certainly let go.
    Fence { until: Time },
    /// Takes up the role.
    Promote(Promote),
    /// Runs the application.
    Serve,
    /// Gives the role to the peer, and then stops if so wanted.
    HandOver { step: HandOver, stop: bool },
    /// Lets go of everything at once.
    Lose,
    /// Receives from a source.
    Follow { session: SessionId, resume: bool, step: Follow },
    /// Ends a session for good: R3.
    Settle,
    /// Stops.
    Quit { step: Quit, since: Time },
}

/// Steps of taking up the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Promote {
    /// The peer, in sync, prepares to receive.
    Offer { since: Time },
    /// The replicator opens the directories.
    Open,
    /// Addresses are taken.
    Address,
    /// The application starts.
    Service,
}

/// Steps of giving up the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HandOver {
    Address,
    Service,
    Drain,
}

/// Steps of following.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Follow {
    Preparing,
    Ready,
    Done,
}

/// Steps of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Quit {
    /// Asks the peer to go on without this node.
    Leave,
    /// Waits for the primary, which is being stopped too.
    AwaitPrimary,
    Address,
    Service,
    Hold,
    Close,
}

/// The session that this node offers or serves as source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    id: SessionId,
    /// When it was first offered.
    since: Time,
    resync: bool,
    step: SessionStep,
    /// The target has been seen to take part.
    joined: bool,
    /// The replicator has been told of it.
    assigned: bool,
    /// Number that the target must have made durable.
    barrier: Option<u64>,
}

/// What is known of the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    boot: Option<BootId>,
    report: Option<Arc<Report>>,
    cluster_digest: u64,
    two_way: bool,
    received: Option<Time>,
    echoed: Option<Time>,
    link_received: Option<Time>,
    link_echoed: Option<Time>,
    /// When the newest heartbeat came that this program cannot read, and its version.
    unread: Option<(Time, u16)>,
}

/// What the replicator said since its newest assignment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Replicator {
    serial: u64,
    assigned: Option<Assignment>,
    ack: Option<(u64, bool)>,
    refused: Option<String>,
    link: Option<SessionId>,
    lost: Option<(SessionId, String)>,
    synced: Option<SessionId>,
    durable: Option<(SessionId, u64)>,
    target_failed: Option<(SessionId, String)>,
    copy_failed: Option<String>,
    /// The disk was put back to an earlier state, be that recorded yet or not.
    restored: bool,
    died: Option<String>,
    /// This process has served or received, so its operation number means something.
    continuous: bool,
    /// Whether nothing was changed past replication before this process began, once it is known.
    looked_back: Option<bool>,
    /// Which owners of files have other numbers here than at the source.
    owners_differ: Option<String>,
}

/// The conversation with the witness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Talk {
    asked: Option<(witness::Request, Time)>,
    answer: Option<(witness::Request, witness::Answer)>,
    retry_at: Time,
    probe_at: Time,
    answered: bool,
    unreachable: Option<String>,
    trouble: Option<String>,
    enrolled: Option<(EpochId, Time)>,
    /// What a probe found in the register, which may be nothing; unknown before the first.
    stands: Option<Option<EpochId>>,
    /// The epoch that is to be enrolled or restated, for the witness cannot swap it in, and over
    /// what it is restated.
    unswappable: Option<(EpochId, Option<EpochId>)>,
}

/// One module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mirror {
    base: Base,
    peer_name: NodeName,
    digest: Arc<BTreeMap<String, u64>>,
    cluster_digest: u64,
    first: bool,
    has_witness: bool,
    fault: Option<String>,
    /// What was found that is at fault.
    #[serde(default)]
    wrong: Option<DataState>,
    /// The same, once the operator has had this node forget what it held.
    #[serde(default)]
    forgotten: Option<heal::Forgotten>,
    empty: bool,
    number: Option<u64>,
    state: State,
    peer: Peer,
    listening: Time,
    replicator: Replicator,
    /// The fence bound passed while undecided: addresses are to be taken again if this node wins.
    fenced: bool,
    session: Option<Session>,
    script: prepare::Script,
    proposal: Option<Epoch>,
    consent: Option<EpochId>,
    handover: Option<u64>,
    leaving: bool,
    copy_failed: Option<String>,
    /// It failed while following: then not even a resync is tried before the operator says so.
    failed_following: bool,
    /// Why the last session that was to bring the peer up to date ended before that.
    join_failed: Option<String>,
    in_sync_since_boot: bool,
    by_policy: bool,
    reached: isolated::Reached,
    hold_off: unwitnessed::HoldOff,
    talk: Talk,
    /// What is not done by itself, or is.
    held: held::Held,
    peer_stopped_since: Option<Time>,
    undecided_since: Option<Time>,
    opened_at: Time,
    /// The application has run here ever since `record.served` says.
    #[serde(default)]
    counts: bool,
    /// What the operator has given up with the word that made this node primary.
    #[serde(default)]
    given_up: Option<String>,
    /// What this node brings forward where its copy and the peer's went apart.
    #[serde(default)]
    claim: Option<keep::Brought>,
    /// Since when both nodes wait for what they find to have been changed past replication.
    #[serde(default)]
    look_back_since: Option<Time>,
    /// The epoch in which the witness refused this node: asking again is of no use.
    refused_in: Option<EpochId>,
    /// The session ended last: never joined again.
    burnt: Option<SessionId>,
    rng: Rng,
}

/// What a mirror has as every kind of module has it reads as its own.
impl Deref for Mirror {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

impl DerefMut for Mirror {
    fn deref_mut(&mut self) -> &mut Base {
        &mut self.base
    }
}

impl Mirror {
    pub(crate) fn new(now: Time, boot: &Boot, module: &BootModule, stream: u64) -> Mirror {
        let config = &module.config;
        let other = config.nodes.iter().find(|node| **node != boot.name);
        let first = config.failover.prefer.as_ref().or(config.nodes.first());
        let record = &module.record;
        Mirror {
            base: Base::new(now, boot, module),
            peer_name: other.unwrap_or(&boot.name).clone(),
            first: first == Some(&boot.name),
            digest: Arc::new(module.digest.clone()),
            cluster_digest: boot.cluster_digest,
            has_witness: boot.cluster.witness.is_some(),
            fault: data_fault(record, &module.data),
            wrong: data_fault(record, &module.data).map(|_| module.data.clone()),
            forgotten: None,
            empty: module.data == DataState::Empty,
            number: record.number.filter(|_| record.open_in.is_none()),
            state: if record.started { State::Wait } else { State::Stop },
            peer: Peer::default(),
            listening: now,
            replicator: Replicator::default(),
            fenced: false,
            session: None,
            script: prepare::Script::default(),
            proposal: None,
            consent: None,
            handover: None,
            leaving: false,
            copy_failed: None,
            failed_following: false,
            join_failed: None,
            in_sync_since_boot: false,
            by_policy: false,
            reached: isolated::Reached::new(now, boot),
            hold_off: unwitnessed::HoldOff::new(now, boot),
            talk: Talk::default(),
            held: held::Held::new(now),
            peer_stopped_since: None,
            undecided_since: None,
            opened_at: now,
            counts: false,
            given_up: None,
            claim: None,
            look_back_since: None,
            refused_in: None,
            burnt: None,
            rng: Rng::new(boot.seed, stream),
        }
    }

    /// Applies `change` to the facts and decides until nothing is left to do.
    pub(crate) fn run(&mut self, now: Time, change: impl FnOnce(&mut Mirror)) -> Vec<Effect> {
        self.begin(now);
        change(self);
        for _ in 0..ROUNDS_MAX {
            if !self.step() {
                break;
            }
        }
        self.talk.answer = None;
        self.probe_witness();
        let runs = self.state == State::Serve && self.is_at_rest();
        self.run_checks(runs);
        self.retry_addresses();
        self.finish_jobs();
        self.update_reasons();
        std::mem::take(&mut self.effects)
    }

    /// Picks up what an earlier daemon of this boot left running, if it is what the record says.
    pub(crate) fn resume(&mut self, running: Option<&Running>) {
        let Some(running) = running else { return };
        if self.record.fsynced && !self.fsyncs() {
            // Files that nobody applied may say otherwise than as it was started.
            self.persist(|record| record.fsynced = false);
        }
        self.replicator.assigned = Some(running.assignment.clone());
        self.replicator.ack = Some((0, false));
        self.replicator.continuous = true;
        self.front.addresses = running.addresses;
        self.front.running = running.service;
        let current = self.record.epoch.as_ref().map(|epoch| epoch.id);
        let fit = self.fault.is_none() && self.record.open_in == Some(self.boot);
        match &running.assignment {
            Assignment::Serve(serve)
                if fit && current == Some(serve.epoch) && self.record.holds_role =>
            {
                self.resume_serving(&serve.clone());
                if !self.record.started {
                    // An earlier daemon was stopping it.
                    self.set_addresses(false);
                    self.quit(Quit::Address);
                }
            }
            Assignment::Receive { session, .. } if fit && self.record.started => {
                let step = if self.record.promotable { Follow::Done } else { Follow::Ready };
                self.in_sync_since_boot = self.record.promotable;
                self.replicator.link = Some(*session);
                self.state = State::Follow { session: *session, resume: false, step };
            }
            Assignment::Hold { .. } | Assignment::Close
                if !running.addresses && !running.service =>
            {
                // Whether it could be done is found out by telling it once more.
                self.replicator.assigned = None;
                self.replicator.ack = None;
                if !self.record.started {
                    self.close();
                    self.quit(Quit::Close);
                }
            }
            Assignment::Serve(_)
            | Assignment::Receive { .. }
            | Assignment::Hold { .. }
            | Assignment::Close => {
                self.lose(
                    "stale-run",
                    "what an earlier daemon left running does not fit the record",
                );
            }
        }
    }

    /// One decision. Returns whether anything changed, so that it is worth looking again.
    fn step(&mut self) -> bool {
        if self.end_spans()
            || self.withdraw_consent()
            || self.give_consent()
            || self.keep_step()
            || self.write_down_served()
        {
            return true;
        }
        match self.state.clone() {
            State::Stop => {
                if self.record.started {
                    self.go(State::Wait);
                }
                self.record.started
            }
            State::Wait => self.wait_step(),
            State::Ask { since } => self.ask_step(since),
            State::Fence { until } => self.fence_step(until),
            State::Promote(step) => self.lose_if_outvoted() || self.promote_step(step),
            State::Serve => self.lose_if_outvoted() || self.serve_step(),
            State::HandOver { step, stop } => {
                self.lose_if_outvoted() || self.hand_over_step(step, stop)
            }
            State::Lose => self.lose_step(),
            State::Follow { session, resume, step } => self.follow_step(session, resume, step),
            State::Settle => self.settle_step(),
            State::Quit { step, since } => self.quit_step(step, since),
        }
    }

    pub(crate) fn peer_name(&self) -> &NodeName {
        &self.peer_name
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.config.failover.timeout
    }

    /// A node that slept knows nothing: it listens afresh before it decides anything.
    pub(crate) fn notice_gap(&mut self, now: Time, gap: Duration) {
        if gap > crate::node::gap_allowed(self.timeout()) {
            self.listening = now;
        }
    }
}
