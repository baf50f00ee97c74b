//! The figures of a memory soak: printed, kept beside those of other soaks, and judged.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Bytes;
use super::load::{WRITE_BYTES, WRITERS};
use crate::bench::site::NODES;
use crate::soak::{Place, change};

const MIB: u64 = 1 << 20;
/// What a replicator may need whatever the number of files: buffers of its threads, a part of the
/// ring, and what is under way.
const BASE_BYTES: u64 = 32 * MIB;
/// What a file may need during the first sync, on either node.
const SYNC_BYTES: u64 = 1024;
/// What a file may need that the kernel knows.
const KNOWN_BYTES: u64 = 1024;
/// What the first sync is meant to need, of as many files or fewer. It is told, and does not judge:
/// that it is missed by far is known.
const TARGET_BYTES: u64 = 200 * MIB;
const TARGET_FILES: u64 = 10_000_000;
/// Bytes of each write that may be held up at once, in its request and in a frame of it.
const COPIES: u64 = 2;
/// What reading everything once more may add besides the half that the heap's threads and the two
/// halves of the journal may come to before it levels off.
const AGAIN_BYTES: u64 = 8 * MIB;
/// What a stall may add besides what is held up: the ring, a request of each thread of the server,
/// and what is known of some more files.
const STALL_BYTES: u64 = 64 * MIB;

/// What was measured.
pub(super) struct Figures {
    files: u64,
    /// Nothing but the first sync is measured.
    sync_alone: bool,
    figures: Vec<(&'static str, Bytes)>,
    /// Why the resync compared what it did.
    pub(super) why: String,
    /// What became of the peer that stood still.
    pub(super) fates: Vec<String>,
}

/// A bound, and what it is held against.
#[derive(Clone)]
struct Bound {
    name: &'static str,
    bytes: u64,
    limit: u64,
}

impl Figures {
    pub(super) fn new(files: u64, sync_alone: bool) -> Figures {
        let (figures, why, fates) = (Vec::new(), String::new(), Vec::new());
        Figures { files, sync_alone, figures, why, fates }
    }

    /// Notes the levels of both nodes, and shows them at once: what follows may take long.
    pub(super) fn add(&mut self, name: &'static str, bytes: Bytes) {
        for (node, bytes) in NODES.iter().zip(bytes) {
            println!("{name}.{node}\t{:.1}\tMiB", mib(bytes));
        }
        self.figures.push((name, bytes));
    }

    /// Prints the table.
    pub(super) fn print(&self, here: &Place) {
        println!("\ncommit {}, {}; {} files of 100 bytes", here.commit, here.machine, self.files);
        println!("resync: {}; {}\n", self.why, self.fates.join("; "));
        println!("| | {} | {} |\n|---|---|---|", NODES[0], NODES[1]);
        for (name, [one, two]) in &self.figures {
            println!("| {name} | {:.0} MiB | {:.0} MiB |", mib(*one), mib(*two));
        }
        println!("\n| bound | measured | limit | |\n|---|---|---|---|");
        for bound in self.bounds() {
            let verdict = if bound.is_met() { "met" } else { "exceeded" };
            let Bound { name, bytes, limit } = bound;
            println!("| {name} | {:.0} MiB | {:.0} MiB | {verdict} |", mib(bytes), mib(limit));
        }
        let [peak, _] = self.of("sync.peak");
        let verdict = if self.misses_target() { "missed" } else { "not missed here" };
        println!(
            "\nA first sync of up to {TARGET_FILES} files in {:.0} MiB: {verdict}, \
                  with {:.0} MiB for {}",
            mib(TARGET_BYTES),
            mib(peak),
            self.files
        );
    }

    /// Whether the first sync needs more than was aimed at. The kernel knows no file by then, so
    /// that nothing must be remembered on its behalf.
    fn misses_target(&self) -> bool {
        self.files <= TARGET_FILES && self.of("sync.peak").iter().any(|peak| *peak > TARGET_BYTES)
    }

    /// Adds the figures to `tests/soak/memory.json`, in place of older ones of the same kind.
    pub(super) fn keep(&self, root: &Path, here: &Place) -> Result<(), String> {
        let path = root.join("tests/soak/memory.json");
        change(&path, |entries| {
            entries.retain(|entry| !(here.is(entry) && entry["files"] == self.files));
            entries.push(self.json(here));
        })
    }

    fn json(&self, here: &Place) -> Value {
        let levels = |(name, [one, two]): &(&'static str, Bytes)| {
            ((*name).to_owned(), json!({ NODES[0]: one, NODES[1]: two }))
        };
        let bytes: Map<String, Value> = self.figures.iter().map(levels).collect();
        let exceeded: Vec<&str> =
            self.bounds().iter().filter(|bound| !bound.is_met()).map(|bound| bound.name).collect();
        json!({
            "commit": here.commit, "machine": here.machine, "files": self.files, "bytes": bytes,
            "resync": self.why, "stalled_peer": self.fates, "exceeded": exceeded,
            "target_missed": self.misses_target(),
        })
    }

    /// Whether every bound was kept.
    ///
    /// # Errors
    /// Those that were not.
    pub(super) fn judge(&self) -> Result<(), String> {
        let bounds = self.bounds();
        let exceeded: Vec<&str> =
            bounds.iter().filter(|bound| !bound.is_met()).map(|bound| bound.name).collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        Err(format!("more memory than the bound allows: {}", exceeded.join(", ")))
    }

    fn bounds(&self) -> Vec<Bound> {
        let files = |name, [one, two]: Bytes, bytes_of_file: u64| Bound {
            name,
            bytes: one.max(two),
            limit: BASE_BYTES + self.files * bytes_of_file,
        };
        let [before, _] = self.of("delta.after");
        let [stopped, _] = self.of("stopped.peak");
        let [frozen, _] = self.of("frozen.peak");
        let sync = vec![
            files("full sync, peak", self.of("sync.peak"), SYNC_BYTES),
            files("after the sync", self.of("sync.after"), SYNC_BYTES),
        ];
        if self.sync_alone {
            return sync;
        }
        let more = vec![
            files("all files known to the kernel", self.of("read.peak"), KNOWN_BYTES),
            Bound {
                name: "all files known once more",
                bytes: self.of("again.peak")[0],
                limit: self.of("read.peak")[0] * 3 / 2 + AGAIN_BYTES,
            },
            files("delta resync, peak", self.of("delta.peak"), KNOWN_BYTES),
            Bound {
                name: "what a stalled peer adds",
                bytes: stopped.max(frozen).saturating_sub(before),
                limit: STALL_BYTES + WRITERS * WRITE_BYTES * COPIES,
            },
        ];
        [sync, more].concat()
    }

    fn of(&self, name: &str) -> Bytes {
        let found = self.figures.iter().find(|(known, _)| *known == name);
        found.map_or([0, 0], |(_, bytes)| *bytes)
    }
}

impl Bound {
    fn is_met(&self) -> bool {
        // Nothing at all was not measured.
        self.bytes > 0 && self.bytes <= self.limit
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
