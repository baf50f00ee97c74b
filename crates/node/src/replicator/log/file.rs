//! The log's file: opening, appending, replacing.
//!
//! Space is filled with zeros ahead of use, so that an append is one write of data and one sync
//! that need not wait for the file system's journal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activity::image::{self, BATCHES_AT, Clock, HEADER_BYTES};
use activity::{Header, Image, Point};

use crate::clock;

/// Bytes by which the file grows.
const GROWTH_BYTES: u64 = 1 << 20;

/// Bytes from which on the file is looked at for waste.
const WASTEFUL_BYTES: u64 = 32 << 20;

/// Bytes that an entry takes at most when it is written by itself, twice.
const ENTRY_BYTES: usize = 2048;

/// The file of an activity log.
pub(super) struct LogFile {
    path: PathBuf,
    file: Arc<File>,
    header: Header,
    end: u64,
    filled: u64,
    next_batch: u64,
}

/// Entries on their way to the file.
pub(super) struct Batch {
    file: Arc<File>,
    at: u64,
    bytes: Vec<u8>,
    /// Where the file's filled space ends afterwards.
    filled: u64,
    grow_from: u64,
}

/// The bytes of entries.
type Entries = Vec<Box<[u8]>>;

impl LogFile {
    /// Opens a log, or makes one. A damaged one is replaced by one that shares nothing with any
    /// peer; what was wrong is said.
    pub(super) fn open(path: &Path, now: Clock) -> io::Result<(LogFile, Entries, Option<String>)> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((LogFile::fresh(path, now)?, Vec::new(), None));
            }
            Err(error) => return Err(named(path, &error)),
        };
        match Image::read(&bytes) {
            Ok(image) => {
                let file = File::options().read(true).write(true).open(path)?;
                let log = LogFile {
                    path: path.to_owned(),
                    file: Arc::new(file),
                    header: image.header,
                    end: image.end,
                    filled: bytes.len() as u64,
                    next_batch: image.next_batch,
                };
                // Behind the end may stand what a crash tore.
                log.clear_rest()?;
                let entries = image.entries.iter().map(|(_, entry)| {
                    let mut bytes = Vec::new();
                    entry.put(&mut bytes);
                    bytes.into()
                });
                Ok((log, entries.collect(), None))
            }
            Err(damage) => {
                let kept = path.with_extension("damaged");
                fs::rename(path, &kept)?;
                let what = format!(
                    "the activity log {} was damaged ({damage:?}) and is kept as {}: the next \
                     resync compares everything",
                    path.display(),
                    kept.display()
                );
                Ok((LogFile::fresh(path, now)?, Vec::new(), Some(what)))
            }
        }
    }

    fn fresh(path: &Path, now: Clock) -> io::Result<LogFile> {
        let point = Point { base: clock::random(), ..Point::default() };
        let header = Header { point, since: now, coming: now, ..Header::default() };
        LogFile::create(path, header, &[])
    }

    /// Makes a file with these entries, durably, in place of the one that is there.
    pub(super) fn create(
        path: &Path,
        header: Header,
        entries: &[Box<[u8]>],
    ) -> io::Result<LogFile> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(directory)?;
        let temporary = path.with_extension("new");
        let file = File::create(&temporary).map_err(|error| named(&temporary, &error))?;
        let header = Header { generation: 1, file: clock::random(), ..header };
        let mut bytes = vec![0; BATCHES_AT];
        let (at, part) = header.to_bytes();
        let at = usize::try_from(at).unwrap_or(HEADER_BYTES);
        bytes[at..at + part.len()].copy_from_slice(&part);
        let mut next_batch = 1;
        if !entries.is_empty() {
            bytes.extend(image::batch(header.file, next_batch, &entries.concat()));
            next_batch += 1;
        }
        let end = bytes.len() as u64;
        let filled = (end + GROWTH_BYTES / 2).next_multiple_of(GROWTH_BYTES);
        bytes.resize(usize::try_from(filled).unwrap_or(bytes.len()), 0);
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()?;
        let (path, file) = (path.to_owned(), Arc::new(file));
        Ok(LogFile { path, file, header, end, filled, next_batch })
    }

    /// Whether the file is large and most of it superseded.
    pub(super) fn is_wasteful(&self, entries: usize) -> bool {
        self.end > WASTEFUL_BYTES && self.end / 4 > (entries * ENTRY_BYTES) as u64
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Replaces the older one of the two headers.
    pub(super) fn write_header(&mut self, header: Header) -> io::Result<()> {
        let header =
            Header { generation: self.header.generation + 1, file: self.header.file, ..header };
        let (at, bytes) = header.to_bytes();
        self.file.write_all_at(&bytes, at)?;
        self.file.sync_data()?;
        self.header = header;
        Ok(())
    }

    /// Puts entries together for one write.
    pub(super) fn next_batch<'a>(&self, entries: impl Iterator<Item = &'a [u8]>) -> Batch {
        let payload: Vec<u8> = entries.flatten().copied().collect();
        let bytes = image::batch(self.header.file, self.next_batch, &payload);
        let needed = self.end + bytes.len() as u64;
        let filled =
            if needed <= self.filled { self.filled } else { needed.next_multiple_of(GROWTH_BYTES) };
        let (file, at) = (Arc::clone(&self.file), self.end);
        Batch { file, at, bytes, filled, grow_from: self.filled }
    }

    /// A batch has become durable.
    pub(super) fn wrote(&mut self, batch: &Batch) {
        self.end += batch.bytes.len() as u64;
        self.filled = batch.filled;
        self.next_batch += 1;
    }

    fn clear_rest(&self) -> io::Result<()> {
        let rest = usize::try_from(self.filled.saturating_sub(self.end)).unwrap_or(0);
        self.file.write_all_at(&vec![0; rest], self.end)?;
        self.file.sync_all()
    }
}

impl Batch {
    /// Writes it; durable on return.
    pub(super) fn write(&self) -> io::Result<()> {
        if self.filled > self.grow_from {
            let room = usize::try_from(self.filled - self.grow_from).unwrap_or(0);
            self.file.write_all_at(&vec![0; room], self.grow_from)?;
            self.file.sync_all()?;
        }
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync_data()
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity::{Entry, Part};

    fn entry(index: u32) -> Box<[u8]> {
        let (object, parent, name) = (vec![1; 20], vec![2; 20], b"name".to_vec());
        let entry =
            Entry { tree: 0, object, parent, name, part: Part::Region(index), alone: false };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        bytes.into()
    }

    #[test]
    fn a_log_is_read_as_it_was_left_and_made_small_again() {
        let directory = std::env::temp_dir().join(format!("evenkeel-file-{}", std::process::id()));
        let path = directory.join("activity.log");
        let (mut log, entries, damage) = LogFile::open(&path, (1, 0)).unwrap();
        assert!(entries.is_empty() && damage.is_none());
        let many: Vec<Box<[u8]>> = (0..40_000).map(entry).collect();
        while log.end <= WASTEFUL_BYTES {
            let batch = log.next_batch(many.iter().map(|bytes| &**bytes));
            batch.write().unwrap();
            log.wrote(&batch);
        }
        assert!(log.is_wasteful(10) && !log.is_wasteful(40_000));
        log.write_header(Header { everything: true, ..*log.header() }).unwrap();
        let (again, entries, _) = LogFile::open(&path, (9, 9)).unwrap();
        assert_eq!((again.end, again.next_batch), (log.end, log.next_batch));
        assert!(again.header().everything && again.header().since == (1, 0));
        assert_eq!(entries.len() % many.len(), 0);
        let small = LogFile::create(&path, *again.header(), &entries[..3]).unwrap();
        assert!(!small.is_wasteful(3));
        let (_, entries, _) = LogFile::open(&path, (9, 9)).unwrap();
        assert_eq!(entries, many[..3]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_damaged_log_is_kept_and_shares_nothing() {
        let directory = std::env::temp_dir().join(format!("evenkeel-hurt-{}", std::process::id()));
        let path = directory.join("activity.log");
        let (log, _, _) = LogFile::open(&path, (1, 0)).unwrap();
        let base = log.header().point.base;
        fs::write(&path, [7; 20_000]).unwrap();
        let (fresh, entries, damage) = LogFile::open(&path, (2, 0)).unwrap();
        assert!(entries.is_empty() && damage.unwrap().contains("activity.damaged"));
        assert_ne!(fresh.header().point.base, base);
        fs::remove_dir_all(directory).unwrap();
    }
}
