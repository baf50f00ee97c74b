//! Room that is set aside where a node keeps its state: one whose disk is full can still write
//! down what it decides, and so consent to its peer going on without it. Each time that a write
//! finds no room a slice of it is given up; what was given up is set aside again once there is
//! plenty. Nothing here watches a disk or tells of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Name of the directory that holds the slices.
const DIRECTORY: &str = "reserve";
/// Each is enough for several files that are written anew as a whole.
const SLICE_BYTES: u64 = 64 << 10;
const SLICES: u32 = 16;
/// A disk with less room than this is left alone.
const PLENTY_BYTES: u64 = 16 << 20;

/// Sets aside what is missing below a directory, if there is plenty of room.
///
/// # Errors
/// It cannot be done; what was set aside before stays.
pub(crate) fn set_aside(directory: &Path) -> io::Result<()> {
    let reserve = directory.join(DIRECTORY);
    let slices = (0..SLICES).map(|number| reserve.join(number.to_string()));
    let missing: Vec<_> = slices.filter(|slice| slice.symlink_metadata().is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(&reserve)?;
    let disk = statvfs(&reserve)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < PLENTY_BYTES {
        return Ok(());
    }
    missing.iter().try_for_each(|slice| fill(slice))
}

/// Gives up a slice for a file, of the directory above it that has any. Returns whether there was
/// one.
pub(crate) fn give_up(file: &Path) -> bool {
    let reserves = file.ancestors().skip(1).map(|above| above.join(DIRECTORY));
    let slices = reserves.filter_map(|reserve| fs::read_dir(reserve).ok()).flatten().flatten();
    let mut slices = slices.filter(|entry| is_slice(&entry.file_name().to_string_lossy()));
    slices.any(|slice| fs::remove_file(slice.path()).is_ok())
}

/// Only what was made here is removed, whatever else has such a name.
fn is_slice(name: &str) -> bool {
    name.parse().is_ok_and(|number: u32| number < SLICES)
}

fn fill(slice: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(slice)?;
    let filled = match fallocate(&file, FallocateFlags::empty(), 0, SLICE_BYTES) {
        Err(Errno::OPNOTSUPP) => write(&mut file),
        outcome => outcome.map_err(io::Error::from),
    };
    if filled.is_err() {
        // A slice of nothing would count as one.
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
            fs::write(reserve.join("notes"), "somebody's").unwrap();
            for _ in 0..SLICES {
                assert!(give_up(&file));
            }
            assert!(!give_up(&file), "nothing is left");
            assert!(reserve.join("notes").exists());
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
