//! Recordings as they are written, damaged in every way, and replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::farm::{Follows, Part, Pulse, Stamp, Table};
use cluster::input::{Boot, BootModule, Command, DataState, JobId};
use cluster::replay::{Difference, Entry, Replay};
use cluster::report::Heartbeat;
use cluster::{Effect, Input, Node, Record};
use model::config::{Source, parse_cluster, parse_module};
use model::{BootId, ModuleName, NodeName, Time};

use super::{Damage, Read, Reader, Writer};

const CLUSTER: &str = "cluster = \"test\"\n\
    [[node]]\nname = \"node1\"\naddresses = { lan0 = \"10.0.0.1\" }\n\
    [[node]]\nname = \"node2\"\naddresses = { lan0 = \"10.0.0.2\" }\n";
const MODULE: &str = "module = \"shop\"\nkind = \"mirror\"\nreplicate = [\"/srv/shop\"]\n";
const PROGRAM: &str = "1.2.3";
const START: Time = Time::from_millis(5_000_000);
/// A point on people's clocks at the start, in milliseconds since 1970.
const WALL_MS: u64 = 1_800_000_000_000;

fn shop() -> ModuleName {
    ModuleName::new("shop").unwrap()
}

fn boot() -> Boot {
    let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
    let config = parse_module(&Source { file: "shop.toml", text: MODULE }, &cluster).unwrap();
    let module = BootModule {
        digest: model::config::digest(&config),
        config,
        record: Record::default(),
        data: DataState::Empty,
        running: None,
    };
    Boot {
        name: NodeName::new("node1").unwrap(),
        boot: BootId(1 << 100),
        cluster_digest: model::config::cluster_digest(&cluster),
        cluster,
        modules: vec![module],
        wall: std::time::Duration::ZERO,
        seed: u128::MAX - 7,
    }
}

/// A node and its recording, as a daemon makes it.
struct Recorded {
    node: Node,
    writer: Writer,
    now: Time,
    /// What was written, to be compared with what is read.
    entries: Vec<(Time, Entry)>,
}

impl Recorded {
    fn start() -> Recorded {
        Recorded::of(boot())
    }

    fn of(boot: Boot) -> Recorded {
        let mut writer = Writer::new();
        writer.boot(START, WALL_MS, PROGRAM, &boot);
        let (node, effects) = Node::new(START, boot.clone());
        writer.effects(START, &effects);
        let entries = vec![(START, Entry::Boot(Box::new(boot))), (START, Entry::Effects(effects))];
        Recorded { node, writer, now: START, entries }
    }

    fn give(&mut self, after: Duration, input: Input) -> Vec<Effect> {
        self.now = self.now + after;
        self.writer.input(self.now, &input);
        self.entries.push((self.now, Entry::Input(input.clone())));
        let effects = self.node.handle(self.now, input);
        self.writer.effects(self.now, &effects);
        if !effects.is_empty() {
            self.entries.push((self.now, Entry::Effects(effects.clone())));
        }
        effects
    }

    /// A story of a few seconds in which everything is recorded that has a form of its own.
    fn story() -> Recorded {
        let mut story = Recorded::start();
        let start = Input::Operator { job: JobId(1), module: shop(), command: Command::Start };
        story.give(Duration::from_millis(10), start);
        for sequence in 1..20 {
            let at = story.now;
            story.give(Duration::from_micros(100_123), heartbeat(at, sequence, sequence / 2));
            let echoed = (sequence % 2 == 0).then_some(at);
            let received = story.now;
            let link = Input::DataLink { module: shop(), received, echoed };
            story.give(Duration::from_nanos(900_001), link);
        }
        story.writer.wall(story.now, WALL_MS + 9000);
        for _ in 0..10 {
            story.give(Duration::from_millis(500), Input::Tick);
        }
        story
    }
}

fn heartbeat(at: Time, sequence: u64, echo: u64) -> Input {
    let heartbeat = Heartbeat {
        from: NodeName::new("node2").unwrap(),
        boot: BootId(2),
        incarnation: 77,
        sequence,
        echo,
        echo_incarnation: START.as_nanos(),
        cluster_digest: 5,
        configuration: model::config::Stand::default(),
        reports: BTreeMap::new(),
    };
    let echoed = (echo > 2).then_some(at);
    Input::Heartbeat {
        heartbeat: Box::new(heartbeat),
        received: at + Duration::from_micros(40),
        echoed,
    }
}

fn read_all(bytes: &[u8]) -> (Vec<Read>, Option<Damage>) {
    let mut reader = Reader::new(bytes).unwrap();
    let mut all = Vec::new();
    loop {
        match reader.read() {
            Ok(Some(read)) => all.push(read),
            Ok(None) => return (all, None),
            Err(damage) => {
                assert_eq!(reader.read(), Ok(None), "nothing comes after damage");
                return (all, Some(damage));
            }
        }
    }
}

fn replay(reads: Vec<Read>) -> Result<Replay, Difference> {
    let mut replay = Replay::default();
    for read in reads {
        replay.take(read.at, read.entry.unwrap())?;
    }
    Ok(replay)
}

#[test]
fn what_is_written_is_read_and_replayed() {
    let mut story = Recorded::story();
    let (reads, damage) = read_all(&story.writer.take());
    assert_eq!(damage, None);
    let read: Vec<_> = reads.iter().map(|read| (read.at, read.entry.clone().unwrap())).collect();
    assert_eq!(read, story.entries);
    assert!(story.entries.iter().any(|(_, entry)| matches!(entry, Entry::Effects(_))));
    let walls: Vec<u64> = reads.iter().map(|read| read.wall_ms).collect();
    assert_eq!(walls[0], WALL_MS);
    assert_eq!(*walls.last().unwrap(), WALL_MS + 9000 + 5000, "clocks that were set are followed");
    assert_eq!(replay(reads).unwrap().node(), Some(&story.node));
}

#[test]
fn a_segment_that_begins_with_a_state_goes_on_from_it() {
    let mut story = Recorded::story();
    let (mut reads, _) = read_all(&story.writer.take());
    story.writer = Writer::new();
    story.writer.state(story.now, WALL_MS, PROGRAM, &story.node, true);
    story.give(Duration::from_secs(3), Input::Tick);
    let bytes = story.writer.take();
    let (second, _) = read_all(&bytes);
    assert_eq!(replay(second.clone()).unwrap().node(), Some(&story.node), "by itself");
    reads.extend(second);
    assert_eq!(replay(reads.clone()).unwrap().node(), Some(&story.node), "after the one before");
    let mut reader = Reader::new(&bytes).unwrap();
    reader.read().unwrap();
    assert_eq!(reader.program(), PROGRAM);
    // An input less, and the state is another one.
    reads.truncate(reads.len() - 1);
    let state = reads.pop().unwrap();
    let input = reads.iter().rposition(|read| matches!(read.entry, Ok(Entry::Input(_)))).unwrap();
    reads.truncate(input);
    reads.push(state);
    assert!(matches!(replay(reads), Err(Difference::State { .. })));
}

#[test]
fn other_effects_are_a_difference() {
    let (reads, _) = read_all(&Recorded::story().writer.take());
    let first = reads.iter().position(|read| matches!(read.entry, Ok(Entry::Effects(_)))).unwrap();
    let mut less = reads.clone();
    less[first].entry = Ok(Entry::Effects(Vec::new()));
    assert!(matches!(replay(less), Err(Difference::Effects { .. })));
    let mut none = reads;
    none.remove(first);
    assert!(matches!(replay(none), Err(Difference::Effects { .. })));
}

#[test]
fn a_torn_segment_is_read_up_to_the_tear() {
    let bytes = Recorded::story().writer.take();
    let (whole, _) = read_all(&bytes);
    for end in super::MAGIC.len()..bytes.len() {
        let (reads, damage) = read_all(&bytes[..end]);
        assert_eq!(reads[..], whole[..reads.len()]);
        assert!(!matches!(damage, Some(Damage::Broken { .. })), "cut at {end}");
        replay(reads).unwrap();
    }
    let zeros = [&bytes[..], &[0; 4096]].concat();
    assert_eq!(read_all(&zeros), (whole, Some(Damage::Torn { at: bytes.len() })));
    assert!(Reader::new(&bytes[..4]).is_err());
}

#[test]
fn nothing_behind_a_damaged_bit_is_believed() {
    let bytes = Recorded::story().writer.take();
    let (whole, _) = read_all(&bytes);
    for byte in super::MAGIC.len()..bytes.len() {
        // Each bit in turn, as all of them would take seconds.
        let bit = byte * 8 + byte % 8;
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1 << (bit % 8);
        let (reads, damage) = read_all(&damaged);
        assert_eq!(reads[..], whole[..reads.len()], "bit {bit}");
        let at = match damage {
            Some(Damage::Torn { at } | Damage::Broken { at }) => at,
            None => panic!("bit {bit} is not noticed"),
        };
        assert!(at <= byte, "bit {bit} is noticed at byte {at}");
    }
}

#[test]
fn what_is_not_understood_is_no_damage() {
    let mut story = Recorded::story();
    let bytes = story.writer.take();
    let mut writer = Writer::new();
    writer.record(super::INPUT, START, [START; 2], b"{\"Quake\":{}}");
    writer.record(super::HEARTBEAT | super::USUAL, START, [START; 2], &[0]);
    writer.record(21, START, [START; 2], &[]);
    writer.record(super::BOOT, START, [START; 2], b"{}");
    writer.boot(START, WALL_MS, PROGRAM, &boot());
    let (reads, damage) = read_all(&writer.take());
    assert_eq!((reads.len(), damage), (5, None));
    for read in &reads[..4] {
        assert!(read.entry.is_err(), "{read:?}");
    }
    assert!(reads[0].entry.as_ref().unwrap_err().contains("Quake"));
    assert_eq!(reads[4].entry.as_ref(), read_all(&bytes).0[0].entry.as_ref());
}

#[test]
fn any_record_is_read_or_refused() {
    // A generator of its own, so that what fails fails again.
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut understood = 0;
    for _ in 0..300 {
        let mut story = Recorded::start();
        story.give(Duration::from_millis(1), heartbeat(START, 1, 1));
        let known = read_all(&story.writer.clone().take()).0.len();
        for _ in 0..20 {
            let kind = ((random() % 11 + 1) | (random() & 0xe0)) as u8;
            let payload: Vec<u8> = (0..random() % 24).map(|_| random() as u8).collect();
            // The times of the record are any, too.
            let now = Time::from_nanos(random() as u64);
            story.writer.record(kind, now, [now, now], &payload);
        }
        let (reads, damage) = read_all(&story.writer.take());
        assert_eq!(damage, None);
        understood += reads[known..].iter().filter(|read| read.entry.is_ok()).count();
    }
    assert!(understood > 100, "{understood} of the records were understood");
}

#[test]
fn an_idle_hour_of_a_farm_is_short_and_is_replayed() {
    let text = "module = \"web\"\nkind = \"farm\"\n";
    let mut boot = boot();
    boot.modules[0].config =
        parse_module(&Source { file: "web.toml", text }, &boot.cluster).unwrap();
    boot.modules[0].record.started = true;
    let module = boot.modules[0].config.name.clone();
    let mut story = Recorded::of(boot);
    let set = Input::AddressesSet { module: module.clone(), held: true, error: None };
    story.give(Duration::from_millis(1), set);
    let action = cluster::effect::ServiceAction::Start;
    story.give(
        Duration::from_millis(1),
        Input::ServiceDone { module: module.clone(), action, error: None },
    );
    let stamp = Stamp { term: 3, leader: 1, serial: 7 };
    let pulse = |sequence| Pulse {
        from: 1,
        roster: 0,
        boot: BootId(9),
        incarnation: 1,
        sequence,
        part: Part::Ready,
        away: false,
        weight: 100,
        hears: 3,
        follows: Some(Follows { lead: stamp.lead(), heard: true }),
        term: 3,
        installed: stamp,
        switched: 7,
        heir: None,
        table: Some(Table::empty(stamp)),
        place: Vec::new(),
    };
    let roster = story.node.farm_roster(&module).unwrap();
    let (beats, mut bytes) = (2_000, 0);
    for beat in 1..=beats {
        let pulse = Box::new(Pulse { roster, ..pulse(beat) });
        let received = story.now;
        let more = beat == beats / 2;
        let input = Input::Pulse { module: module.clone(), received, pulse, more };
        story.give(Duration::from_micros(50_000 + beat * 7919 % 400), input);
        let written = story.writer.clone().take().len();
        if beat == 20 {
            bytes = written;
        }
    }
    let all = story.writer.take();
    let each = (all.len() - bytes) / (beats as usize - 20);
    assert!(each < 24, "{each} bytes a pulse");
    let (reads, damage) = read_all(&all);
    assert_eq!(damage, None);
    let read: Vec<_> = reads.iter().map(|read| (read.at, read.entry.clone().unwrap())).collect();
    assert_eq!(read, story.entries);
    assert_eq!(replay(reads).unwrap().node(), Some(&story.node));
    let status = story.node.status(story.now);
    let farm = status.modules[&module].farm.as_ref().unwrap();
    assert_eq!(farm.leader.as_ref().map(NodeName::as_str), Some("node2"));
}

#[test]
fn an_idle_hour_is_short() {
    let mut story = Recorded::start();
    story.give(Duration::from_millis(100), heartbeat(START, 19, 19));
    // Sent and received ten times a second, with the jitter of a real network.
    let (hour, mut bytes) = (36_000, 0);
    for beat in 0..hour {
        let at = story.now;
        let after = Duration::from_micros(100_000 + beat * 7919 % 400);
        story.give(after, heartbeat(at, 20 + beat, 20 + beat));
        let link = Input::DataLink { module: shop(), received: story.now, echoed: Some(at) };
        story.give(Duration::from_micros(80 + beat * 31 % 50), link);
        bytes += story.writer.take().len();
    }
    println!("an hour of {hour} heartbeats and pings each takes {} kB", bytes / 1000);
    assert!(bytes < 1_000_000, "{bytes} bytes");
}
