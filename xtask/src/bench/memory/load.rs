//! What is done on the nodes of the memory soak, by processes of their own: making, reading and
//! changing a tree of many small files, and writing as fast as it goes. Nothing is measured here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const FILES_OF_DIRECTORY: usize = 500;
const FILE_BYTES: usize = 100;
/// Of so many files one is changed.
const ONE_OF: usize = 100;
/// Threads that overwrite large files, and as many that make and remove small ones.
pub(super) const WRITERS: u64 = 8;
/// One call of a thread that overwrites.
pub(super) const WRITE_BYTES: u64 = 1 << 20;
/// Size of a file that is overwritten: what is written again needs no more memory to remember.
const LARGE_BYTES: u64 = 32 << 20;

/// Runs one of the loads: `memory-make`, `memory-read` and `memory-change` take
/// `DIRECTORY:COUNT`, `memory-press` takes `DIRECTORY:SECONDS`.
///
/// # Errors
/// A call fails, or the words are wrong.
pub(crate) fn run(name: &str, place: &str) -> io::Result<()> {
    let bad = || io::Error::other("a place is DIRECTORY:NUMBER");
    let (directory, number) = place.rsplit_once(':').ok_or_else(bad)?;
    let directory = Path::new(directory);
    let number: usize = number.parse().map_err(|_| bad())?;
    match name {
        "memory-make" => make(directory, number),
        "memory-read" => read(directory, number),
        "memory-change" => change(directory, number),
        "memory-press" => press(directory, Duration::from_secs(number as u64)),
        _ => Err(io::Error::other("there is no such workload")),
    }
}

fn path_of(directory: &Path, file: usize) -> PathBuf {
    directory.join(format!("d{}/f{file}", file / FILES_OF_DIRECTORY))
}

/// Content that differs from file to file.
fn content(file: usize, version: usize) -> [u8; FILE_BYTES] {
    let mut bytes = [b'a' + (version % 26) as u8; FILE_BYTES];
    for (place, byte) in bytes.iter_mut().zip(file.to_le_bytes()) {
        *place = byte;
    }
    bytes
}

fn make(directory: &Path, files: usize) -> io::Result<()> {
    for file in 0..files {
        let path = path_of(directory, file);
        if file.is_multiple_of(FILES_OF_DIRECTORY)
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content(file, 0))?;
    }
    Ok(())
}

fn read(directory: &Path, files: usize) -> io::Result<()> {
    let mut text = [0; FILE_BYTES];
    for file in 0..files {
        let path = path_of(directory, file);
        fs::symlink_metadata(&path)?;
        File::open(&path)?.read_exact(&mut text)?;
    }
    Ok(())
}

fn change(directory: &Path, files: usize) -> io::Result<()> {
    for file in (0..files).step_by(ONE_OF) {
        let changed = OpenOptions::new().write(true).open(path_of(directory, file))?;
        changed.write_all_at(&content(file, 1), 0)?;
    }
    Ok(())
}

/// Writes until the time is over. A thread whose call is held up ends when that returns.
fn press(directory: &Path, time: Duration) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let end = Instant::now() + time;
    let threads: Vec<_> = (0..WRITERS)
        .flat_map(|number| {
            let large = directory.join(format!("large-{number}"));
            let small = directory.join(format!("small-{number}"));
            let overwrites = thread::spawn(move || overwrite(&large, end));
            let makes = thread::spawn(move || make_and_remove(&small, end));
            [overwrites, makes]
        })
        .collect();
    let mut calls = 0;
    for thread in threads {
        calls += thread.join().map_err(|_| io::Error::other("a writer panicked"))??;
    }
    println!("{calls} calls");
    Ok(())
}

fn overwrite(path: &Path, end: Instant) -> io::Result<u64> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let block = vec![7; WRITE_BYTES as usize];
    let mut calls = 0;
    while Instant::now() < end {
        file.write_all_at(&block, calls * WRITE_BYTES % LARGE_BYTES)?;
        calls += 1;
    }
    Ok(calls)
}

fn make_and_remove(path: &Path, end: Instant) -> io::Result<u64> {
    let moved = path.with_extension("moved");
    let mut calls = 0;
    while Instant::now() < end {
        fs::write(path, [7; FILE_BYTES])?;
        fs::rename(path, &moved)?;
        fs::remove_file(&moved)?;
        calls += 3;
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_and_changed() {
        let directory = std::env::temp_dir().join(format!("memory-load-{}", std::process::id()));
        let place = format!("{}:1001", directory.display());
        for name in ["memory-make", "memory-read", "memory-change"] {
            run(name, &place).unwrap();
        }
        assert_eq!(fs::read(path_of(&directory, 1000)).unwrap(), content(1000, 1));
        assert_eq!(fs::read(path_of(&directory, 999)).unwrap(), content(999, 0));
        run("memory-press", &format!("{}:0", directory.display())).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
