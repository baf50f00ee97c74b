//! The files of a node's recordings: numbered segments, each of which can be replayed by itself.
//!
//! What is in them is `wire::recording`'s; here are only their names and sizes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the names of segments end in.
const EXTENSION: &str = "rec";
/// Longest file that is read as a segment, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most segments kept: daemons that end at once leave short ones.
const SEGMENTS_MAX: usize = 1000;

/// The segments in a directory, oldest first; a file is a segment by itself.
pub fn segments(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if let Some(number) = number_of(&path) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The bytes of a segment.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large for a recording"));
    }
    Ok(bytes)
}

/// Begins the next segment with these bytes. The oldest ones are removed, so that there is room for
/// one of `segment_bytes` below `total_bytes` in all.
pub(crate) fn begin(
    directory: &Path,
    bytes: &[u8],
    segment_bytes: u64,
    total_bytes: u64,
) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let mut kept = segments(directory)?;
    let number = kept.last().and_then(|path| number_of(path)).map_or(1, |number| number + 1);
    let sizes: Vec<u64> =
        kept.iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).collect();
    let mut total = segment_bytes + sizes.iter().sum::<u64>();
    let mut count = kept.len();
    for (path, size) in kept.drain(..).zip(sizes) {
        if total <= total_bytes && count < SEGMENTS_MAX {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
        count -= 1;
    }
    let path = directory.join(format!("{number:08}.{EXTENSION}"));
    let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
    if let Err(error) = file.write_all(bytes) {
        // A beginning that is not whole is of no use; the next attempt takes the same number.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

fn number_of(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == EXTENSION);
    let stem = path.file_stem().filter(|_| is_segment)?;
    stem.to_str()?.parse().ok()
}
