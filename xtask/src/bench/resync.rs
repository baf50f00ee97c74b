//! `cargo xtask bench resync`: how long a returning node takes, beside `rsync -a` after the same
//! change of the same files, for trees of two sizes. Whether it is right is for the tests.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::pair::{Pair, PairDisk};
use super::{commit, machine, site};

const LAB: &str = "bench-resync";
const DATA: &str = "/srv/data";
const MODULE: &str = "data";
const FILE_BYTES: usize = 4 << 10;
const FILES_OF_DIRECTORY: usize = 500;
/// Files of the larger tree unless told otherwise; the smaller one has a fifth of them.
const FILES: usize = 20_000;
/// Of so many files of the larger tree one changes while the node is away, in both trees as many.
const ONE_OF: usize = 100;
/// Files of three trees for which a disk has room, in each GiB of it: an inode for every 16 KiB.
const FILES_OF_GIB: usize = 20_000;
/// How long the logs need to let go of what was before: two checkpoints follow upon a start.
const SETTLE: Duration = Duration::from_secs(4);

/// Measures and prints.
///
/// # Errors
/// The release binary is missing, or something fails while it is measured.
pub(crate) fn resync(root: &Path, words: &[&str]) -> Result<(), String> {
    let about = format!("{}, {}", machine(root)?, commit(root)?);
    let largest = match words {
        [] => FILES,
        ["--files", files] => {
            let files = files.parse().ok().filter(|files| *files >= ONE_OF * 5);
            files.ok_or_else(|| format!("`--files` takes {} at least", ONE_OF * 5))?
        }
        _ => return Err(format!("`{}`: there is `--files N` alone", words.join(" "))),
    };
    let changed = largest / ONE_OF;
    let mut rows = Vec::new();
    for files in [largest / 5, largest] {
        eprintln!("a tree of {files} files");
        let row = measure(root, files, changed)?;
        for (metric, value) in [("resync", row.resync), ("rsync", row.rsync)] {
            println!("{metric}.{files}\t{value:.3}\ts");
        }
        rows.push(row);
    }
    println!("\n{about}; {changed} files of 4 KiB changed while the node was away\n");
    println!("| Files | resync | rsync -a | rsync : resync | bytes compared | why |");
    println!("|---|---|---|---|---|---|");
    for row in &rows {
        println!(
            "| {} | {:.2} s | {:.2} s | {:.1} | {} | {} |",
            row.files,
            row.resync,
            row.rsync,
            row.rsync / row.resync,
            row.bytes,
            row.why
        );
    }
    Ok(())
}

struct Row {
    files: usize,
    resync: f64,
    rsync: f64,
    bytes: u64,
    why: String,
}

fn measure(root: &Path, files: usize, changed: usize) -> Result<Row, String> {
    let gib = files.div_ceil(FILES_OF_GIB);
    let mut pair = Pair::build(root, LAB, MODULE, DATA, PairDisk { gib, mke2fs: None })?;
    let task = pair.task();
    let populate = |place: &str| format!("{task} bench-burst populate {place}:{files}");
    let step = (files / changed).max(1);
    let change = |place: &str| format!("{task} bench-burst change {place}:{files}:{step}");
    pair.shell(site::NODES[0], &format!("mkdir -p {DATA}; {}", populate(DATA)))?;
    let copies = "mkdir -p /srv/one; cp -a /srv/one /srv/two";
    let one = populate("/srv/one");
    pair.shell(site::NODES[0], &format!("mkdir -p /srv/one; {one}; {copies}"))?;
    pair.start()?;
    pair.restart()?;
    // Nothing tells when the second checkpoint is over.
    std::thread::sleep(SETTLE);
    pair.kill_second()?;
    pair.shell(site::NODES[0], &change(DATA))?;
    pair.return_second()?;
    let progress = pair.progress()?;
    let seconds = |value: &Value| value.as_f64().ok_or("the status tells no progress");
    let script = format!(
        "{}; sync; start=$(date +%s%N); rsync -a /srv/one/ /srv/two/; \
         echo $((($(date +%s%N) - start) / 1000))",
        change("/srv/one")
    );
    let rsync = pair.shell(site::NODES[0], &script)?;
    let microseconds: f64 =
        rsync.trim().parse().map_err(|_| format!("rsync took `{}`", rsync.trim()))?;
    Ok(Row {
        files,
        resync: seconds(&progress["seconds"])?,
        rsync: microseconds / 1e6,
        bytes: progress["bytes"].as_u64().unwrap_or(0),
        why: progress["why"].as_str().unwrap_or("unknown").to_owned(),
    })
}

/// Makes the files of `DIRECTORY:COUNT`.
pub(super) fn populate(place: &str) -> io::Result<()> {
    let (directory, files) = parse(place)?;
    for file in 0..files {
        let path = path_of(directory, file);
        if file % FILES_OF_DIRECTORY == 0
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content(file, 0))?;
    }
    Ok(())
}

/// Changes some of the files of `DIRECTORY:COUNT:STEP`, one of so many.
pub(super) fn change(place: &str) -> io::Result<()> {
    let (place, step) = place.rsplit_once(':').ok_or_else(|| io::Error::other("no step"))?;
    let step: usize = step.parse().map_err(io::Error::other)?;
    let (directory, files) = parse(place)?;
    let start = Instant::now();
    for file in (0..files).step_by(step.max(1)) {
        let file_to_change = OpenOptions::new().write(true).open(path_of(directory, file))?;
        file_to_change.write_all_at(&content(file, 1), 0)?;
    }
    eprintln!("changed in {:?}", start.elapsed());
    Ok(())
}

fn parse(place: &str) -> io::Result<(&Path, usize)> {
    let bad = || io::Error::other("a place is DIRECTORY:COUNT");
    let (directory, count) = place.rsplit_once(':').ok_or_else(bad)?;
    Ok((Path::new(directory), count.parse().map_err(|_| bad())?))
}

fn path_of(directory: &Path, file: usize) -> std::path::PathBuf {
    directory.join(format!("d{}/f{file}", file / FILES_OF_DIRECTORY))
}

/// Content that differs from file to file.
fn content(file: usize, version: usize) -> Vec<u8> {
    let word = (file as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version as u64;
    word.to_le_bytes().repeat(FILE_BYTES / 8)
}
