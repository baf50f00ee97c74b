//! Properties that hold for any input: it is read or refused, never with a panic; and what was
//! read can be written again and is then read alike.
//!
//! Also compiled into the test that replays the corpus, which is why it knows no fuzzer.

use std::fmt::Debug;
use std::time::Duration;

use activity::entry::Entry;
use activity::image::{self, BATCHES_AT, Header, Image, SECTOR};
use cluster::farm::{BUCKETS, Farm, Part, Pulse, Settings};
use cluster::report::Heartbeat;
use model::config::{self, Delivery, Source};
use model::{BootId, NodeName, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::frame::{PREFIX_BYTES, frame_length};
use wire::local::{FromReplicator, ToReplicator};
use wire::{control, datagram, hello, join, replication, witness};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("stream", stream),
    ("greeting", greeting),
    ("local", local),
    ("request", request),
    ("config", config),
    ("log", log),
    ("pulse", pulse),
];

/// Frames of the replication stream. They have one form only, so they come back byte by byte.
pub fn stream(bytes: &[u8]) {
    if let Ok(message) = replication::take_forward(bytes) {
        let mut out = Vec::new();
        replication::put_forward(&mut out, &message);
        assert_eq!(&out[PREFIX_BYTES..], bytes, "{message:?}");
    }
    if let Ok(message) = replication::take_backward(bytes) {
        let mut out = Vec::new();
        replication::put_backward(&mut out, &message);
        assert_eq!(&out[PREFIX_BYTES..], bytes, "{message:?}");
    }
    if let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>()
        && let Ok(length) = frame_length(*prefix)
    {
        assert!(length > 0 && length <= wire::FRAME_BYTES_MAX);
    }
}

/// Greetings, heartbeats, and the questions and answers of the witness.
pub fn greeting(bytes: &[u8]) {
    versioned(bytes, hello::take_hello, hello::put_hello);
    versioned(bytes, hello::take_welcome, hello::put_welcome);
    versioned(bytes, join::take_request, join::put_request);
    versioned(bytes, join::take_reply, join::put_reply);
    versioned(bytes, witness::take_question, witness::put_question);
    versioned(bytes, witness::take_reply, witness::put_reply);
    if let Ok((salt, sealed)) = datagram::take_sealed(bytes) {
        assert_eq!(datagram::put_sealed(salt, sealed).as_deref(), Ok(bytes));
    }
    if let Ok(guarded) = datagram::take_guarded(bytes)
        && let Ok(again) = datagram::put_guarded(&guarded)
    {
        assert_eq!(datagram::take_guarded(&again).as_ref(), Ok(&guarded));
    }
    if let Ok(heartbeat) = datagram::take_heartbeat(bytes)
        && let Ok(again) = datagram::put_heartbeat(&heartbeat)
    {
        let read: Result<Heartbeat, _> = datagram::take_heartbeat(&again);
        assert_eq!(read.as_ref(), Ok(&heartbeat));
    }
}

/// Pulses of a farm. They have one form only, so they come back byte by byte; what a farm makes of
/// one must be sound whatever it says, also for the daemon that goes on with it.
pub fn pulse(bytes: &[u8]) {
    let Ok((module, pulse)) = wire::pulse::take_pulse(bytes) else { return };
    assert_eq!(wire::pulse::put_pulse(&module, &pulse).as_deref(), Ok(bytes));
    hear_pulse(&pulse, Delivery::Directed);
    hear_pulse(&pulse, Delivery::Multicast);
}

fn hear_pulse(pulse: &Pulse, delivery: Delivery) {
    let node = |i: u8| NodeName::new(&format!("node{i}")).ok();
    let settings = Settings {
        nodes: (0..32).filter_map(node).collect(),
        me: 0,
        weight: 100,
        delivery,
        pulse: Duration::from_millis(50),
        timeout: Duration::from_millis(200),
    };
    let mut left = None;
    for daemon in [1, 2] {
        let begin = Time::from_millis(daemon * 20_000);
        let mut farm = Farm::new(begin, settings.clone(), (BootId(1), daemon), left.take());
        farm.set_part(begin, Part::Ready);
        let roster = farm.roster();
        for at in [10, 20, 300, 600, 11_000] {
            let now = begin + Duration::from_millis(at);
            farm.hear(now, now, Pulse { roster, sequence: daemon * 20_000 + at, ..pulse.clone() });
            farm.shares_set(now, farm.shares().edition);
            farm.tick(now);
        }
        assert!(farm.shares().buckets.len() == BUCKETS);
        let kept = farm.left();
        assert!(kept.table.is_sound(settings.nodes.len()));
        left = Some(kept);
    }
}

/// What a node's own processes and its command line say to each other, as JSON.
pub fn local(bytes: &[u8]) {
    json::<ToReplicator>(bytes);
    json::<FromReplicator>(bytes);
    json::<control::Request>(bytes);
    json::<control::Reply>(bytes);
}

/// Requests of the kernel, as they come and with the length that they ought to state.
pub fn request(bytes: &[u8]) {
    look_at_request(bytes);
    let mut whole = bytes.to_vec();
    if let (Some(length), Ok(actual)) = (whole.first_chunk_mut::<4>(), u32::try_from(bytes.len())) {
        *length = actual.to_ne_bytes();
        look_at_request(&whole);
    }
}

/// Configuration files: a cluster's, and a module's within a sound cluster.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source { file: "fuzz.toml", text };
    match config::parse_cluster(&source) {
        Ok(cluster) => assert!(cluster.nodes.iter().all(|node| cluster.node(&node.name).is_some())),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
    let cluster = Source { file: "cluster.toml", text: CLUSTER };
    let Ok(cluster) = config::parse_cluster(&cluster) else { panic!("the own cluster is sound") };
    match config::parse_module(&source, &cluster) {
        Ok(module) => assert_eq!(config::digest(&module), config::digest(&module.clone())),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
}

/// The activity log: any bytes; then the same bytes as entries under a sound checksum; then with
/// one bit flipped, which must never make an entry vanish unseen.
pub fn log(bytes: &[u8]) {
    let _ = Image::read(bytes);
    let mut rest = bytes;
    while let Some(entry) = Entry::take(&mut rest) {
        let mut again = Vec::new();
        entry.put(&mut again);
        assert_eq!(Entry::take(&mut again.as_slice()), Some(entry));
    }
    let header = Header { generation: 7, file: 3, ..Header::default() };
    let (at, head) = header.to_bytes();
    let (payload, tail) = bytes.split_at(bytes.len() - bytes.len() % 64);
    let mut whole = vec![0; BATCHES_AT];
    let at = usize::try_from(at).unwrap_or_default();
    whole[at..at + head.len()].copy_from_slice(&head);
    whole.extend_from_slice(&image::batch(header.file, 1, payload));
    whole.extend_from_slice(&image::batch(header.file, 2, tail));
    whole.resize(whole.len() + SECTOR, 0);
    let sound = Image::read(&whole);
    // The last bytes say where the flip is.
    let seed = bytes.iter().rev().take(4).fold(0usize, |seed, byte| seed << 8 | usize::from(*byte));
    let flipped = BATCHES_AT + seed / 8 % (whole.len() - BATCHES_AT);
    whole[flipped] ^= 1 << (seed % 8);
    if let (Ok(sound), Ok(bent)) = (&sound, &Image::read(&whole)) {
        assert_eq!(sound.entries, bent.entries, "a flip at {flipped} changed what the log says");
    }
}

const CLUSTER: &str = "cluster = 'demo'\n\
    [[node]]\nname = 'node1'\naddresses = { lan0 = '10.77.0.11' }\n\
    [[node]]\nname = 'node2'\naddresses = { lan0 = '10.77.0.12' }\n";

fn versioned<T: PartialEq + Debug, E: PartialEq + Debug>(
    bytes: &[u8],
    take: impl Fn(&[u8]) -> Result<T, E>,
    put: impl Fn(&mut Vec<u8>, &T),
) {
    if let Ok(message) = take(bytes) {
        let mut again = Vec::new();
        put(&mut again, &message);
        assert_eq!(take(&again[PREFIX_BYTES..]).as_ref(), Ok(&message));
    }
}

fn json<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(bytes) {
        // Figures with fractions may lose their last digit once, then no more.
        let text = serde_json::to_vec(&message).unwrap_or_default();
        let read: Result<T, _> = serde_json::from_slice(&text);
        assert!(read.is_ok(), "{message:?} is written as what cannot be read: {read:?}");
    }
}

fn look_at_request(bytes: &[u8]) {
    match fuse::Request::parse(bytes) {
        Ok(request) => {
            let limit = bytes.len();
            if let fuse::Operation::BatchForget(forgets) = request.operation {
                assert!(forgets.iter().count() * 16 <= limit);
            }
            assert!(!format!("{:?}", request.operation).is_empty());
        }
        Err(error) => assert_eq!(error.unique.is_some(), bytes.len() >= 16),
    }
}
