//! A world that begins as two real nodes are, for asking what would happen to them.
//!
//! Each node is taken as a daemon that is started now would find it, which is an ordinary event.
//! What a story cannot know is invented: the files, of which only matters who has the newer ones,
//! and what stands in the witness's register, which is what the nodes believe of it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::effect::Assignment;
use cluster::found::Found;
use cluster::input::{BootModule, DataState};
use cluster::record::{Record, StoredCopy};
use cluster::status::{ContactState, WitnessState};
use cluster::witness::{Register, Witness};
use model::{ModuleName, Phase, Role};

use crate::promises::Tree;
use crate::world::{World, shop};

/// Writes that both copies hold, and those that only one holds besides.
const SHARED: u64 = 10;
const MORE: u64 = 5;
/// How long the nodes have to find their places again.
const PLACES: Duration = Duration::from_secs(3);
/// Time between two looks at that.
const LOOK: Duration = Duration::from_millis(20);
/// How long the script before a resync takes.
const SCRIPT: Duration = Duration::from_secs(1);

/// A node of the world to be.
#[derive(Debug, Clone)]
pub struct Live {
    /// The node, as it would be found.
    pub found: Found,
    /// Its daemon runs.
    pub up: bool,
}

/// How the copies of two nodes relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    Same,
    /// This node has the newer one.
    Newer(usize),
    /// Each has what the other has not.
    Apart,
}

impl World {
    /// The world of two nodes of one module, once they have found their places again.
    ///
    /// # Errors
    /// They do not get into the state that they are in: then nothing that the world does would
    /// tell anything of them.
    pub fn of(nodes: [Live; 2]) -> Result<World, String> {
        let status = |i: usize| &nodes[i].found.status;
        let has_witness = status(0).witness != WitnessState::None;
        let mut world = World::new(1, has_witness);
        let mut config = nodes[0].found.module.config.clone();
        config.name = shop();
        world.wall = nodes[0].found.wall;
        world.policy = config.failover.without_witness;
        world.script = config.scripts.before_resync.as_ref().map(|_| SCRIPT);
        world.config = Some(config);
        world.network.witness_up =
            !(0..2).any(|i| nodes[i].up && status(i).witness == WitnessState::Unreachable);
        world.network.cut = (0..2).all(|i| nodes[i].up && !hears(&nodes[i].found));
        world.witness = witness(&nodes);
        world.furnish(&nodes);
        for (i, _) in nodes.iter().enumerate().filter(|(_, node)| node.up) {
            world.boot(i);
        }
        world.find_places(&nodes)?;
        world.loose_until = model::Time::ZERO;
        world.log.clear();
        Ok(world)
    }

    /// Lets the nodes hear each other. Each has to be for a moment what it was, unless it was just
    /// passing through; what goes on by itself, such as a resync, may go on.
    fn find_places(&mut self, nodes: &[Live; 2]) -> Result<(), String> {
        let was = |i: usize| (nodes[i].found.status.role, nodes[i].found.status.phase);
        let mut astray: Vec<usize> =
            (0..2).filter(|i| nodes[*i].up && was(*i).1 == Phase::Ready).collect();
        let until = self.now + PLACES;
        while self.now < until && self.violation.is_none() {
            self.run_for(LOOK);
            astray.retain(|i| self.hosts[*i].shown != was(*i));
        }
        match (astray.first(), &self.violation) {
            (Some(i), _) => {
                let (name, is) = (&nodes[*i].found.node, shown(self.hosts[*i].shown));
                Err(format!("{name} is {}, but {is} in the simulation", shown(was(*i))))
            }
            (None, Some(broken)) => Err(broken.to_string()),
            (None, None) => Ok(()),
        }
    }

    fn furnish(&mut self, nodes: &[Live; 2]) {
        let modules = [0, 1].map(|i| &nodes[i].found.module);
        let records = modules.map(|module| &module.record);
        let trees = trees(records);
        self.checks.written([&trees[0], &trees[1]], SHARED + 2 * MORE);
        self.checks.exempt = copies(records) == Copies::Apart;
        let linked = linked(modules);
        for (i, tree) in trees.into_iter().enumerate() {
            let (found, host) = (&nodes[i].found, &mut self.hosts[i]);
            host.name = found.node.clone();
            host.boot = found.boot;
            host.record = found.module.record.clone();
            (host.disk, host.filled, host.marker) = match found.module.data {
                DataState::Empty => (true, false, None),
                DataState::Unmarked => (true, true, None),
                DataState::Marked { root, epoch } => (true, true, Some((root, epoch))),
                DataState::Unusable { .. } => (false, true, None),
            };
            host.replicator.tree = tree;
            if let Some(running) = found.module.running.as_ref().filter(|_| nodes[i].up) {
                host.addresses = running.addresses;
                host.service = running.service;
                host.replicator.found(running.assignment.clone(), linked && nodes[1 - i].up);
            }
        }
    }
}

/// Whether a node hears its peer.
#[must_use]
pub fn hears(found: &Found) -> bool {
    match found.status.peer.as_ref().map(|peer| peer.contact) {
        Some(ContactState::Alive | ContactState::DataLinkOnly) => true,
        Some(ContactState::Listening | ContactState::Lost) | None => false,
    }
}

fn shown((role, phase): (Role, Phase)) -> String {
    let phase = if phase == Phase::Ready { "" } else { "..." };
    format!("{role}{phase}")
}

fn copies([one, two]: [&Record; 2]) -> Copies {
    let current = [one, two].map(|record| record.copy == StoredCopy::Current);
    let (a, b) = match (&one.epoch, &two.epoch) {
        (None, None) => return Copies::Same,
        (Some(_), None) => return Copies::Newer(0),
        (None, Some(_)) => return Copies::Newer(1),
        (Some(a), Some(b)) => (a, b),
    };
    match current {
        [true, false] => Copies::Newer(0),
        [false, true] => Copies::Newer(1),
        [true, true] | [false, false] if a.id == b.id => {
            // In an epoch of one only its author has written.
            let newer = Copies::Newer(usize::from(!one.holds_role));
            if a.members.len() == 1 { newer } else { Copies::Same }
        }
        [true, true] | [false, false] if one.lineage.contains(b.id) => Copies::Newer(0),
        [true, true] | [false, false] if two.lineage.contains(a.id) => Copies::Newer(1),
        [true, true] | [false, false] => Copies::Apart,
    }
}

fn trees(records: [&Record; 2]) -> [Tree; 2] {
    let shared = || 1..=SHARED;
    let more = |i: u64| SHARED + i * MORE + 1..=SHARED + (i + 1) * MORE;
    let relation = copies(records);
    [0, 1].map(|i| {
        let mixed = records[i].copy == StoredCopy::Inconsistent;
        match relation {
            Copies::Same => Tree::of(shared(), mixed),
            Copies::Newer(newer) if newer != i => Tree::of(shared(), mixed),
            Copies::Newer(_) | Copies::Apart => Tree::of(shared().chain(more(i as u64)), mixed),
        }
    })
}

/// Whether one node serves the other over a link that needs no resync any more.
fn linked(modules: [&BootModule; 2]) -> bool {
    let assignment = |i: usize| modules[i].running.as_ref().map(|running| &running.assignment);
    (0..2).any(|i| match (assignment(i), assignment(1 - i)) {
        (Some(Assignment::Serve(serve)), Some(Assignment::Receive { session, .. })) => {
            let same = serve.session.as_ref().is_some_and(|serves| serves.id == *session);
            same && !serve.required.is_empty()
        }
        _ => false,
    })
}

/// The witness, with the register that the nodes believe in.
fn witness(nodes: &[Live; 2]) -> Witness {
    let records = [0, 1].map(|i| &nodes[i].found.module.record);
    let newest = match copies(records) {
        Copies::Same | Copies::Apart => 0,
        Copies::Newer(i) => i,
    };
    let believed = records[newest].registered.or(records[1 - newest].registered);
    let epochs = records.into_iter().flat_map(|record| [&record.epoch, &record.unopened]);
    let epoch = epochs.flatten().find(|epoch| Some(epoch.id) == believed);
    let both = || nodes.iter().map(|node| node.found.node.clone()).collect();
    let members = epoch.map_or_else(both, |epoch| epoch.members.clone());
    let number = epoch.map_or(0, |epoch| epoch.number);
    let register = believed.map(|current| Register { current, number, members });
    let key = ModuleName::new("lab").ok().map(|cluster| (cluster, shop()));
    Witness::that_has_heard(key.into_iter().zip(register).collect::<BTreeMap<_, _>>())
}
