//! `cargo xtask soak memory`: how much memory both replicators of a pair need with very many
//! files, and with a peer that takes nothing. What the figures mean is in `docs/benchmarks.md`.
//!
//! How fast anything is, and whether the copies are equal, is for other commands and the tests.

mod gauge;
mod load;
pub(crate) mod processes;
mod verdict;

use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use self::gauge::{Bytes, Gauge};
pub(super) use self::load::run as load;
use self::verdict::Figures;
use super::pair::{Pair, PairDisk};
use super::site::NODES;
use crate::soak::Place;

const LAB: &str = "soak-memory";
const DATA: &str = "/srv/data";
const MODULE: &str = "data";
/// The disk that the directory lies on, where nothing covers it.
const DISK: &str = "/run/lab/disk/data";
/// Writers shall not wait for a peer that stands still, as long as there is room for what they
/// write.
const REPLICATION: &str = "[replication]\nack = \"fsync\"\nstall_timeout = \"20s\"\n";
/// Files unless told otherwise.
const FILES: usize = 1_000_000;
/// Fewer show nothing.
const FILES_MIN: usize = 1000;
/// Files for which a disk of the lab has inodes, in each GiB of it.
const FILES_OF_GIB: usize = 60_000;
/// With more files than this, blocks are small and inodes many: the machine's disk would be full.
const FILES_PLAIN: usize = 2_000_000;
/// Files for which such a disk has room and inodes, in each GiB of it.
const FILES_OF_GIB_SMALL: usize = 450_000;
const MKE2FS: &str = "bench/mke2fs-small.conf";
/// How long writers write while the peer takes nothing; longer than it is waited for.
const PRESS_SECONDS: u64 = 30;
/// How long it may then take to return.
const RETURN_SECONDS: u64 = 600;
/// Kernel memory of dentries and inodes that nobody uses is dropped, and so is what the mount's
/// server must remember of them. Several times, for a directory is in use by what is in it.
const DROP_TIMES: usize = 3;

/// Measures, prints, keeps and judges.
///
/// # Errors
/// The release binary is missing, something fails while it is measured, or a bound is exceeded.
pub(crate) fn memory(root: &Path, words: &[&str]) -> Result<(), String> {
    let (sync_alone, words) = match words.split_last() {
        Some((&"--sync", before)) => (true, before),
        _ => (false, words),
    };
    let files = match words {
        [] => FILES,
        ["--files", files] => {
            let files = files.parse().ok().filter(|files| *files >= FILES_MIN);
            files.ok_or_else(|| format!("`--files` takes {FILES_MIN} at least"))?
        }
        _ => return Err(format!("`{}`: there is `--files N`, then `--sync`", words.join(" "))),
    };
    // As of now, for the tree may be changed while this runs.
    let here = Place::of(root)?;
    let mut figures = Figures::new(files as u64, sync_alone);
    let mut soak = Soak::build(root, files)?;
    soak.full_sync(&mut figures)?;
    // With very many files everything else takes hours.
    if !sync_alone {
        soak.read_all(&mut figures)?;
        soak.return_of_second(&mut figures)?;
        soak.stalled_peer(&mut figures)?;
    }
    drop(soak);
    figures.print(&here);
    figures.keep(root, &here)?;
    figures.judge()
}

struct Soak {
    pair: Pair,
    gauge: Gauge,
    files: usize,
}

impl Soak {
    fn build(root: &Path, files: usize) -> Result<Soak, String> {
        let (mke2fs, files_of_gib) = if files > FILES_PLAIN {
            (Some(MKE2FS), FILES_OF_GIB_SMALL)
        } else {
            (None, FILES_OF_GIB)
        };
        let gib = files.div_ceil(files_of_gib) + 1;
        let pair = Pair::build(root, LAB, MODULE, DATA, PairDisk { gib, mke2fs })?;
        pair.configure_more(REPLICATION)?;
        let soak = Soak { pair, gauge: Gauge::start(MODULE), files };
        eprintln!("a tree of {files} files");
        soak.load("memory-make", DATA, files as u64)?;
        soak.gauge.aim(&soak.pair)?;
        Ok(soak)
    }

    /// Everything is new to the second node.
    fn full_sync(&mut self, figures: &mut Figures) -> Result<(), String> {
        eprintln!("the first sync");
        self.gauge.begin();
        self.pair.start()?;
        self.note("sync.peak", "sync.after", figures);
        Ok(())
    }

    /// The kernel knows every file, and then none; and once more, which must not need much more.
    fn read_all(&mut self, figures: &mut Figures) -> Result<(), String> {
        for (peak, after, forgotten) in [
            ("read.peak", "read.after", "forgotten.after"),
            ("again.peak", "again.after", "again-forgotten.after"),
        ] {
            eprintln!("reading every file on {}", NODES[0]);
            self.gauge.begin();
            self.load("memory-read", DATA, self.files as u64)?;
            self.note(peak, after, figures);
            for _ in 0..DROP_TIMES {
                std::fs::write("/proc/sys/vm/drop_caches", "2")
                    .map_err(|error| format!("cannot drop what the kernel caches: {error}"))?;
                self.gauge.settled();
            }
            figures.add(forgotten, self.gauge.settled());
        }
        Ok(())
    }

    /// One file in a hundred is new to the second node.
    fn return_of_second(&mut self, figures: &mut Figures) -> Result<(), String> {
        eprintln!("{} is away, and returns", NODES[1]);
        self.pair.kill_second()?;
        self.load("memory-change", DATA, self.files as u64)?;
        self.gauge.begin();
        self.pair.boot_second()?;
        self.gauge.aim(&self.pair)?;
        self.pair.rejoin_second()?;
        self.note("delta.peak", "delta.after", figures);
        figures.why = self.pair.progress()?["why"].as_str().unwrap_or("unknown").to_owned();
        Ok(())
    }

    /// The second node's replicator stands still while the first one is written to, and then its
    /// disk does, so that it is alive and takes nothing.
    fn stalled_peer(&self, figures: &mut Figures) -> Result<(), String> {
        eprintln!("the replicator of {} stands still", NODES[1]);
        let stopped = Stopped::stop(self.gauge.second()?)?;
        self.press("stopped.peak", figures, stopped)?;
        figures.add("stopped.after", self.gauge.settled());
        eprintln!("the disk of {} stands still", NODES[1]);
        let frozen = Frozen::freeze(&self.pair)?;
        self.press("frozen.peak", figures, frozen)?;
        figures.add("frozen.after", self.gauge.settled());
        Ok(())
    }

    /// Writes as fast as it goes until the peer that stands still is dropped, or time is over.
    fn press<T: Send>(
        &self,
        name: &'static str,
        figures: &mut Figures,
        stalled: T,
    ) -> Result<(), String> {
        self.gauge.begin();
        let start = Instant::now();
        let place = format!("{DATA}/press");
        thread::scope(|scope| {
            let press = scope.spawn(|| self.load("memory-press", &place, PRESS_SECONDS));
            let dropped = self.pair.comes_to("alone", PRESS_SECONDS);
            let seconds = start.elapsed().as_secs();
            figures.fates.push(if dropped {
                format!("{name}: the peer was dropped after {seconds} s")
            } else {
                format!("{name}: the peer was waited for")
            });
            drop(stalled);
            let calls = press.join().map_err(|_| "the writers' thread panicked".to_owned())??;
            println!("{calls} while it stood still and afterwards");
            Ok::<(), String>(())
        })?;
        figures.add(name, self.gauge.peak());
        match self.pair.comes_to("protected", RETURN_SECONDS) {
            true => Ok(()),
            false => Err(format!("{} does not return after {name}", NODES[1])),
        }
    }

    /// Notes the peak of the phase that has ended, and what is left of it.
    fn note(&self, peak: &'static str, after: &'static str, figures: &mut Figures) {
        // Whatever ends within the last sample counts too.
        let left = self.gauge.settled();
        figures.add(peak, self.gauge.peak());
        figures.add(after, left);
    }

    /// Runs a load on the first node.
    fn load(&self, name: &str, place: &str, number: u64) -> Result<String, String> {
        let task = self.pair.task();
        let script = format!("{task} bench-burst {name} {place}:{number}");
        self.pair.shell(NODES[0], &script).map(|said| said.trim().to_owned())
    }
}

/// A process that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Result<Stopped, String> {
        let pid = Pid::from_raw(pid.cast_signed()).ok_or("no process has the number 0")?;
        kill_process(pid, Signal::STOP).map_err(|error| format!("cannot stop {pid:?}: {error}"))?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The second node's disk, which takes no changes until this is dropped.
struct Frozen<'a>(&'a Pair);

impl Frozen<'_> {
    fn freeze(pair: &Pair) -> Result<Frozen<'_>, String> {
        pair.shell(NODES[1], &format!("fsfreeze --freeze {DISK}"))?;
        Ok(Frozen(pair))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.shell(NODES[1], &format!("fsfreeze --unfreeze {DISK}")) {
            eprintln!("{error}");
        }
    }
}
