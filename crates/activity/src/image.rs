//! The log's form on disk: a header in two places, then batches of entries, each standing twice.
//!
//! ```text
//! 0      4096   8192
//! header header batch batch' batch batch' ... zeros
//! ```
//!
//! What a crash tore off was never durable, so no change followed it: it may be dropped. Damage
//! to what was durable must not be taken for that. As every batch stands twice, a single flip
//! never hides one; and a batch that cannot be read while a later one can is told as damage, upon
//! which nothing but a full comparison is right. The caller writes and syncs.

use crate::entry::Entry;

/// Bytes at which a header or a batch may begin: a sector, which a disk writes whole.
pub const SECTOR: usize = 512;

/// Bytes from one header to the next.
pub const HEADER_BYTES: usize = 4096;

/// Where the batches begin.
pub const BATCHES_AT: usize = 2 * HEADER_BYTES;

const HEADER_MAGIC: [u8; 8] = *b"EVKLOG\x02\n";
const BATCH_MAGIC: [u8; 8] = *b"evkbatch";
const SUM_BYTES: usize = 16;
const BATCH_HEAD: usize = 8 + 8 + 4;

/// Longest payload of a batch, in bytes.
const PAYLOAD_MAX: usize = 64 << 20;

/// A point of wall time of one node, in seconds and nanoseconds since 1970.
pub type Clock = (i64, u32);

/// A state that both copies shared: the log names everything that this copy changed since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// Identity: that of the session that made the copies equal.
    pub base: u128,
    /// The base that the source of that session had before.
    pub previous: u128,
    /// Whether this node was the target of that session: then the source may still have the
    /// previous base, as the target is the first to take a new one.
    pub as_target: bool,
    /// Number of the newest checkpoint since: everything up to it is durable on both nodes.
    pub cooled: u64,
    /// Number of the newest checkpoint that was begun: whoever confirmed one knows of none later.
    pub begun: u64,
}

impl Point {
    /// Whether everything in which a target's copy differs from this one is named by the two logs
    /// together. The target of a resync takes a new base before its source does; either may be
    /// the source by now.
    #[must_use]
    pub fn suffices_for(&self, target: &Point) -> bool {
        // An older state of the target's disk knows of no checkpoint that this one relied on.
        let restored = self.base == target.base && target.begun < self.cooled;
        let target_ahead = target.as_target && target.previous == self.base;
        let source_ahead = self.as_target && self.previous == target.base;
        (self.base == target.base || target_ahead || source_ahead) && !restored
    }
}

/// What the log says besides its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Rises with every header written to one file.
    pub generation: u64,
    /// Identity of the file, so that no batch of another is taken for one of it.
    pub file: u128,
    /// What the entries are relative to.
    pub point: Point,
    /// This node's clock when the newest checkpoint began: whatever changed later is named by an
    /// entry, or is the child of a directory that is.
    pub since: Clock,
    /// On a target: its clock when the newest checkpoint reached it. That becomes `since` with the
    /// next one, as only then the source is known to have completed this one.
    pub coming: Clock,
    /// Whether anything may differ, so that only a full comparison is right.
    pub everything: bool,
    /// When the directories were open to changes past replication that no entry names yet.
    pub unwatched: Option<Window>,
    /// Identity of the boot in which the log was last in use.
    pub boot: u128,
    /// What each replicated root carries too, so that neither is put back to an earlier state
    /// unnoticed; 0 when none was set yet.
    pub seal: u128,
    /// What a root may carry instead, as long as a change of the seal is under way; else 0.
    pub next_seal: u128,
    /// Digest of what is left out of the replication.
    pub excluded: u128,
    /// Whether this copy may differ from what its number says, until both copies are equal again.
    pub strayed: bool,
}

/// A stretch of one node's wall time; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Clock,
    /// Its end; none while it lasts.
    pub until: Option<Clock>,
}

impl Window {
    /// Whether a stamp may have been made in it. Some file systems only keep whole seconds.
    #[must_use]
    pub fn contains(&self, stamp: Clock) -> bool {
        let begun = self.from <= stamp || (stamp.1 == 0 && self.from.0 == stamp.0);
        begun && self.until.is_none_or(|until| stamp <= until)
    }
}

/// Why a log cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Neither header can be read.
    Header,
    /// A batch that was durable cannot be read.
    Batch,
    /// A batch holds something that is no entry.
    Entry,
}

/// A log as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its header.
    pub header: Header,
    /// Its entries with the number of the batch that each came in.
    pub entries: Vec<(u64, Entry)>,
    /// Where the next batch goes, in bytes.
    pub end: u64,
    /// Number of the next batch.
    pub next_batch: u64,
}

impl Header {
    /// Its bytes and where in the file they go.
    #[must_use]
    pub fn to_bytes(&self) -> (u64, Vec<u8>) {
        let mut bytes = HEADER_MAGIC.to_vec();
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        for id in [self.file, self.point.base, self.point.previous] {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes.push(u8::from(self.point.as_target));
        bytes.extend_from_slice(&self.point.cooled.to_le_bytes());
        bytes.extend_from_slice(&self.point.begun.to_le_bytes());
        for (seconds, nanoseconds) in [self.since, self.coming] {
            bytes.extend_from_slice(&seconds.to_le_bytes());
            bytes.extend_from_slice(&nanoseconds.to_le_bytes());
        }
        bytes.push(u8::from(self.everything));
        put_window(&mut bytes, self.unwatched);
        for id in [self.boot, self.seal, self.next_seal, self.excluded] {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes.push(u8::from(self.strayed));
        let sum = sum(&[&bytes]);
        bytes.extend_from_slice(&sum);
        bytes.resize(SECTOR, 0);
        let at = (self.generation % 2) * HEADER_BYTES as u64;
        (at, bytes)
    }

    fn take(bytes: &[u8]) -> Option<Header> {
        let mut rest = bytes.get(..SECTOR)?;
        (rest.split_off(..8)? == HEADER_MAGIC).then_some(())?;
        let generation = u64_of(&mut rest)?;
        let (file, base, previous) =
            (u128_of(&mut rest)?, u128_of(&mut rest)?, u128_of(&mut rest)?);
        let as_target = *rest.split_off_first()? != 0;
        let (cooled, begun) = (u64_of(&mut rest)?, u64_of(&mut rest)?);
        let (since, coming) = (clock_of(&mut rest)?, clock_of(&mut rest)?);
        let everything = *rest.split_off_first()? != 0;
        let unwatched = window_of(&mut rest)?;
        let (boot, seal, next_seal) =
            (u128_of(&mut rest)?, u128_of(&mut rest)?, u128_of(&mut rest)?);
        let excluded = u128_of(&mut rest)?;
        let strayed = *rest.split_off_first()? != 0;
        let summed = bytes.get(..SECTOR - rest.len())?;
        (rest.split_off(..SUM_BYTES)? == sum(&[summed])).then_some(())?;
        let point = Point { base, previous, as_target, cooled, begun };
        Some(Header {
            generation,
            file,
            point,
            since,
            coming,
            everything,
            unwatched,
            boot,
            seal,
            next_seal,
            excluded,
            strayed,
        })
    }
}

/// A batch of entries, twice, padded to whole sectors.
#[must_use]
pub fn batch(file: u128, number: u64, entries: &[u8]) -> Vec<u8> {
    let mut bytes = BATCH_MAGIC.to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(entries);
    let sum = sum(&[&file.to_le_bytes(), &bytes]);
    bytes.extend_from_slice(&sum);
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes.extend_from_within(..);
    bytes
}

impl Image {
    /// Reads a log.
    pub fn read(bytes: &[u8]) -> Result<Image, Damage> {
        let header = [0, HEADER_BYTES]
            .into_iter()
            .filter_map(|at| Header::take(bytes.get(at..)?))
            .max_by_key(|header| header.generation)
            .ok_or(Damage::Header)?;
        let mut image =
            Image { header, entries: Vec::new(), end: BATCHES_AT as u64, next_batch: 1 };
        let mut at = BATCHES_AT;
        while let Some((found, number, payload, length)) = find(bytes, header.file, at) {
            if number != image.next_batch {
                return Err(Damage::Batch);
            }
            image.add(payload)?;
            // The first copy is followed by the second, whatever has become of that.
            at = if found == at { at + 2 * length } else { found + length };
            image.end = at as u64;
            image.next_batch += 1;
        }
        Ok(image)
    }

    fn add(&mut self, mut payload: &[u8]) -> Result<(), Damage> {
        while !payload.is_empty() {
            let entry = Entry::take(&mut payload).ok_or(Damage::Entry)?;
            self.entries.push((self.next_batch, entry));
        }
        Ok(())
    }
}

/// The next readable batch at or after a position: where, its number, payload, and length.
fn find(bytes: &[u8], file: u128, from: usize) -> Option<(usize, u64, &[u8], usize)> {
    (from..bytes.len()).step_by(SECTOR).find_map(|at| {
        let (number, payload, length) = batch_at(bytes.get(at..)?, file)?;
        Some((at, number, payload, length))
    })
}

fn batch_at(bytes: &[u8], file: u128) -> Option<(u64, &[u8], usize)> {
    let mut rest = bytes.strip_prefix(&BATCH_MAGIC)?;
    let number = u64_of(&mut rest)?;
    let length = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?) as usize;
    (length <= PAYLOAD_MAX).then_some(())?;
    let payload = rest.split_off(..length)?;
    let summed = bytes.get(..BATCH_HEAD + length)?;
    (rest.split_off(..SUM_BYTES)? == sum(&[&file.to_le_bytes(), summed])).then_some(())?;
    Some((number, payload, (BATCH_HEAD + length + SUM_BYTES).next_multiple_of(SECTOR)))
}

fn sum(parts: &[&[u8]]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    sum
}

/// How many ends of a window are known, then both.
fn put_window(bytes: &mut Vec<u8>, window: Option<Window>) {
    let known = window.map_or(0, |window| 1 + u8::from(window.until.is_some()));
    bytes.push(known);
    let from = window.map_or((0, 0), |window| window.from);
    let until = window.and_then(|window| window.until).unwrap_or((0, 0));
    for (seconds, nanoseconds) in [from, until] {
        bytes.extend_from_slice(&seconds.to_le_bytes());
        bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    }
}

#[allow(clippy::option_option, reason = "unreadable is not the same as none")]
fn window_of(bytes: &mut &[u8]) -> Option<Option<Window>> {
    let known = *bytes.split_off_first()?;
    let (from, until) = (clock_of(bytes)?, clock_of(bytes)?);
    match known {
        0 => Some(None),
        1 => Some(Some(Window { from, until: None })),
        2 => Some(Some(Window { from, until: Some(until) })),
        _ => None,
    }
}

fn clock_of(bytes: &mut &[u8]) -> Option<Clock> {
    let seconds = u64_of(bytes)?.cast_signed();
    Some((seconds, u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?)))
}

fn u64_of(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.split_off(..8)?.try_into().ok()?))
}

fn u128_of(bytes: &mut &[u8]) -> Option<u128> {
    Some(u128::from_le_bytes(bytes.split_off(..16)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Part;

    fn entry(number: u32) -> Entry {
        Entry {
            tree: 0,
            object: vec![9; 12],
            parent: Vec::new(),
            name: b"file".to_vec(),
            part: Part::Region(number),
            alone: false,
        }
    }

    fn header(generation: u64) -> Header {
        let point = Point { base: 1, previous: 2, as_target: true, cooled: generation, begun: 9 };
        let unwatched = Some(Window { from: (-5, 6), until: Some((9, 1)) });
        let (since, coming) = ((-5, 6), (7, 8));
        let (boot, seal, next_seal, excluded) = (3, 4, 5, 6);
        let everything = false;
        Header {
            generation,
            file: 77,
            point,
            since,
            coming,
            everything,
            unwatched,
            boot,
            seal,
            next_seal,
            excluded,
            strayed: true,
        }
    }

    fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
        bytes.resize(bytes.len().max(at + part.len()), 0);
        bytes[at..at + part.len()].copy_from_slice(part);
    }

    /// A log with batches of one, two and three entries, and zeros behind.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        for generation in [4, 5] {
            let (at, part) = header(generation).to_bytes();
            put(&mut bytes, usize::try_from(at).unwrap(), &part);
        }
        bytes.resize(BATCHES_AT, 0);
        let mut starts = Vec::new();
        for number in 1..=3 {
            let mut payload = Vec::new();
            (0..number).for_each(|index| entry(index).put(&mut payload));
            starts.push(bytes.len());
            bytes.extend(batch(77, u64::from(number), &payload));
        }
        starts.push(bytes.len());
        bytes.resize(bytes.len() + 10_000, 0);
        (bytes, starts)
    }

    #[test]
    fn a_log_comes_back_as_it_was() {
        let (bytes, starts) = log();
        let image = Image::read(&bytes).unwrap();
        assert_eq!(image.header, header(5));
        assert_eq!(image.entries.len(), 6);
        assert_eq!(image.entries[5], (3, entry(2)));
        assert_eq!((image.end, image.next_batch), (starts[3] as u64, 4));
    }

    #[test]
    fn what_was_torn_off_is_dropped_and_what_was_whole_is_kept() {
        let (bytes, starts) = log();
        for length in starts[2]..starts[3] {
            let mut torn = bytes[..length].to_vec();
            torn.resize(bytes.len(), 0);
            let image = Image::read(&torn).unwrap();
            let half = starts[2] + (starts[3] - starts[2]) / 2;
            if length < starts[2] + 100 {
                assert_eq!(image.entries.len(), 3, "{length}");
            } else if length >= half {
                assert_eq!(image.entries.len(), 6, "{length}");
            }
        }
    }

    #[test]
    fn no_single_flip_loses_an_entry() {
        let (bytes, _) = log();
        let whole = Image::read(&bytes).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let image = Image::read(&flipped).unwrap();
            assert_eq!(image.entries, whole.entries, "byte {at}");
            assert_eq!(image.end, whole.end, "byte {at}");
            assert!(image.header.generation >= 4, "byte {at}");
        }
    }

    #[test]
    fn a_hole_before_something_readable_is_damage() {
        let (mut bytes, starts) = log();
        bytes[starts[1]..starts[2]].fill(0);
        assert_eq!(Image::read(&bytes), Err(Damage::Batch));
        let mut headless = bytes;
        headless[..BATCHES_AT].fill(0);
        assert_eq!(Image::read(&headless), Err(Damage::Header));
    }

    #[test]
    fn logs_suffice_only_when_they_meet_in_a_shared_state() {
        let point =
            |base, previous, as_target| Point { base, previous, as_target, ..Point::default() };
        let source = point(2, 1, false);
        assert!(source.suffices_for(&point(2, 1, true)));
        assert!(source.suffices_for(&point(3, 2, true)), "the target was first to take a base");
        assert!(!source.suffices_for(&point(1, 0, true)), "the target had confirmed base 2");
        assert!(point(2, 1, true).suffices_for(&point(1, 0, false)), "it was the target then");
        assert!(!source.suffices_for(&point(3, 2, false)));
        assert!(!source.suffices_for(&point(9, 9, true)));
        let cooled = Point { cooled: 7, ..source };
        assert!(!cooled.suffices_for(&Point { begun: 6, ..source }), "a restored disk");
        assert!(cooled.suffices_for(&Point { begun: 7, ..source }));
    }

    #[test]
    fn windows_come_back_as_they_were_and_contain_their_ends() {
        let open = Window { from: (5, 2), until: None };
        let closed = Window { from: (5, 2), until: Some((6, 0)) };
        for unwatched in [None, Some(open), Some(closed)] {
            let (_, bytes) = Header { unwatched, ..header(1) }.to_bytes();
            assert_eq!(Header::take(&bytes), Some(Header { unwatched, ..header(1) }));
        }
        let judged = [(5, 1), (5, 2), (6, 0), (6, 1)].map(|stamp| closed.contains(stamp));
        assert_eq!(judged, [false, true, true, false]);
        assert!(closed.contains((5, 0)), "a file system that keeps whole seconds");
        assert!(open.contains((i64::MAX, 0)));
    }

    #[test]
    fn batches_of_another_file_are_not_read() {
        let (mut bytes, starts) = log();
        let mut payload = Vec::new();
        entry(9).put(&mut payload);
        put(&mut bytes, starts[3], &batch(78, 4, &payload));
        assert_eq!(Image::read(&bytes).unwrap().entries.len(), 6);
    }
}
