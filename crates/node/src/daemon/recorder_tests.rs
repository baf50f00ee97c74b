//! Recordings in files: turned over, bounded, lost and taken up again, and replayed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cluster::Record;
use cluster::input::{BootModule, DataState};
use cluster::replay::{Entry, Replay};
use model::config::{Source, parse_cluster, parse_module};
use model::{BootId, NodeName};
use wire::recording::Reader;

use super::*;

const CLUSTER: &str = "cluster = \"test\"\n\
    [[node]]\nname = \"node1\"\naddresses = { lan0 = \"10.0.0.1\" }\n\
    [[node]]\nname = \"node2\"\naddresses = { lan0 = \"10.0.0.2\" }\n";
const MODULE: &str = "module = \"shop\"\nkind = \"mirror\"\nreplicate = [\"/srv/shop\"]\n";
const START: Time = Time::from_millis(1000);
/// Turns taken at most until a thread has said something; far more than it needs.
const TURNS_MAX: usize = 10_000_000;

/// A directory of its own, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        Place(std::env::temp_dir().join(format!("evenkeel-recorder-{:x}", clock::random())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

fn boot() -> Boot {
    let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
    let config = parse_module(&Source { file: "shop.toml", text: MODULE }, &cluster).unwrap();
    Boot {
        name: NodeName::new("node1").unwrap(),
        boot: BootId(1),
        cluster_digest: 0,

        modules: vec![BootModule {
            digest: model::config::digest(&config),
            config,
            record: Record { started: true, ..Record::default() },
            data: DataState::Empty,
            running: None,
        }],
        cluster,
        wall: std::time::Duration::ZERO,
        seed: 3,
    }
}

/// A node with its recorder, as the daemon has them.
struct Recorded {
    node: Node,
    recorder: Recorder,
    now: Time,
    /// What was said at the start.
    said: Option<Event>,
}

impl Recorded {
    fn start(place: &Place, segment_bytes: u64, total_bytes: u64) -> Recorded {
        let mut recorder =
            Recorder::with(&place.0, START, &boot(), segment_bytes, total_bytes).unwrap();
        let (node, effects) = Node::new(START, boot());
        let said = recorder.effects(START, &effects, &node);
        Recorded { node, recorder, now: START, said }
    }

    fn tick(&mut self) -> Option<Event> {
        self.now = self.now + Duration::from_millis(500);
        self.recorder.input(self.now, &Input::Tick);
        let effects = self.node.handle(self.now, Input::Tick);
        self.recorder.effects(self.now, &effects, &self.node)
    }

    /// Ticks until something is said of the recording.
    fn until_said(&mut self) -> Event {
        self.said.take().or_else(|| (0..TURNS_MAX).find_map(|_| self.tick())).unwrap()
    }
}

/// Replays all segments; the inputs and the beginnings that were there.
fn replay(place: &Place) -> (Replay, usize, usize) {
    let (mut replay, mut inputs, mut beginnings) = (Replay::default(), 0, 0);
    for path in recordings::segments(&place.0).unwrap() {
        let bytes = recordings::read(&path).unwrap();
        let mut reader = Reader::new(&bytes).unwrap();
        while let Some(read) = reader.read().unwrap() {
            let entry = read.entry.unwrap();
            match &entry {
                Entry::Input(_) => inputs += 1,
                Entry::Boot(_) | Entry::State { .. } => beginnings += 1,
                Entry::Effects(_) => {}
            }
            replay.take(read.at, entry).unwrap();
        }
    }
    (replay, inputs, beginnings)
}

#[test]
fn segments_turn_over_and_stay_below_their_limit() {
    let place = Place::new();
    let segment_bytes = 10_000;
    let mut recorded = Recorded::start(&place, segment_bytes, 5 * segment_bytes);
    for _ in 0..20_000 {
        assert_eq!(recorded.tick(), None);
    }
    let node = recorded.node.clone();
    drop(recorded);
    let segments = recordings::segments(&place.0).unwrap();
    let sizes: Vec<u64> = segments.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    assert!(!segments[0].ends_with("00000001.rec"), "the oldest are gone: {segments:?}");
    assert!(sizes.iter().sum::<u64>() <= 5 * segment_bytes, "{sizes:?}");
    for path in &segments {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (replay, inputs, beginnings) = replay(&place);
    assert_eq!(replay.node(), Some(&node));
    assert!(inputs > 1000, "{inputs}");
    assert_eq!(beginnings, segments.len());
}

#[test]
fn a_daemon_that_follows_begins_a_segment_of_its_own() {
    let place = Place::new();
    for _ in 0..3 {
        let mut recorded = Recorded::start(&place, 1 << 20, 8 << 20);
        for _ in 0..10 {
            recorded.tick();
        }
    }
    assert_eq!(recordings::segments(&place.0).unwrap().len(), 3);
    let (_, inputs, beginnings) = replay(&place);
    assert_eq!((inputs, beginnings), (30, 3));
}

#[test]
fn what_cannot_be_written_is_lost_and_said_once() {
    let place = Place::new();
    fs::write(&place.0, "no directory").unwrap();
    let mut recorded = Recorded::start(&place, 1 << 20, 8 << 20);
    let said = recorded.until_said();
    assert_eq!(said.code, "recording-failed");
    assert!(said.sentence.contains(&place.0.display().to_string()), "{}", said.sentence);
    for _ in 0..1000 {
        assert_eq!(recorded.tick(), None, "it is said once");
    }
    fs::remove_file(&place.0).unwrap();
    assert_eq!(recorded.until_said().code, "recording-resumed");
    recorded.tick();
    let node = recorded.node.clone();
    drop(recorded);
    assert_eq!(replay(&place).0.node(), Some(&node));
}

#[test]
fn a_disk_that_is_too_slow_loses_the_recording_and_nothing_else() {
    let place = Place::new();
    let mut recorded = Recorded::start(&place, 1 << 20, 8 << 20);
    // As if so much were waiting.
    let waiting = WAITING_BYTES_MAX + 1;
    recorded.recorder.waiting.fetch_add(waiting, Ordering::Relaxed);
    assert_eq!(recorded.tick().unwrap().code, "recording-failed");
    recorded.recorder.waiting.fetch_sub(waiting, Ordering::Relaxed);
    assert_eq!(recorded.until_said().code, "recording-resumed");
    let node = recorded.node.clone();
    drop(recorded);
    let (replay, _, beginnings) = replay(&place);
    assert_eq!((replay.node(), beginnings), (Some(&node), 2));
}

#[test]
fn a_segment_that_lost_its_end_as_it_turned_over_is_told_and_not_continued() {
    let place = Place::new();
    let mut segments = Segments::new(&place.0, 1 << 20, 8 << 20);
    let begin = |serial, continues| Part::Begin { bytes: b"begin".to_vec(), serial, continues };
    let more = || Part::More(b"more".to_vec());
    assert!(segments.take(begin(0, false)).unwrap().is_ok());
    assert!(segments.take(more()).is_none());
    // A disk that is full.
    segments.file = Some(File::options().write(true).open("/dev/full").unwrap());
    let full = |result: Option<io::Result<()>>| {
        result.unwrap().unwrap_err().kind() == io::ErrorKind::StorageFull
    };
    assert!(full(segments.take(more())));
    assert!(segments.take(more()).is_none(), "it is told once");
    // The daemon had turned over before it could hear that.
    assert!(full(segments.take(begin(1, true))));
    assert_eq!(segments.serial, 1);
    assert!(segments.take(more()).is_none());
    assert!(segments.take(begin(2, false)).unwrap().is_ok());
    assert!(segments.take(begin(3, true)).unwrap().is_ok());
    assert_eq!(recordings::segments(&place.0).unwrap().len(), 3);
}
