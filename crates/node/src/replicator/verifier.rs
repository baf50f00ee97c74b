//! A verification: both copies are compared whole while the application goes on.
//!
//! No false alarms: what seems to differ is looked at once more under the order lock, and the
//! question to the target is put into the stream at that very moment, so that both see the same
//! state. All else is read without the lock. It changes nothing; what a repair does with the
//! findings is at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use mount::backing::Kind;
use mount::{Gate, Recorder, Tree};
use replica::op::{FileId, Stamp};
use replica::touch::Touch;
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::local::{FromReplicator, Verification};
use wire::replication::{BLOCK_BYTES, BLOCKS_MAX, Forward, Summary, put_forward};

use crate::replicator::compare;
use crate::replicator::delta::put_bind;
use crate::replicator::primary::TreeNames;
use crate::replicator::source::{Heard, Link, next};
use crate::replicator::summarize::summaries;

/// Bytes compared by one question.
const STRETCH_BYTES: usize = BLOCK_BYTES * BLOCKS_MAX;
/// Differences that are told one by one.
const TOLD_MAX: usize = 100;
/// How often the progress is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Why a verification did not come to its end, as a sentence.
type Ended = String;

/// A verification under way.
pub(super) struct Verifier {
    link: Arc<Link>,
    heard: Receiver<Heard>,
    report: Verification,
    told: Instant,
    tags: u64,
    /// Files with several names, whose content was compared under one of them.
    compared: BTreeSet<(u16, u64)>,
    /// What a repair compares and mends.
    touches: Vec<Touch>,
    buffer: Vec<u8>,
}

impl Verifier {
    /// Compares everything, tells how that goes and what it found, and has what differs mended if
    /// that is wanted.
    pub(super) fn run(link: &Arc<Link>, serial: u64, repair: bool) {
        let (sender, heard) = channel();
        link.listen(sender);
        let report = Verification { serial, running: true, ..Verification::default() };
        let mut verifier = Verifier {
            link: Arc::clone(link),
            heard,
            report,
            told: Instant::now(),
            tags: 0,
            compared: BTreeSet::new(),
            touches: Vec::new(),
            buffer: vec![0; STRETCH_BYTES],
        };
        let outcome = verifier.compare_all();
        verifier.report.ended = outcome.err();
        if repair && verifier.report.ended.is_none() && verifier.report.differences > 0 {
            verifier.report.repairing = verifier.repair();
        }
        verifier.report.running = false;
        verifier.tell();
    }

    fn compare_all(&mut self) -> Result<(), Ended> {
        let trees = Arc::clone(self.link.primary.trees());
        for tree in trees.iter() {
            let root = tree.id(FileId::root(0).node);
            self.check_name(tree, root, b".", b"")?;
            // Directories whose ids are pinned, with their paths.
            let mut directories = vec![(root, Vec::new())];
            while let Some((directory, path)) = directories.pop() {
                let found = self.directory(tree, directory, &path);
                tree.unpin(directory);
                match found {
                    Ok(found) => directories.extend(found),
                    Err(ended) => {
                        directories.iter().for_each(|(directory, _)| tree.unpin(*directory));
                        return Err(ended);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares what stands in a directory; answers the directories in it.
    fn directory(
        &mut self,
        tree: &Arc<Tree>,
        directory: FileId,
        path: &[u8],
    ) -> Result<Vec<(FileId, Vec<u8>)>, Ended> {
        let theirs = match self.ask(directory, b"")? {
            Some(theirs) => Verifier::of_both(tree, directory, theirs),
            None => return Ok(Vec::new()),
        };
        let ours = self.ours(tree, directory, b"")?;
        let names: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
        let mut below = Vec::new();
        for name in names {
            let full = [path, b"/", name].concat();
            let same = ours.get(name) == theirs.get(name);
            if !same && !self.check_name(tree, directory, name, &full)? {
                continue;
            }
            self.report.entries += 1;
            self.tell_progress(&full);
            // Gone meanwhile, here and there.
            let Ok((file, stat)) = tree.lookup(directory, name) else { continue };
            if stat.kind() == Kind::Directory {
                below.push((file, full));
                continue;
            }
            let first = stat.nlink < 2 || self.compared.insert((file.tree, stat.ino));
            let compared = match stat.kind() == Kind::File && first {
                true => self.content(tree, file, &full),
                false => Ok(()),
            };
            tree.unpin(file);
            compared?;
        }
        Ok(below)
    }

    /// Looks once more at what seems to differ, at one moment on both sides; false when it does
    /// and there is nothing below or in it to compare.
    fn check_name(
        &mut self,
        tree: &Arc<Tree>,
        directory: FileId,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool, Ended> {
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let ours = self.ours(tree, directory, name)?.remove(name);
        let asked = self.put_question(directory, name, &order)?;
        drop(order);
        let theirs = match asked {
            Some(tag) => {
                Verifier::of_both(tree, directory, self.await_summaries(tag)?).remove(name)
            }
            None => return Ok(false),
        };
        match (ours, theirs) {
            (ours, theirs) if ours == theirs => Ok(ours.is_some()),
            (Some(ours), Some(theirs)) => {
                self.differs(path, &how(&ours, &theirs));
                let same_kind = Kind::of_mode(ours.mode) == Kind::of_mode(theirs.mode);
                self.touches.push(Touch::Names(directory));
                if let Some(file) = tree.known_child(directory, name).filter(|_| same_kind) {
                    self.touches.push(Touch::Rest(file));
                }
                Ok(same_kind && name != b".")
            }
            (Some(_), None) => {
                let peer = self.link.target.clone();
                self.differs(path, &format!("is missing on {peer}"));
                self.touches.push(Touch::Names(directory));
                Ok(false)
            }
            (None, Some(_)) => {
                let peer = self.link.target.clone();
                self.differs(path, &format!("is there on {peer} alone"));
                self.touches.push(Touch::Names(directory));
                Ok(false)
            }
            (None, None) => Ok(false),
        }
    }

    /// Compares the content of a file.
    fn content(&mut self, tree: &Arc<Tree>, file: FileId, path: &[u8]) -> Result<(), Ended> {
        let Ok(source) = tree.open_id(file, OFlags::RDONLY | OFlags::CLOEXEC) else {
            return Ok(());
        };
        let mut offset = 0;
        loop {
            while !self.link.primary.daemon().limit().wait(TELL_EVERY) {
                self.tell_progress(path);
            }
            let length = self.read(&source, offset)?;
            if length == 0 {
                return Ok(());
            }
            let link = Arc::clone(&self.link);
            let order = link.order.lock();
            let asked = self.put_comparison(file, offset, length, &order)?;
            drop(order);
            let Some(tag) = asked else { return Ok(()) };
            if self.await_blocks(tag)? != 0 && !self.is_same_now(file, &source, offset)? {
                self.differs(path, &format!("differs in content from {offset} on"));
                self.touches.push(Touch::Rest(file));
                return Ok(());
            }
            self.link.primary.daemon().limit().spend(length);
            self.report.bytes += length as u64;
            self.tell_progress(path);
            offset += length as u64;
        }
    }

    /// Whether a stretch is the same on both sides, read and asked for at one moment.
    fn is_same_now(
        &mut self,
        file: FileId,
        source: &std::os::fd::OwnedFd,
        offset: u64,
    ) -> Result<bool, Ended> {
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let length = self.read(source, offset)?;
        let asked = self.put_comparison(file, offset, length, &order)?;
        drop(order);
        match asked {
            // An empty stretch: the file has become shorter, there as here.
            Some(_) if length == 0 => Ok(true),
            Some(tag) => Ok(self.await_blocks(tag)? == 0),
            None => Ok(true),
        }
    }

    fn read(&mut self, source: &std::os::fd::OwnedFd, offset: u64) -> Result<usize, Ended> {
        compare::read_at(source, &mut self.buffer, offset)
            .map_err(|errno| format!("a file cannot be read: {errno}"))
    }

    fn ours(
        &self,
        tree: &Tree,
        directory: FileId,
        name: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Summary>, Ended> {
        let found = tree
            .path_descriptor(directory)
            .and_then(|place| summaries(&*place, directory.node == 1, name));
        match found {
            Ok(found) => Ok(Verifier::of_both(tree, directory, found.into_iter().collect())),
            Err(Errno::NOENT | Errno::STALE) => Ok(BTreeMap::new()),
            Err(errno) => Err(format!("a directory cannot be read: {errno}")),
        }
    }

    /// What both nodes must agree on: neither what is left out of the replication, nor when that
    /// changed a directory.
    fn of_both(
        tree: &Tree,
        directory: FileId,
        mut all: BTreeMap<Vec<u8>, Summary>,
    ) -> BTreeMap<Vec<u8>, Summary> {
        if tree.has_excluded() {
            all.retain(|name, _| !tree.is_excluded_name(directory, name));
            for summary in all.values_mut() {
                if Kind::of_mode(summary.mode) == Kind::Directory {
                    summary.mtime = Stamp { seconds: 0, nanoseconds: 0 };
                }
            }
        }
        all
    }

    fn ask(
        &mut self,
        directory: FileId,
        name: &[u8],
    ) -> Result<Option<BTreeMap<Vec<u8>, Summary>>, Ended> {
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let asked = self.put_question(directory, name, &order)?;
        drop(order);
        asked.map(|tag| self.await_summaries(tag)).transpose()
    }

    /// Under the order lock. None when the directory is gone.
    fn put_question(
        &mut self,
        directory: FileId,
        name: &[u8],
        order: &MutexGuard<'_, Box<dyn Recorder>>,
    ) -> Result<Option<u64>, Ended> {
        self.put(directory, order, |out, tag| {
            put_forward(out, &Forward::Summarize { tag, directory, name });
        })
    }

    /// Under the order lock: has the target compare what is in the buffer.
    fn put_comparison(
        &mut self,
        file: FileId,
        offset: u64,
        length: usize,
        order: &MutexGuard<'_, Box<dyn Recorder>>,
    ) -> Result<Option<u64>, Ended> {
        let hashes = compare::hashes(self.buffer.get(..length).unwrap_or_default());
        self.put(file, order, |out, tag| {
            // An empty stretch needs no answer.
            if !hashes.is_empty() {
                put_forward(out, &Forward::Compare { tag, file, offset, hashes });
            }
        })
    }

    /// Puts a question about an object, which the target is told how to find.
    fn put(
        &mut self,
        file: FileId,
        _order: &MutexGuard<'_, Box<dyn Recorder>>,
        question: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Option<u64>, Ended> {
        self.tags += 1;
        let trees = self.link.primary.trees();
        let tree = trees.get(usize::from(file.tree)).ok_or("a directory is not known")?;
        if file.node != 1 && tree.stat(file).is_ok_and(|stat| stat.nlink == 0) {
            return Ok(None);
        }
        let mut inner = self.link.primary.lock();
        let live = inner.live_of(self.link.id).ok_or("the session to the peer has ended")?;
        if live.known.is_walking() {
            return Err("the peer is being brought up to date".to_owned());
        }
        let Ok(steps) = live.known.reach_settled(file, &TreeNames(trees)) else {
            return Ok(None);
        };
        live.outbox.put(|out| {
            steps.iter().for_each(|step| put_bind(out, step));
            question(out, self.tags);
        });
        Ok(Some(self.tags))
    }

    fn await_summaries(&mut self, tag: u64) -> Result<BTreeMap<Vec<u8>, Summary>, Ended> {
        let mut all = BTreeMap::new();
        loop {
            match self.next()? {
                Heard::Summarized { tag: answered, last, entries } if answered == tag => {
                    all.extend(entries);
                    if last {
                        return Ok(all);
                    }
                }
                _ => {}
            }
        }
    }

    fn await_blocks(&mut self, tag: u64) -> Result<u32, Ended> {
        loop {
            match self.next()? {
                Heard::Differ { tag: answered, blocks } if answered == tag => return Ok(blocks),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Heard, Ended> {
        next(&self.link, &self.heard).ok_or_else(|| "the session to the peer ended".to_owned())
    }

    fn differs(&mut self, path: &[u8], how: &str) {
        self.report.differences += 1;
        if self.report.told.len() < TOLD_MAX {
            self.report.told.push(format!("{} {how}", String::from_utf8_lossy(path)));
        }
    }

    fn tell_progress(&mut self, path: &[u8]) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.report.current = String::from_utf8_lossy(path).into_owned();
            self.tell();
        }
    }

    fn tell(&self) {
        self.link.primary.daemon().tell(FromReplicator::Verified(self.report.clone()));
    }

    /// Notes what differs in the activity log, and ends the session: the next one begins with a
    /// resync of what the log names. Says whether that is under way.
    fn repair(&mut self) -> bool {
        let link = Arc::clone(&self.link);
        // No checkpoint begins in between, which would let go of it.
        let order = link.order.lock();
        for touches in self.touches.chunks(16) {
            if link.primary.log().prepare(touches).is_err() {
                return false;
            }
        }
        drop(order);
        link.lost("a verification found differences, which are mended by a resync");
        true
    }
}

/// In what two summaries differ.
fn how(ours: &Summary, theirs: &Summary) -> String {
    let mut parts = Vec::new();
    let mut add = |differ: bool, part: String| {
        if differ {
            parts.push(part);
        }
    };
    add(ours.mode != theirs.mode, format!("mode {:o} here, {:o} there", ours.mode, theirs.mode));
    let owners = [(ours.uid, ours.gid), (theirs.uid, theirs.gid)];
    let [(uid, gid), (their_uid, their_gid)] = owners;
    add(owners[0] != owners[1], format!("owner {uid}:{gid} here, {their_uid}:{their_gid} there"));
    add(ours.size != theirs.size, format!("size {} here, {} there", ours.size, theirs.size));
    add(ours.mtime != theirs.mtime, "modification time".to_owned());
    add(ours.rest != theirs.rest, "extended attributes, target or device".to_owned());
    format!("differs: {}", parts.join("; "))
}
