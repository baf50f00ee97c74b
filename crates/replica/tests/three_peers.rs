//! A source with three peers, simulated: the production acknowledgement and sessions, one of them
//! for each peer, under random changes, delays, losses and returns. One secondary is what can be
//! configured; the data structures are for any number.
//!
//! A returning peer is given a whole copy at one instant: how a resync gets there is the walk's
//! business, and tested with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::NodeName;
use model::config::Ack;
use replica::op::{FileId, Op, Stamp};
use replica::{Acknowledge, Names, Session, Step};

const SEEDS: u64 = 300;
const STEPS: usize = 400;
const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
const PEERS: [&str; 3] = ["b", "c", "d"];
const EXCHANGE: u32 = 2;
const AT: Stamp = Stamp { seconds: 1, nanoseconds: 0 };

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % limit
    }
}

/// A tree in memory: directories and files by number.
#[derive(Clone, Default)]
struct Tree {
    directories: BTreeMap<u64, BTreeMap<Vec<u8>, u64>>,
    files: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Tree {
    fn new() -> Tree {
        let directories = BTreeMap::from([(1, BTreeMap::new())]);
        Tree { directories, files: BTreeMap::new(), next: 2 }
    }

    fn child(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.directories.get(&parent)?.get(name).copied()
    }

    fn names_of(&self, node: u64) -> Vec<(u64, Vec<u8>)> {
        let all = self.directories.iter().flat_map(|(parent, names)| {
            names.iter().map(move |(name, node)| (*parent, name.clone(), *node))
        });
        all.filter(|(_, _, named)| *named == node).map(|(parent, name, _)| (parent, name)).collect()
    }

    fn create(&mut self, parent: u64, name: &[u8], directory: bool) -> u64 {
        let node = self.next;
        self.next += 1;
        if directory {
            self.directories.insert(node, BTreeMap::new());
        } else {
            self.files.insert(node, Vec::new());
        }
        assert_eq!(self.directories.get_mut(&parent).unwrap().insert(name.to_vec(), node), None);
        node
    }

    fn link(&mut self, node: u64, parent: u64, name: &[u8]) {
        assert_eq!(self.directories.get_mut(&parent).unwrap().insert(name.to_vec(), node), None);
    }

    fn remove(&mut self, parent: u64, name: &[u8]) {
        self.directories.get_mut(&parent).unwrap().remove(name).unwrap();
    }

    fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) {
        let node = self.child(from.0, from.1).unwrap();
        let other = self.child(to.0, to.1);
        self.remove(from.0, from.1);
        self.directories.get_mut(&to.0).unwrap().insert(to.1.to_vec(), node);
        if flags == EXCHANGE {
            self.directories.get_mut(&from.0).unwrap().insert(from.1.to_vec(), other.unwrap());
        }
    }

    /// Paths and contents, and which paths are one file.
    fn shown(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>, usize)> {
        let (mut shown, mut first) = (Vec::new(), BTreeMap::new());
        let mut rest = vec![(1, Vec::new())];
        while let Some((directory, path)) = rest.pop() {
            for (name, node) in &self.directories[&directory] {
                let path = [&path[..], b"/", name].concat();
                let count = first.len();
                let group = *first.entry(*node).or_insert(count);
                shown.push((path.clone(), self.files.get(node).cloned(), group));
                if self.directories.contains_key(node) {
                    rest.push((*node, path));
                }
            }
        }
        shown
    }
}

fn id(node: u64) -> FileId {
    FileId { tree: 0, node }
}

impl Names for Tree {
    fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)> {
        let names = Tree::names_of(self, file.node);
        names.into_iter().map(|(parent, name)| (id(parent), name)).collect()
    }

    fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        Tree::child(self, parent.node, name).map(id)
    }

    fn is_linked(&self, file: FileId) -> bool {
        file.node == 1 || !Tree::names_of(self, file.node).is_empty()
    }

    fn is_known(&self, _file: FileId) -> bool {
        true
    }
}

/// A change, owned, so that it can travel.
#[derive(Clone)]
enum Change {
    Write { file: u64, data: Vec<u8> },
    Create { parent: u64, name: Vec<u8>, file: u64, directory: bool },
    Link { file: u64, parent: u64, name: Vec<u8> },
    Remove { parent: u64, name: Vec<u8> },
    Rename { from: (u64, Vec<u8>), to: (u64, Vec<u8>), flags: u32 },
    Sync { file: u64 },
}

impl Change {
    fn op(&self) -> Op<'_> {
        match self {
            Change::Write { file, data } => {
                Op::Write { file: id(*file), offset: 0, data, mtime: AT }
            }
            Change::Create { parent, name, file, directory } => Op::Create {
                parent: id(*parent),
                name,
                file: id(*file),
                mode: if *directory { 0o040_755 } else { 0o100_644 },
                uid: 0,
                gid: 0,
                rdev: 0,
                target: b"",
                mtime: AT,
                parent_mtime: AT,
            },
            Change::Link { file, parent, name } => {
                Op::Link { file: id(*file), parent: id(*parent), name, parent_mtime: AT }
            }
            Change::Remove { parent, name } => {
                Op::Remove { parent: id(*parent), name, directory: false, parent_mtime: AT }
            }
            Change::Rename { from, to, flags } => Op::Rename {
                parent: id(from.0),
                name: &from.1,
                new_parent: id(to.0),
                new_name: &to.1,
                flags: *flags,
                parent_mtime: AT,
                new_parent_mtime: AT,
            },
            Change::Sync { file } => Op::Sync { file: id(*file), data_only: true },
        }
    }
}

enum Message {
    Bind { file: u64, parent: u64, name: Vec<u8> },
    Change { number: u64, change: Change },
}

/// A peer: its copy, its session, and what is on its way to it.
struct Peer {
    name: NodeName,
    tree: Tree,
    /// The source's ids, and what stands for them here.
    bound: BTreeMap<u64, u64>,
    session: Session,
    stream: VecDeque<Message>,
    applied: u64,
    durable: BTreeSet<u64>,
    up: bool,
}

impl Peer {
    fn own(&self, node: u64) -> u64 {
        if node == 1 { 1 } else { *self.bound.get(&node).expect("it was bound before") }
    }

    /// Takes one message; says what is to be confirmed.
    fn take(&mut self) -> Option<Confirmed> {
        match self.stream.pop_front()? {
            Message::Bind { file, parent, name } => {
                let own = self.tree.child(self.own(parent), &name).expect("the name is there");
                self.bound.insert(file, own);
                None
            }
            Message::Change { number, change } => {
                assert!(number > self.applied, "operations come in order");
                self.apply(&change);
                self.applied = number;
                Some(match change {
                    Change::Sync { .. } => Confirmed::Durable(number),
                    _ => Confirmed::Applied(number),
                })
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, data } => {
                let own = self.own(*file);
                *self.tree.files.get_mut(&own).unwrap() = data.clone();
            }
            Change::Create { parent, name, file, directory } => {
                let own = self.tree.create(self.own(*parent), name, *directory);
                self.bound.insert(*file, own);
            }
            Change::Link { file, parent, name } => {
                let (own, parent) = (self.own(*file), self.own(*parent));
                self.tree.link(own, parent, name);
            }
            Change::Remove { parent, name } => {
                let parent = self.own(*parent);
                self.tree.remove(parent, name);
            }
            Change::Rename { from, to, flags } => {
                let (from_own, to_own) = (self.own(from.0), self.own(to.0));
                self.tree.rename((from_own, &from.1), (to_own, &to.1), *flags);
            }
            Change::Sync { file } => assert!(self.own(*file) > 0),
        }
    }
}

enum Confirmed {
    Applied(u64),
    Durable(u64),
}

/// What an answer is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Change(u64),
    Sync(u64),
}

struct World {
    random: Random,
    source: Tree,
    acks: Acknowledge<Answer>,
    ack: Ack,
    required: BTreeSet<NodeName>,
    peers: Vec<Peer>,
    answered: usize,
    waiting: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let peers = PEERS.map(|name| Peer {
            name: NodeName::new(name).unwrap(),
            tree: Tree::new(),
            bound: BTreeMap::new(),
            session: Session::settled(),
            stream: VecDeque::new(),
            applied: 0,
            durable: BTreeSet::new(),
            up: true,
        });
        let mut world = World {
            random: Random(seed),
            source: Tree::new(),
            acks: Acknowledge::new(0),
            ack: if seed.is_multiple_of(3) { Ack::Fsync } else { Ack::Write },
            required: BTreeSet::new(),
            peers: peers.into(),
            answered: 0,
            waiting: 0,
        };
        world.require(PEERS.iter().map(|name| NodeName::new(name).unwrap()).collect());
        world
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.lose_or_return(),
            1 => self.require_some(),
            2..=9 => self.deliver(),
            _ => self.change(),
        }
    }

    fn change(&mut self) {
        let directories: Vec<u64> = self.source.directories.keys().copied().collect();
        let linked = |node: &u64| *node == 1 || !self.source.names_of(*node).is_empty();
        let directories: Vec<u64> = directories.into_iter().filter(linked).collect();
        let parent = directories[self.random.below(directories.len())];
        let name = NAMES[self.random.below(NAMES.len())].to_vec();
        let files: Vec<u64> = self.source.files.keys().copied().collect();
        let there = self.source.child(parent, &name);
        let change = match (self.random.below(8), there) {
            (0 | 1, None) => {
                let directory = self.random.below(3) == 0;
                let file = self.source.create(parent, &name, directory);
                Change::Create { parent, name, file, directory }
            }
            (2, None) if !files.is_empty() => {
                let file = files[self.random.below(files.len())];
                if self.source.names_of(file).is_empty() {
                    return;
                }
                self.source.link(file, parent, &name);
                Change::Link { file, parent, name }
            }
            (3, Some(node)) if self.source.files.contains_key(&node) => {
                self.source.remove(parent, &name);
                Change::Remove { parent, name }
            }
            (4, Some(node)) => match self.renaming(node, (parent, name)) {
                Some(change) => change,
                None => return,
            },
            (5, _) if !files.is_empty() => {
                Change::Sync { file: files[self.random.below(files.len())] }
            }
            _ if !files.is_empty() => {
                let file = files[self.random.below(files.len())];
                let data = vec![self.random.below(256) as u8; self.random.below(4)];
                *self.source.files.get_mut(&file).unwrap() = data.clone();
                Change::Write { file, data }
            }
            _ => return,
        };
        self.record(&change);
    }

    fn renaming(&mut self, node: u64, from: (u64, Vec<u8>)) -> Option<Change> {
        // Files alone move: what lies below a directory must not become its own parent.
        if !self.source.files.contains_key(&node) {
            return None;
        }
        let directories: Vec<u64> = self.source.directories.keys().copied().collect();
        let parent = directories[self.random.below(directories.len())];
        if parent != 1 && self.source.names_of(parent).is_empty() {
            return None;
        }
        let to = (parent, NAMES[self.random.below(NAMES.len())].to_vec());
        let other = self.source.child(to.0, &to.1);
        let exchange = self.random.below(2) == 0;
        let flags = match other {
            Some(other) if other == node || !self.source.files.contains_key(&other) => return None,
            Some(_) if exchange => EXCHANGE,
            _ => 0,
        };
        self.source.rename((from.0, &from.1), (to.0, &to.1), flags);
        Some(Change::Rename { from, to, flags })
    }

    /// As the recorder does: number it, tell each peer, hold the answer back.
    fn record(&mut self, change: &Change) {
        let number = self.acks.next_number();
        let mut travels = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.up) {
            let steps = peer.session.live(&change.op(), &self.source).unwrap();
            travels |= !steps.is_empty();
            for step in steps {
                peer.stream.push_back(match step {
                    Step::Bind { file, parent, name } => {
                        Message::Bind { file: file.node, parent: parent.node, name }
                    }
                    Step::Operation => Message::Change { number, change: change.clone() },
                    Step::Forget(_) => panic!("every id stays in use"),
                    Step::Ensure { .. } | Step::Discard { .. } => panic!("nothing is compared"),
                });
            }
        }
        self.waiting += 1;
        let due = if let Change::Sync { .. } = change {
            if travels {
                self.acks.sync_begins(number);
            }
            self.acks.sync_local(number, !travels, Answer::Sync(number))
        } else {
            self.acks.answer(number, travels, Answer::Change(number))
        };
        if travels {
            self.answer(due.into_iter().collect());
        } else {
            // Nobody need know of it: it was done to a file without a name.
            self.answered += due.into_iter().count();
        }
    }

    /// Each answer that is due must be one that may be given.
    fn answer(&mut self, due: Vec<Answer>) {
        self.answered += due.len();
        for answer in due {
            for peer in self.peers.iter().filter(|peer| self.required.contains(&peer.name)) {
                let told = match answer {
                    Answer::Change(number) => self.ack == Ack::Fsync || peer.applied >= number,
                    // One that became required since was given a copy that is durable.
                    Answer::Sync(number) => peer.durable.contains(&number),
                };
                assert!(told, "{} has not confirmed what is answered", peer.name);
            }
        }
    }

    fn deliver(&mut self) {
        let at = self.random.below(PEERS.len());
        for _ in 0..self.random.below(6) {
            let peer = &mut self.peers[at];
            let Some(confirmed) = peer.take() else { continue };
            let due = match confirmed {
                Confirmed::Applied(number) => self.acks.applied(&peer.name, number),
                Confirmed::Durable(number) => {
                    peer.durable.insert(number);
                    let mut due = self.acks.applied(&peer.name, number);
                    due.extend(self.acks.durable(&peer.name, number));
                    due
                }
            };
            self.answer(due);
        }
    }

    fn lose_or_return(&mut self) {
        let at = self.random.below(PEERS.len());
        let name = self.peers[at].name.clone();
        if self.peers[at].up {
            self.acks.forget(&name);
            self.peers[at].up = false;
            self.peers[at].stream.clear();
            let mut rest = self.required.clone();
            rest.remove(&name);
            self.require(rest);
            return;
        }
        let number = self.acks.number();
        let peer = &mut self.peers[at];
        (peer.tree, peer.bound) = (self.source.clone(), BTreeMap::new());
        (peer.session, peer.applied, peer.up) = (Session::settled(), number, true);
        peer.durable = (0..=number).collect();
        self.acks.forget(&name);
        let due = self.acks.applied(&name, number);
        self.answer(due);
    }

    fn require_some(&mut self) {
        let up = self.peers.iter().filter(|peer| peer.up).map(|peer| peer.name.clone());
        let some: BTreeSet<NodeName> = up.collect();
        let some = some.into_iter().filter(|_| self.random.below(3) > 0).collect();
        self.require(some);
    }

    fn require(&mut self, required: BTreeSet<NodeName>) {
        // A sync is owed by those alone that were required when it began: what came before, a
        // peer that becomes required holds durably, which the cluster sees to.
        for peer in self.peers.iter_mut().filter(|peer| !self.required.contains(&peer.name)) {
            peer.durable.extend(0..=self.acks.number());
        }
        self.required = required.clone();
        let due = self.acks.require(self.ack, required);
        self.answer(due);
    }

    /// Everything arrives, everybody is answered, and all copies are equal.
    fn finish(mut self) {
        while self.peers.iter().any(|peer| !peer.stream.is_empty()) {
            self.deliver();
        }
        assert_eq!(self.acks.held_back(), 0, "somebody waits for ever");
        assert_eq!(self.answered, self.waiting);
        for peer in self.peers.iter().filter(|peer| peer.up) {
            assert_eq!(peer.tree.shown(), self.source.shown(), "the copy of {}", peer.name);
        }
    }
}

#[test]
fn each_of_three_peers_is_told_and_awaited_by_itself() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let steps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.finish();
        }));
        assert!(steps.is_ok(), "seed {seed}");
    }
}
