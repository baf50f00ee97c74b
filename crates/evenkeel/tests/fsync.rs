//! `ack = "fsync"` in a cluster: plain writes return although the peer takes nothing, a sync does
//! not; and of a primary that dies, everything before a returned sync is on the survivor. How long
//! anything takes is not judged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use self::support::applications::{ledger, succeed};
use self::support::{Cluster, NODES, PATIENCE, SYNC_PATIENCE, other};

const MODE: &str = "[replication]\nack = \"fsync\"\nstall_timeout = \"60s\"\n";
/// `O_DSYNC`: rustix, the only one at hand here, gives `O_SYNC` that name too.
const O_DSYNC: i32 = 0o10000;
const RECORD_BYTES: usize = 4096;
/// Records of one file: several files, so that creating them is part of the order.
const FILE_RECORDS: u64 = 64;
/// A sync after so many records.
const SYNC_EVERY: u64 = 16;

/// The process of a node's replicator.
fn replicator(cluster: &Cluster, node: &str) -> String {
    let words = ["pgrep", "-f", "-x", "[^ ]*evenkeel .*replicator ledger .*"];
    let output = cluster.host(node).run(words).unwrap();
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(found.parse::<u32>().is_ok(), "one replicator runs on {node}, not {found:?}");
    found
}

#[test]
fn writes_return_and_a_sync_waits_while_the_peer_takes_nothing() {
    let cluster = Cluster::protected(ledger(MODE));
    let primary = cluster.primary();
    let secondary = other(primary);
    let place = cluster.host(primary).path("/srv/ledger").unwrap();
    // The kernel lets nobody write to a file that is being synced, so there are three.
    let [plain, file, durable] = ["plain", "synced", "durable"].map(|name| place.join(name));
    let plain = File::create(plain).unwrap();
    let file = File::create(file).unwrap();
    let mut options = OpenOptions::new();
    let durable = options.write(true).create(true).custom_flags(O_DSYNC).open(durable).unwrap();
    plain.sync_all().unwrap();
    let pid = replicator(&cluster, secondary);
    succeed(&cluster.host(secondary), &["kill", "-STOP", &pid]);
    for number in 0..100 {
        file.write_all_at(&[7; RECORD_BYTES], number * RECORD_BYTES as u64).unwrap();
    }
    let syncing = thread::spawn(move || file.sync_all());
    // As also a write that is to be durable by itself.
    let durable = thread::spawn(move || durable.write_all_at(b"durable", 3));
    for number in 0..200 {
        plain.write_all_at(&[8; RECORD_BYTES], number * RECORD_BYTES as u64).unwrap();
    }
    assert!(!syncing.is_finished() && !durable.is_finished(), "a sync did not wait for the peer");
    assert_eq!(cluster.role(primary), "PRIM");
    succeed(&cluster.host(secondary), &["kill", "-CONT", &pid]);
    syncing.join().unwrap().unwrap();
    durable.join().unwrap().unwrap();
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    // Handing over waits for everything, synced or not.
    plain.write_all_at(b"not synced", 0).unwrap();
    drop(plain);
    cluster.must(primary, &["switchover", cluster.module()]);
    cluster.wait_for(secondary, "protected", SYNC_PATIENCE);
    assert_eq!(cluster.primary(), secondary);
    let copy = fs::read(cluster.host(secondary).path("/srv/ledger/plain").unwrap()).unwrap();
    assert!(copy.starts_with(b"not synced") && copy.len() == 200 * RECORD_BYTES);
    cluster.stop_and_compare();
}

#[test]
fn what_was_synced_is_on_the_survivor_and_what_is_there_is_a_prefix() {
    let cluster = Cluster::protected(ledger(MODE));
    for _ in 0..2 {
        let primary = cluster.primary();
        let survivor = other(primary);
        let place = PathBuf::from("/srv/ledger/records");
        let writer = Writer::start(cluster.host(primary).path(&place).unwrap());
        cluster.until("some syncs", PATIENCE, || writer.synced() > 20 * SYNC_EVERY);
        cluster.lab().kill(primary).unwrap();
        let synced = writer.end();
        cluster.wait_for(survivor, "alone", PATIENCE);
        let found = present(&cluster.host(survivor).path(&place).unwrap());
        println!("{synced} records were synced, {found} are there");
        assert!(found >= synced, "of {synced} synced records {found} are there");
        fs::remove_dir_all(cluster.host(survivor).path(&place).unwrap()).unwrap();
        cluster.boot_node(primary);
        cluster.wait_for(survivor, "protected", SYNC_PATIENCE);
    }
    cluster.stop_and_compare();
    assert_eq!(NODES.len(), 2);
}

/// Appends records, each in order, and syncs now and then, until the mount is gone.
struct Writer {
    synced: Arc<AtomicU64>,
    thread: JoinHandle<io::Error>,
}

impl Writer {
    fn start(place: PathBuf) -> Writer {
        let synced = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&synced);
        let thread = thread::spawn(move || match write(&place, &counter) {
            Err(error) => error,
            Ok(never) => match never {},
        });
        Writer { synced, thread }
    }

    fn synced(&self) -> u64 {
        self.synced.load(Ordering::SeqCst)
    }

    /// How many records were synced when it met the end of its mount.
    fn end(self) -> u64 {
        println!("the writer ended: {}", self.thread.join().unwrap());
        self.synced.load(Ordering::SeqCst)
    }
}

fn write(place: &PathBuf, synced: &AtomicU64) -> io::Result<std::convert::Infallible> {
    fs::create_dir(place)?;
    File::open(place)?.sync_all()?;
    let mut number = 0;
    loop {
        let file = File::create(place.join((number / FILE_RECORDS).to_string()))?;
        for index in 0..FILE_RECORDS {
            file.write_all_at(&record(number), index * RECORD_BYTES as u64)?;
            number += 1;
            if number % SYNC_EVERY == 0 {
                file.sync_data()?;
                synced.store(number, Ordering::SeqCst);
            }
        }
    }
}

/// How many records are there: all up to some number, whole, and nothing after a gap.
fn present(place: &PathBuf) -> u64 {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).unwrap() {
        let entry = entry.unwrap();
        let first = entry.file_name().to_str().unwrap().parse::<u64>().unwrap() * FILE_RECORDS;
        let content = fs::read(entry.path()).unwrap();
        for (number, bytes) in (first..).zip(content.chunks(RECORD_BYTES)) {
            assert!(bytes == record(number), "record {number} is not what was written");
            found.push(number);
        }
    }
    found.sort_unstable();
    let expected: Vec<u64> = (0..found.len() as u64).collect();
    assert!(found == expected, "what is there is no prefix of what was written");
    found.len() as u64
}

fn record(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(RECORD_BYTES / 8)
}
