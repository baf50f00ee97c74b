//! A source and a target in memory, under random changes, checkpoints, cut links and losses of
//! power: whatever their copies differ in afterwards is looked at by a delta. What is hot is the
//! production's `Heat`; what a delta makes of an entry, `Part::reach`.
//!
//! A disk keeps what was synced. Of the rest, names, attributes and times survive up to some change
//! and no further, as a journal commits them; content that was overwritten in place may have
//! reached the disk or not, each region by itself. Moved directories are not here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use activity::{Heat, Key, Part, REGION_BYTES, Reach};
use replica::op::FileId;
use replica::touch::Touch;

const SEEDS: u64 = 8000;
const STEPS: usize = 60;
const REGIONS: u32 = 3;
const DIRECTORIES: u64 = 3;
const NAMES: u64 = 3;

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// A directory and a name in it.
type Place = (u64, u64);

#[derive(Debug, Clone, Copy)]
enum Change {
    Create { at: Place, file: u64 },
    Write { file: u64, region: u32, version: u64 },
    Meta { file: u64, version: u64 },
    Rename { from: Place, to: Place },
    Link { file: u64, to: Place },
    Remove { at: Place },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    meta: u64,
    stamp: u64,
}

/// Names, attributes and times, and which regions there are.
#[derive(Debug, Clone, Default)]
struct Tree {
    names: BTreeMap<Place, u64>,
    inodes: BTreeMap<u64, Inode>,
    regions: BTreeSet<(u64, u32)>,
}

impl Tree {
    fn change(&mut self, change: Change, stamp: u64) {
        match change {
            Change::Create { at, file } => {
                self.names.insert(at, file);
                self.inodes.insert(file, Inode { meta: 0, stamp });
            }
            Change::Write { file, region, .. } => {
                self.regions.insert((file, region));
                self.inodes.get_mut(&file).unwrap().stamp = stamp;
            }
            Change::Meta { file, version } => {
                self.inodes.insert(file, Inode { meta: version, stamp });
            }
            Change::Rename { from, to } => {
                let file = self.names.remove(&from).unwrap();
                self.names.insert(to, file);
                self.inodes.get_mut(&file).unwrap().stamp = stamp;
            }
            Change::Link { file, to } => {
                self.names.insert(to, file);
                self.inodes.get_mut(&file).unwrap().stamp = stamp;
            }
            Change::Remove { at } => {
                let file = self.names.remove(&at).unwrap();
                self.inodes.get_mut(&file).unwrap().stamp = stamp;
            }
        }
    }

    /// The directories of the other names of what stands there.
    fn others(&self, at: Place) -> Vec<u64> {
        let file = self.names.get(&at);
        let others = self.names.iter().filter(|(name, other)| **name != at && Some(*other) == file);
        others.map(|((directory, _), _)| *directory).collect()
    }

    /// What the loss of a name touches.
    fn losing(&self, at: Place) -> Option<Touch> {
        let other = self.others(at).first().map(|directory| id(*directory))?;
        Some(Touch::Losing { file: id(self.names[&at]), other: Some(other) })
    }
}

#[derive(Debug, Clone, Default)]
struct Disk {
    seen: Tree,
    durable: Tree,
    /// Changes that the journal has not committed.
    journal: VecDeque<(Change, u64)>,
    content: BTreeMap<(u64, u32), u64>,
    durable_content: BTreeMap<(u64, u32), u64>,
}

impl Disk {
    fn apply(&mut self, change: Change, stamp: u64) {
        self.seen.change(change, stamp);
        self.journal.push_back((change, stamp));
        if let Change::Write { file, region, version } = change {
            self.content.insert((file, region), version);
        }
    }

    /// The journal commits so many changes; what is new has its content by then.
    fn commit(&mut self, count: usize) {
        for (change, stamp) in self.journal.drain(..count) {
            if let Change::Write { file, region, version } = change
                && !self.durable.regions.contains(&(file, region))
            {
                let known = self.durable_content.entry((file, region)).or_insert(version);
                *known = version.max(*known);
            }
            self.durable.change(change, stamp);
        }
    }

    fn sync(&mut self) {
        self.commit(self.journal.len());
        self.durable_content = self.content.clone();
    }

    fn write_back(&mut self, random: &mut Random) {
        for (cell, version) in &self.content {
            if random.below(2) == 0 {
                self.durable_content.insert(*cell, *version);
            }
        }
    }

    fn lose_power(&mut self, random: &mut Random) {
        self.write_back(random);
        let count = random.below(self.journal.len() as u64 + 1) as usize;
        self.commit(count);
        self.journal.clear();
        self.seen = self.durable.clone();
        self.durable_content.retain(|cell, _| self.seen.regions.contains(cell));
        self.content = self.durable_content.clone();
    }

    fn content_of(&self, file: u64) -> Vec<Option<u64>> {
        (0..REGIONS).map(|region| self.content.get(&(file, region)).copied()).collect()
    }
}

/// The activity log of the source.
#[derive(Default)]
struct Log {
    heat: Heat,
    number: u64,
    /// From this time on a file counts as recent.
    since: u64,
}

fn id(node: u64) -> FileId {
    FileId { tree: 0, node }
}

fn bytes(key: Key) -> Box<[u8]> {
    let (kind, region) = match key.part {
        Part::Names => (1, 0),
        Part::Meta => (2, 0),
        Part::Region(region) => (3, region),
        Part::From(region) => (4, region),
        Part::Moved => (5, 0),
    };
    [&[kind][..], &u32::to_le_bytes(region), &key.file.node.to_le_bytes()].concat().into()
}

fn key(bytes: &[u8]) -> Key {
    let region = u32::from_le_bytes(bytes[1..5].try_into().unwrap());
    let file = id(u64::from_le_bytes(bytes[5..].try_into().unwrap()));
    let part = match bytes[0] {
        1 => Part::Names,
        2 => Part::Meta,
        3 => Part::Region(region),
        4 => Part::From(region),
        _ => Part::Moved,
    };
    Key { file, part }
}

impl Log {
    /// Says durably what a change touches, as `node` does before and after it.
    fn log(&mut self, change: Change, seen: &Tree) {
        let touches = match change {
            Change::Create { at, .. } => vec![Touch::Names(id(at.0))],
            Change::Remove { at } => {
                [Touch::Names(id(at.0))].into_iter().chain(seen.losing(at)).collect()
            }
            Change::Link { file, to } => {
                vec![Touch::Names(id(to.0)), Touch::Meta(id(file)), Touch::Moving(id(file))]
            }
            Change::Write { file, region, .. } => {
                let offset = u64::from(region) * REGION_BYTES;
                vec![Touch::Content { file: id(file), offset, length: 1 }]
            }
            Change::Meta { file, .. } => vec![Touch::Meta(id(file))],
            Change::Rename { from, to } => {
                let moving = Touch::Moving(id(seen.names[&from]));
                let others = seen.others(from).into_iter().map(|other| Touch::Names(id(other)));
                let names = [Touch::Names(id(from.0)), Touch::Names(id(to.0)), moving];
                names.into_iter().chain(others).chain(seen.losing(to)).collect()
            }
        };
        let keys = self.heat.keys(&touches).unwrap();
        for key in keys.iter().filter(|key| !self.heat.is_hot(key)).copied().collect::<Vec<_>>() {
            self.heat.heat(key, bytes(key), self.number + 1);
        }
        self.number += 1;
        assert!(self.heat.touch(&keys, self.number));
        for touch in touches {
            if let Touch::Losing { file, .. } = touch {
                self.heat.forget(file);
            }
        }
        match change {
            Change::Create { at, file } => self.heat.arrived(id(file), id(at.0)),
            Change::Rename { from, to } => {
                self.heat.arrived(id(seen.names[&from]), id(to.0));
            }
            Change::Write { .. }
            | Change::Meta { .. }
            | Change::Link { .. }
            | Change::Remove { .. } => {}
        }
    }
}

/// What travels from the source to the target.
enum Message {
    Change(Change),
    Barrier,
}

struct World {
    random: Random,
    time: u64,
    next: u64,
    source: Disk,
    target: Disk,
    log: Log,
    /// The target's own moments, as it notes them at barriers.
    since: u64,
    coming: u64,
    stream: VecDeque<Message>,
    linked: bool,
    /// A checkpoint: its number, when it began, and what is durable: here, there.
    checkpoint: Option<(u64, u64, [bool; 2])>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            random: Random(seed),
            time: 1,
            next: 100,
            source: Disk::default(),
            target: Disk::default(),
            log: Log::default(),
            since: 0,
            coming: 0,
            stream: VecDeque::new(),
            linked: true,
            checkpoint: None,
        };
        for name in 0..NAMES {
            let file = world.fresh();
            let at = (1 + name % DIRECTORIES, name);
            world.source.apply(Change::Create { at, file }, 1);
            let to = (1 + (name + 1) % DIRECTORIES, name);
            world.source.apply(Change::Link { file, to }, 1);
            for region in 0..REGIONS {
                world.source.apply(Change::Write { file, region, version: file }, 1);
            }
        }
        world.equal();
        world
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Both copies are equal and durable, and the log begins anew.
    fn equal(&mut self) {
        self.source.sync();
        self.target = self.source.clone();
        self.time += 1;
        let number = self.log.number;
        self.log = Log { number, since: self.time, ..Log::default() };
        (self.since, self.coming) = (self.time, self.time);
        self.stream.clear();
        (self.linked, self.checkpoint) = (true, None);
    }

    fn place(&mut self) -> Place {
        (1 + self.random.below(DIRECTORIES), self.random.below(NAMES))
    }

    fn any_change(&mut self) -> Option<Change> {
        let (at, to, kind) = (self.place(), self.place(), self.random.below(12));
        let version = self.fresh();
        let Some(file) = self.source.seen.names.get(&at).copied() else {
            return (kind < 4).then_some(Change::Create { at, file: version });
        };
        let region = self.random.below(REGIONS.into()) as u32;
        Some(match kind {
            0..=4 => Change::Write { file, region, version },
            5 => Change::Meta { file, version },
            6 => Change::Remove { at },
            _ if self.source.seen.names.get(&to) == Some(&file) => return None,
            7..=8 if !self.source.seen.names.contains_key(&to) => Change::Link { file, to },
            _ => Change::Rename { from: at, to },
        })
    }

    fn step(&mut self) {
        self.time += self.random.below(2);
        match self.random.below(16) {
            0..=8 => self.change(),
            9..=11 => self.receive(),
            12 => self.begin_checkpoint(),
            13 => self.go_on_with_checkpoint(),
            14 => {
                self.source.write_back(&mut self.random);
                let count = self.random.below(self.source.journal.len() as u64 + 1);
                self.source.commit(count as usize);
            }
            _ if self.random.below(8) == 0 => self.linked = false,
            _ => {}
        }
    }

    fn change(&mut self) {
        let Some(change) = self.any_change() else { return };
        self.log.log(change, &self.source.seen);
        self.source.apply(change, self.time);
        if self.linked {
            self.stream.push_back(Message::Change(change));
        }
    }

    fn receive(&mut self) {
        match self.stream.pop_front() {
            Some(Message::Change(change)) => self.target.apply(change, self.time),
            Some(Message::Barrier) => {
                self.target.sync();
                (self.since, self.coming) = (self.coming, self.time);
                if let Some((_, _, durable)) = &mut self.checkpoint {
                    durable[1] = true;
                }
            }
            None => {}
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.linked && self.checkpoint.is_none() {
            self.log.heat.uncover();
            self.checkpoint = Some((self.log.number, self.time, [false, false]));
            self.stream.push_back(Message::Barrier);
        }
    }

    fn go_on_with_checkpoint(&mut self) {
        match &mut self.checkpoint {
            Some((number, since, [true, true])) => {
                self.log.heat.cool(*number);
                self.log.since = *since;
                self.checkpoint = None;
            }
            Some((_, _, durable)) => {
                self.source.sync();
                durable[0] = true;
            }
            None => {}
        }
    }

    /// The session ends: what was received is applied, and perhaps power is lost here and there.
    fn end(&mut self) {
        for _ in 0..self.random.below(self.stream.len() as u64 + 1) {
            self.receive();
        }
        if self.random.below(2) == 0 {
            self.source.lose_power(&mut self.random);
        }
        if self.random.below(2) == 0 {
            self.target.lose_power(&mut self.random);
        }
    }

    /// Whatever differs is looked at.
    fn check(&self) -> Result<(), String> {
        let entries: Vec<Key> = self.log.heat.entries().map(key).collect();
        let hot = |directory: u64| {
            entries.iter().any(|entry| *entry == Key { file: id(directory), part: Part::Names })
        };
        let (here, there) = (&self.source.seen, &self.target.seen);
        let places: BTreeSet<&Place> = here.names.keys().chain(there.names.keys()).collect();
        for at in places {
            let (Some(ours), Some(theirs)) = (here.names.get(at), there.names.get(at)) else {
                if hot(at.0) {
                    continue;
                }
                return Err(format!("{at:?} is on one side only, and its directory is cold"));
            };
            let recent = here.inodes[ours].stamp >= self.log.since
                || there.inodes[theirs].stamp >= self.since;
            if hot(at.0) && recent {
                continue;
            }
            let same = here.inodes[ours].meta == there.inodes[theirs].meta;
            let of_ours: Vec<Reach> = entries
                .iter()
                .filter(|entry| entry.file == id(*ours))
                .map(|entry| entry.part.reach(false))
                .collect();
            if !same && of_ours.is_empty() {
                return Err(format!("attributes of {at:?} differ unseen"));
            }
            let contents = [self.source.content_of(*ours), self.target.content_of(*theirs)];
            for region in 0..REGIONS {
                let place = u64::from(region) * REGION_BYTES;
                let seen = of_ours.iter().any(|reach| match *reach {
                    Reach::Content { offset, end } => offset <= place && place < end,
                    Reach::All => true,
                    Reach::Names => false,
                });
                let [ours, theirs] = &contents;
                if ours[region as usize] != theirs[region as usize] && !seen {
                    return Err(format!("region {region} of {at:?} differs unseen: {entries:?}"));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn whatever_differs_is_looked_at() {
    let mut different = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for round in 0..3 {
            for _ in 0..STEPS {
                world.step();
            }
            world.end();
            world.check().unwrap_or_else(|what| panic!("seed {seed}, round {round}: {what}"));
            different += u64::from(world.source.content != world.target.content);
            world.equal();
        }
    }
    assert!(different > SEEDS, "the copies differed only {different} times");
}
