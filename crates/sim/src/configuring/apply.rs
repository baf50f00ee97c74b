//! Questions between the nodes about a configuration: one has all agree and decides, others ask
//! what became of it, and who was away catches up.

use std::time::Duration;

use cluster::configuration::{self, CatchUp, Origin, Outcome, Proposal, Testimony, Version};
use cluster::input::Command;
use model::NodeName;
use model::config::{self, Stand};

use crate::light::web;
use crate::names::node_name;
use crate::network::DELAY;
use crate::promises::Promise;
use crate::world::{Happening, World};

use super::LOOK;

/// How long a question takes to be given up.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// How often, and with what pauses, a node that has agreed is told the decision.
const COMMIT_ATTEMPTS: u32 = 10;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);
/// So many looks a proposal may be pending before the other is asked about it, and so many pass
/// after an attempt to catch up that failed.
const PATIENCE: u32 = 4;
/// How often both are looked at that must come to one configuration.
const ROUNDS: u32 = 60;

/// What a daemon does about configurations, in its memory.
#[derive(Debug, Default, Clone)]
pub(crate) struct Work {
    /// What it has proposed, and the nodes that have agreed.
    deciding: Option<(Proposal, Vec<usize>)>,
    attempts: u32,
    looks: u32,
    rest: u32,
    /// What the peer's heartbeats say.
    peer: Option<Stand>,
    /// It cannot take the peer's.
    behind: bool,
    /// Neither its own nor the peer's follows from the other.
    conflict: bool,
}

/// What a node asks another.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Prepare(Box<Proposal>),
    Commit { id: String, stand: Stand },
    Abandon { id: String },
    Testify { id: String, stand: Stand },
    Fetch { own: Stand },
}

/// What it is answered.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Done,
    Refused(String),
    Testimony(Testimony),
    Newest(Box<Version>, bool),
    Unreachable,
}

impl World {
    /// The operator applies the files of a host: without the other one, or over what that has.
    pub(crate) fn apply(&mut self, i: usize, without: bool, overwrite: bool) {
        let Some(held) = &self.hosts[i].files else { return };
        if !self.hosts[i].up || held.work.deciding.is_some() {
            return;
        }
        let newest = held.newest();
        if held.draft == newest.files && !overwrite {
            return;
        }
        let highest = held.work.peer.filter(|_| overwrite).map_or(0, |stand| stand.number);
        let proposal = Proposal {
            id: format!("{}", self.decided.proposals),
            version: Version {
                number: newest.number.max(highest) + 1,
                at_ms: 0,
                from: self.hosts[i].name.clone(),
                origin: Origin::Applied,
                files: held.draft.clone(),
            },
            base: newest.files.digests(),
            follows: newest.stand(),
            without: if without { vec![node_name(1 - i)] } else { Vec::new() },
            overwrite,
        };
        self.decided.proposals += 1;
        self.decided.apart |= without || overwrite;
        if let Some(held) = &mut self.hosts[i].files {
            held.work.deciding = Some((proposal.clone(), Vec::new()));
        }
        self.prepare(i, 0, proposal);
    }

    /// Asks the nodes in the order of `cluster.toml`, from the `n`th on.
    fn prepare(&mut self, i: usize, n: usize, proposal: Proposal) {
        for n in n..2 {
            if proposal.without.contains(&node_name(n)) {
                continue;
            }
            if n != i {
                return self.ask_peer(i, Ask::Prepare(Box::new(proposal)));
            }
            if let Err(why) = self.agree(i, &proposal) {
                return self.refused(i, &proposal.id, &why);
            }
            self.agreed(i, n);
        }
        self.decide(i, &proposal);
    }

    fn agreed(&mut self, i: usize, n: usize) {
        let held = self.hosts[i].files.as_mut();
        if let Some((_, agreed)) = held.and_then(|held| held.work.deciding.as_mut()) {
            agreed.push(n);
        }
    }

    /// Whoever has agreed is released.
    fn refused(&mut self, i: usize, id: &str, why: &str) {
        let name = self.hosts[i].name.clone();
        self.note(&format!("{name} applies nothing: {why}"));
        let deciding = self.hosts[i].files.as_mut().and_then(|held| held.work.deciding.take());
        for n in deciding.map_or_else(Vec::new, |(_, agreed)| agreed) {
            if n == i {
                self.abandon(i, id);
            } else {
                self.ask_peer(i, Ask::Abandon { id: id.to_owned() });
            }
        }
    }

    /// Everybody has agreed: the node's own commit is the decision.
    fn decide(&mut self, i: usize, proposal: &Proposal) {
        let stand = proposal.version.stand();
        let name = self.hosts[i].name.clone();
        if !self.hosts[i].up {
            return;
        }
        let done = self.carry_out(i, &proposal.id, &stand);
        let has = self.hosts[i].files.as_ref().is_some_and(|held| held.has(&stand));
        if has {
            self.note(&format!("{name} decides on configuration {}", stand.number));
            let twice = self.decided.stands.iter().any(|known| known.number == stand.number);
            self.decided.stands.push(stand);
            if twice && !self.decided.apart {
                let what = format!("number {} was given twice", stand.number);
                self.violate(Promise::OneConfiguration, what);
            }
        }
        if !self.hosts[i].up {
            return;
        }
        if !done {
            return self.refused(i, &proposal.id, "it could not be written");
        }
        let held = self.hosts[i].files.as_ref();
        let agreed = held.and_then(|held| held.work.deciding.as_ref()).map(|(_, who)| who.len());
        if agreed == Some(2) {
            self.ask_peer(i, Ask::Commit { id: proposal.id.clone(), stand });
        } else {
            self.start_anew(i);
        }
    }

    fn ask_peer(&mut self, i: usize, ask: Ask) {
        let life = self.hosts[i].life;
        self.after(DELAY, Happening::Ask(1 - i, Box::new((life, ask))));
    }

    /// A question reaches a host.
    pub(crate) fn asked(&mut self, i: usize, life: u64, ask: Ask) {
        if self.network.link_dead() || !self.hosts[i].up || !self.daemons_agree() {
            let given_up = Happening::Answer(1 - i, Box::new((ask, Told::Unreachable)));
            return self.put(self.now + NO_ANSWER, life, given_up);
        }
        let answer = self.answer(i, &ask);
        let anew = matches!((&ask, &answer), (Ask::Commit { .. }, Told::Done));
        // Whoever loses power in between answers nothing.
        let answer = if self.hosts[i].up { answer } else { Told::Unreachable };
        self.put(self.now + DELAY, life, Happening::Answer(1 - i, Box::new((ask, answer))));
        if anew {
            self.start_anew(i);
        }
    }

    fn answer(&mut self, i: usize, ask: &Ask) -> Told {
        let own = self.hosts[i].name.clone();
        match ask {
            Ask::Prepare(proposal) => match self.agree(i, proposal) {
                Ok(()) => Told::Done,
                Err(why) => Told::Refused(why),
            },
            Ask::Commit { id, stand } => {
                if self.carry_out(i, id, stand) {
                    Told::Done
                } else {
                    Told::Refused(format!("{own} knows nothing of it"))
                }
            }
            Ask::Abandon { id } => {
                self.abandon(i, id);
                Told::Done
            }
            Ask::Testify { id, stand } => {
                let Some(held) = &self.hosts[i].files else { return Told::Unreachable };
                let mine = |pending: &Proposal| pending.id == *id && pending.version.from == own;
                Told::Testimony(Testimony {
                    stand: held.newest().stand(),
                    has: held.has(stand),
                    deciding: held.pending.as_ref().is_some_and(mine),
                })
            }
            Ask::Fetch { own } => {
                let Some(held) = &self.hosts[i].files else { return Told::Unreachable };
                Told::Newest(Box::new(held.newest().clone()), held.has(own))
            }
        }
    }

    /// The answer, or that there is none, reaches the host that has asked.
    pub(crate) fn answered(&mut self, i: usize, ask: Ask, answer: Told) {
        match ask {
            Ask::Prepare(proposal) => match answer {
                Told::Done => {
                    self.agreed(i, 1 - i);
                    self.prepare(i, 2 - i, *proposal);
                }
                Told::Refused(why) => self.refused(i, &proposal.id, &why),
                Told::Unreachable | Told::Testimony(_) | Told::Newest(..) => {
                    let why = format!("{} does not answer", node_name(1 - i));
                    self.refused(i, &proposal.id, &why);
                }
            },
            Ask::Commit { id, stand } => {
                let Some(held) = &mut self.hosts[i].files else { return };
                held.work.attempts += 1;
                let again = matches!(answer, Told::Unreachable);
                if again && held.work.attempts < COMMIT_ATTEMPTS {
                    let ask = Ask::Commit { id, stand };
                    let life = self.hosts[i].life;
                    let told = Happening::Ask(1 - i, Box::new((life, ask)));
                    return self.after(COMMIT_PAUSE, told);
                }
                self.start_anew(i);
            }
            Ask::Abandon { .. } => {}
            Ask::Testify { .. } => {
                if let Told::Testimony(testimony) = answer {
                    self.resolve(i, testimony);
                }
            }
            Ask::Fetch { own } => {
                if let Told::Newest(version, knows_own) = answer {
                    self.take_over(i, &own, &version, knows_own);
                }
            }
        }
    }

    /// What the peer's heartbeat says of its configuration.
    pub(crate) fn hear_stand(&mut self, i: usize, stand: Stand) {
        if let Some(held) = &mut self.hosts[i].files {
            held.work.peer = Some(stand);
        }
    }

    /// Looks what became of what this host has agreed to, and whether the peer has something newer.
    pub(crate) fn look_at_configurations(&mut self, i: usize) {
        self.after(LOOK, Happening::Look(i));
        let own = self.hosts[i].name.clone();
        let Some(held) = &mut self.hosts[i].files else { return };
        let pending = held.pending.as_ref().filter(|pending| pending.version.from != own);
        if let Some(pending) = pending {
            held.work.looks += 1;
            if held.work.looks >= PATIENCE {
                let (id, stand) = (pending.id.clone(), pending.version.stand());
                self.ask_peer(i, Ask::Testify { id, stand });
            }
            return;
        }
        held.work.looks = 0;
        let Some(peer) = held.work.peer else { return };
        if configuration::catch_up(&held.in_use.stand, &peer) == CatchUp::Nothing {
            (held.work.behind, held.work.conflict) = (false, false);
            return;
        }
        held.work.rest = held.work.rest.saturating_sub(1);
        if held.work.rest > 0 || held.work.deciding.is_some() {
            return;
        }
        let newest = held.newest().stand();
        match configuration::catch_up(&newest, &peer) {
            CatchUp::Nothing => {}
            CatchUp::Ask => self.ask_peer(i, Ask::Fetch { own: newest }),
            CatchUp::Conflict => held.work.conflict = true,
        }
    }

    fn resolve(&mut self, i: usize, testimony: Testimony) {
        let pending = self.hosts[i].files.as_ref().and_then(|held| held.pending.clone());
        let Some(pending) = pending else { return };
        let heard = [(node_name(1 - i), testimony)].into();
        match configuration::outcome(&pending, &heard) {
            Outcome::Unknown => {}
            Outcome::Abandon => self.abandon(i, &pending.id),
            Outcome::Commit => {
                if self.carry_out(i, &pending.id, &pending.version.stand()) {
                    self.start_anew(i);
                }
            }
        }
    }

    fn take_over(&mut self, i: usize, own: &Stand, version: &Version, knows_own: bool) {
        let taken = match configuration::take_over(own, &version.stand(), knows_own) {
            CatchUp::Nothing => return,
            CatchUp::Conflict => Err(true),
            CatchUp::Ask => self.catch_up(i, version).map_err(|_| false),
        };
        let Some(held) = &mut self.hosts[i].files else { return };
        match taken {
            Ok(()) => self.start_anew(i),
            Err(conflict) => {
                (held.work.behind, held.work.conflict) = (!conflict, conflict);
                held.work.rest = PATIENCE;
            }
        }
    }

    fn catch_up(&mut self, i: usize, version: &Version) -> Result<(), String> {
        self.parsed(version)?;
        let Some(held) = &self.hosts[i].files else { return Err(String::new()) };
        if held.work.deciding.is_some() || held.newest().number >= version.number {
            return Err("it has changed its own meanwhile".to_owned());
        }
        let changes = config::changes(&held.newest().files, &version.files);
        self.reserve(i, config::to_stop(&changes))?;
        if self.take(i, version, false) {
            return Ok(());
        }
        self.release(i);
        Err("it could not be written".to_owned())
    }

    fn agree_by_now(&self) -> bool {
        let [one, two] = [&self.hosts[0], &self.hosts[1]];
        let (Some(a), Some(b)) = (&one.files, &two.files) else { return true };
        let idle = [a, b].iter().all(|held| held.pending.is_none() && held.work.deciding.is_none());
        one.up && two.up && idle && a.in_use.stand == b.in_use.stand
    }
}

/// Runs until both have one configuration; the operator stops what has to be stopped for it, and
/// says which one shall do if each was given its own.
pub(crate) fn settle(world: &mut World) {
    for _ in 0..ROUNDS {
        if world.violation.is_some() || world.agree_by_now() {
            break;
        }
        // The operator switches on what a command has switched off meanwhile.
        for i in 0..2 {
            if world.fence.is_some() && !world.hosts[i].up {
                world.boot(i);
            }
        }
        let works = [0, 1].map(|i| world.hosts[i].files.as_ref().map(|held| &held.work));
        let behind = works.map(|work| work.is_some_and(|work| work.behind));
        let conflict = works.iter().flatten().any(|work| work.conflict);
        for i in (0..2).filter(|i| behind[*i] || conflict) {
            world.command(i, Command::StopAll);
            world.command_of(i, web(), Command::Stop);
        }
        if conflict {
            world.apply(0, false, true);
        }
        world.run_for(Duration::from_secs(2));
    }
    let Some(stands) = stands(world) else { return };
    if world.violation.is_some() {
        return;
    }
    let newest = world.decided.stands.iter().max_by_key(|stand| stand.number).copied();
    if stands[0] != stands[1] {
        let shown = stands.map(|stand| stand.number);
        world.violate(Promise::OneConfiguration, format!("they have {shown:?}"));
    } else if newest.is_some_and(|newest| newest.number != stands[0].number) {
        let what = format!("{newest:?} was decided, and both have {}", stands[0].number);
        world.violate(Promise::OneConfiguration, what);
    }
}

fn stands(world: &World) -> Option<[Stand; 2]> {
    Some([world.in_use(0)?.stand, world.in_use(1)?.stand])
}

/// Whether a host has a configuration of this number in use.
pub(crate) fn has_number(world: &World, i: usize, number: u64) -> Result<(), String> {
    let is = world.in_use(i).map(|parsed| parsed.stand.number);
    let name: &NodeName = &world.hosts[i].name;
    if is == Some(number) { Ok(()) } else { Err(format!("{name} has configuration {is:?}")) }
}
