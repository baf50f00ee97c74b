//! Room that is set aside where a node keeps its state: one whose disk is full can still write
//! down what it decides, and so consent to its peer going on without it. Each time that a write
//! finds no room a slice of it is given up; what was given up is set aside again once there is
//! plenty. Nothing here watches a disk or tells of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Name of the directory that holds the slices.
const DIRECTORY: &str = "reserve";
/// Each is enough for several files that are written anew as a whole.
const SLICE_BYTES: u64 = 64 << 10;
const SLICES: u32 = 16;
/// A disk with less room than this is left alone.
const PLENTY_BYTES: u64 = 16 << 20;

/// Where it was set aside by this process.
static RESERVE: OnceLock<PathBuf> = OnceLock::new();

/// Sets aside what is missing below a directory, if there is plenty of room; the first such
/// directory of a process is the one that room is given up of.
///
/// # Errors
/// It cannot be done; what was set aside before stays.
pub(crate) fn set_aside(directory: &Path) -> io::Result<()> {
    let _ = RESERVE.set(directory.to_owned());
    let reserve = directory.join(DIRECTORY);
    let missing: Vec<_> = slices(&reserve).filter(|slice| !is_slice(slice)).collect();
    if !missing.is_empty() {
        fs::create_dir_all(&reserve)?;
        let disk = statvfs(&reserve)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) >= PLENTY_BYTES {
            missing.iter().try_for_each(|slice| fill(slice))?;
        }
    }
    Ok(())
}

/// Gives up a slice for a file below the directory that room was set aside in. Returns whether
/// there was one.
pub(crate) fn give_up(file: &Path) -> bool {
    let Some(directory) = RESERVE.get().filter(|directory| file.starts_with(directory)) else {
        return false;
    };
    let mut slices = slices(&directory.join(DIRECTORY)).filter(|slice| is_slice(slice));
    slices.any(|slice| fs::remove_file(slice).is_ok())
}

fn slices(reserve: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let reserve = reserve.to_owned();
    (0..SLICES).map(move |number| reserve.join(number.to_string()))
}

/// Whole, and nothing else that has such a name.
fn is_slice(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_ok_and(|found| found.is_file() && found.len() == SLICE_BYTES)
}

fn fill(slice: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(slice)?;
    let filled = match fallocate(&file, FallocateFlags::empty(), 0, SLICE_BYTES) {
        Err(Errno::OPNOTSUPP) => write(&mut file),
        outcome => outcome.map_err(io::Error::from),
    };
    if filled.is_err() {
        fs::remove_file(slice)?;
    }
    filled
}

fn write(file: &mut File) -> io::Result<()> {
    file.write_all(&vec![0xa5; usize::try_from(SLICE_BYTES).unwrap_or_default()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn slices_are_given_up_one_by_one_and_set_aside_again() {
        let name = format!("evenkeel-room-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let file = directory.join("modules/shop/record.json");
        assert!(!give_up(&file), "nothing was set aside yet");
        for _ in 0..2 {
            set_aside(&directory).unwrap();
            let reserve = directory.join(DIRECTORY);
            for number in 0..SLICES {
                let slice = fs::metadata(reserve.join(number.to_string())).unwrap();
                assert_eq!(slice.len(), SLICE_BYTES);
            }
            fs::write(reserve.join("0"), "somebody's").unwrap();
            assert!(!give_up(Path::new("/somewhere/else")), "that is another disk");
            for _ in 1..SLICES {
                assert!(give_up(&file));
            }
            assert!(!give_up(&file), "nothing is left");
            assert!(reserve.join("0").exists());
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
