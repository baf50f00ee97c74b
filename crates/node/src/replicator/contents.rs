//! The content of files in a resync, at the source: compared by hash, and sent where it differs.
//!
//! Which stretches come up when is the plan's business.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use replica::Task;
use replica::op::FileId;
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::replication::{BLOCK_BYTES, Forward, put_forward};

use crate::replicator::compare;
use crate::replicator::ping::PING_EVERY;
use crate::replicator::source::Link;
use crate::replicator::walker::Walker;

impl Walker {
    /// Compares, or for a fresh file sends, the next stretch of a file.
    pub(super) fn content(
        &mut self,
        file: FileId,
        offset: u64,
        end: u64,
        fresh: bool,
    ) -> Result<(), Errno> {
        let Some(source) = self.open(file)? else {
            self.walk.read_to_end(file);
            return Ok(());
        };
        let room = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = room.min(self.buffer.len());
        let length = self.under_order(file, &source, offset, room, |walker, length| {
            let data = &walker.buffer[..length];
            if data.is_empty() {
                return;
            }
            if fresh {
                put_blocks(&walker.link, file, offset, data, u32::MAX, true);
                walker.meter.copied(data.len());
            } else {
                let hashes = compare::hashes(data);
                let tag = walker.walk.ask_compare(file, offset, data.len() as u64);
                walker.put(&Forward::Compare { tag, file, offset, hashes });
            }
        })?;
        self.link.primary.daemon().limit().spend(length);
        self.meter.bytes(length);
        let offset = offset + length as u64;
        if length < room || offset >= end {
            self.walk.read_to_end(file);
        } else {
            self.walk.add(Task::Content { file, offset, end, fresh });
        }
        Ok(())
    }

    /// Sends blocks that differ.
    pub(super) fn blocks(&mut self, file: FileId, offset: u64, blocks: u32) -> Result<(), Errno> {
        let Some(source) = self.open(file)? else { return Ok(()) };
        let room = self.buffer.len();
        self.under_order(file, &source, offset, room, |walker, length| {
            let data = &walker.buffer[..length];
            put_blocks(&walker.link, file, offset, data, blocks, false);
            let sent = data.chunks(BLOCK_BYTES).enumerate();
            let sent = sent.filter(|(index, _)| blocks & (1 << index) != 0);
            let sent = sent.map(|(_, block)| block.len()).sum();
            walker.link.primary.daemon().limit().spend(sent);
            walker.meter.copied(sent);
        })?;
        Ok(())
    }

    /// Reads a stretch into the buffer under the order lock, having read it once before without.
    fn under_order(
        &mut self,
        file: FileId,
        source: &OwnedFd,
        offset: u64,
        room: usize,
        then: impl FnOnce(&mut Self, usize),
    ) -> Result<usize, Errno> {
        debug_assert!(file.node > 1, "only files have content");
        while !self.link.primary.daemon().limit().wait(PING_EVERY) && !self.link.is_ended() {}
        compare::read_at(source, &mut self.buffer[..room], offset)?;
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let length = compare::read_at(source, &mut self.buffer[..room], offset)?;
        then(self, length);
        drop(order);
        Ok(length)
    }

    fn open(&self, file: FileId) -> Result<Option<OwnedFd>, Errno> {
        match self.tree(file)?.open_id(file, OFlags::RDONLY | OFlags::CLOEXEC) {
            Ok(source) => Ok(Some(source)),
            Err(Errno::NOENT | Errno::STALE) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

fn put_blocks(link: &Link, file: FileId, offset: u64, data: &[u8], blocks: u32, sparse: bool) {
    link.outbox.put_quietly(|out| {
        for (index, block) in data.chunks(BLOCK_BYTES).enumerate() {
            let wanted = blocks & (1 << index) != 0;
            // An empty file that was given its size reads as zeros already.
            if wanted && !(sparse && block.iter().all(|byte| *byte == 0)) {
                let offset = offset + (index * BLOCK_BYTES) as u64;
                put_forward(out, &Forward::Block { file, offset, data: block });
            }
        }
    });
}
