//! Small workloads, each run as a process of its own for a fraction of a second, so that what is
//! compared can take turns. Each call is timed alone; a line `SERIES p50 p10 count` of nanoseconds
//! goes to standard output for each series. What is compared with what is decided elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::resync::{change, populate};
use super::{link, memory};

/// How long a burst of calls lasts.
const BURST: Duration = Duration::from_millis(300);
/// Calls of a burst at most.
const CALLS_MAX: usize = 50_000;
const PAGE: usize = 4 << 10;
const LARGE: usize = 1 << 20;
/// Size of the file that is read and overwritten, in bytes.
const FILE_BYTES: u64 = 32 << 20;
/// Small files of one burst.
const FILES: usize = 300;
/// Files of the tree that is unpacked.
const TREE_FILES: usize = 10_000;
const TREE_FILES_OF_DIRECTORY: usize = 100;

/// Nanoseconds of each call.
type Times = Vec<u64>;

/// Runs the workload `name` in a directory, or against an address for those of the link.
///
/// # Errors
/// The workload is not known, or a call of it fails.
pub(crate) fn burst(name: &str, place: &str) -> Result<(), String> {
    let run = || -> io::Result<()> {
        let directory = Path::new(place);
        match name {
            "prepare" => prepare(directory)?,
            "tree" => tree(directory)?,
            "write-4k" => show("write-4k", writes(directory, PAGE, false, false)?),
            "write-sync-4k" => show("write-sync-4k", writes(directory, PAGE, true, false)?),
            "write-1m" => show("write-1m", writes(directory, LARGE, false, true)?),
            "read-cached-4k" => show("read-cached-4k", reads(directory)?),
            "read-cold" => read_cold(directory)?,
            "files" => files(directory)?,
            "untar" => show("untar", untar(directory)?),
            "populate" => populate(place)?,
            "change" => change(place)?,
            name if name.starts_with("memory-") => memory::load(name, place)?,
            "link" => link::measure(place, &mut |series, times| show(series, times))?,
            "link-echo" => link::echo(place)?,
            _ => return Err(io::Error::other("there is no such workload")),
        }
        Ok(())
    };
    run().map_err(|error| format!("{name} in {place}: {error}"))
}

/// Prints the middle and the tenth percentile of a series.
fn show(series: &str, mut times: Times) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
    println!("{series} {} {} {}", at(50), at(10), times.len());
}

/// The file that later bursts read and overwrite.
fn prepare(directory: &Path) -> io::Result<()> {
    let file = File::create(directory.join("data"))?;
    let block = noise(LARGE);
    for offset in (0..FILE_BYTES).step_by(LARGE) {
        file.write_all_at(&block, offset)?;
    }
    file.sync_all()
}

/// Overwrites, at random or one after the other.
fn writes(directory: &Path, bytes: usize, sync: bool, sequential: bool) -> io::Result<Times> {
    // As databases open their files for the one, and copying programs for the other.
    let file = OpenOptions::new().read(!sequential).write(true).open(directory.join("data"))?;
    let block = noise(bytes);
    let mut random = Random::new();
    let mut next = 0;
    calls(|| {
        let offset = if sequential { next } else { random.page() };
        next = (next + bytes as u64) % FILE_BYTES;
        file.write_all_at(&block, offset)?;
        if sync { file.sync_data() } else { Ok(()) }
    })
}

fn reads(directory: &Path) -> io::Result<Times> {
    let file = File::open(directory.join("data"))?;
    let mut block = vec![0; LARGE];
    for offset in (0..FILE_BYTES).step_by(LARGE) {
        file.read_exact_at(&mut block, offset)?;
    }
    let mut block = vec![0; PAGE];
    let mut random = Random::new();
    calls(|| file.read_exact_at(&mut block, random.page()))
}

fn read_cold(directory: &Path) -> io::Result<()> {
    let file = File::open(directory.join("data"))?;
    forget_pages(&file)?;
    let mut block = vec![0; LARGE];
    let mut times = Vec::new();
    for offset in (0..FILE_BYTES).step_by(LARGE) {
        let start = Instant::now();
        file.read_exact_at(&mut block, offset)?;
        times.push(nanoseconds(start));
    }
    show("read-cold-1m", times);
    forget_pages(&file)?;
    let mut random = Random::new();
    let mut block = vec![0; PAGE];
    show("read-cold-4k", calls(|| file.read_exact_at(&mut block, random.page()))?);
    Ok(())
}

/// Empties the page cache of the whole machine.
fn forget_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    fs::write("/proc/sys/vm/drop_caches", "1")
}

/// Creating, renaming and removing small files.
fn files(directory: &Path) -> io::Result<()> {
    let place = directory.join("files");
    fs::create_dir_all(&place)?;
    let block = noise(PAGE);
    let name = |kind: &str, number: usize| place.join(format!("{kind}{number}"));
    let create = each(FILES, |number| {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o644);
        options.open(name("a", number))?.write_all_at(&block, 0)
    });
    show("create-4k", create?);
    show("rename", each(FILES, |number| fs::rename(name("a", number), name("b", number)))?);
    show("unlink", each(FILES, |number| fs::remove_file(name("b", number)))?);
    fs::remove_dir(&place)
}

/// A tree of small files as an archive, made once: `place` is the archive.
fn tree(place: &Path) -> io::Result<()> {
    let root = place.with_extension("d");
    let noise = noise(2 * 4096);
    for number in 0..TREE_FILES {
        let folder = root.join(format!("tree/{:03}", number / TREE_FILES_OF_DIRECTORY));
        if number % TREE_FILES_OF_DIRECTORY == 0 {
            fs::create_dir_all(&folder)?;
        }
        // From a hundred bytes to 4 KiB, the same each time.
        let bytes = 100 + number * 7919 % 4000;
        fs::write(folder.join(format!("{number:05}")), noise.get(..bytes).unwrap_or_default())?;
    }
    run("tar", &["-cf", &text(place), "-C", &text(&root), "tree"])?;
    fs::remove_dir_all(root)
}

/// One call only: the whole archive beside the directories that are compared.
fn untar(directory: &Path) -> io::Result<Times> {
    let start = Instant::now();
    run("tar", &["-xf", ARCHIVE, "-C", &text(directory)])?;
    let time = nanoseconds(start);
    fs::remove_dir_all(directory.join("tree"))?;
    Ok(vec![time / TREE_FILES as u64])
}

/// Where the archive is, on every host.
pub(super) const ARCHIVE: &str = "/var/tmp/evenkeel-bench-tree.tar";

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Repeats a call until the burst is over, and times each.
fn calls(mut call: impl FnMut() -> io::Result<()>) -> io::Result<Times> {
    let mut times = Vec::with_capacity(CALLS_MAX);
    let begin = Instant::now();
    while times.len() < CALLS_MAX && begin.elapsed() < BURST {
        let start = Instant::now();
        call()?;
        times.push(nanoseconds(start));
    }
    Ok(times)
}

/// Makes a call for each number, and times each.
pub(super) fn each(
    count: usize,
    mut call: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<Times> {
    let timed = |number| {
        let start = Instant::now();
        call(number)?;
        Ok(nanoseconds(start))
    };
    (0..count).map(timed).collect()
}

pub(super) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes that do not compress.
pub(super) fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random::new();
    (0..bytes).map(|_| (random.next() >> 32) as u8).collect()
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn page(&mut self) -> u64 {
        self.next() % (FILE_BYTES / PAGE as u64) * PAGE as u64
    }
}
