//! What a walk through everything need not remember: files that are right, once the target has
//! confirmed that. So memory does not grow with their number.
//!
//! Why that is safe is `replica::session`'s matter.

use std::sync::Arc;

use replica::Complete;
use replica::op::FileId;
use wire::replication::{Forward, put_forward};

use crate::replicator::primary::TreeNames;
use crate::replicator::walker::Walker;

/// Objects that are complete before the target is asked about them; few in tests, whose trees are
/// small.
const CHECK_AT: usize = if cfg!(debug_assertions) { 8 } else { 2048 };
/// Objects that are released while changes are held up.
const RELEASE_AT_ONCE: usize = 256;

impl Walker {
    /// Asks the target whether it has anything to say against what is complete.
    pub(super) fn check_complete(&mut self) {
        let complete = self.walk.take_complete(CHECK_AT);
        if !complete.is_empty() {
            self.checks += 1;
            self.unconfirmed.insert(self.checks, complete);
            self.put(&Forward::Check { tag: self.checks });
        }
    }

    /// Everything that was complete before this check is right at the target.
    pub(super) fn release_confirmed(&mut self, tag: u64) {
        let confirmed: Complete = self.unconfirmed.remove(&tag).unwrap_or_default();
        for (directory, files) in confirmed {
            // Done comes first: what is released below it can be bound again from then on.
            let mut parts = files.chunks(RELEASE_AT_ONCE);
            self.release_some(directory, parts.next().unwrap_or_default());
            parts.for_each(|files| self.release_some(directory, files));
        }
    }

    fn release_some(&mut self, directory: FileId, files: &[FileId]) {
        let link = Arc::clone(&self.link);
        let order = link.order.lock();
        let trees = link.primary.trees();
        let mut inner = link.primary.lock();
        let Some(live) = inner.live_of(link.id) else { return };
        if !live.known.directory_is_done(directory) {
            return;
        }
        let mut released = Vec::new();
        for &file in files {
            if live.known.may_release(file, directory, &TreeNames(trees)) {
                live.known.release(file);
                self.walk.release(file);
                released.push(file);
            }
        }
        live.outbox.put_quietly(|out| {
            released.iter().for_each(|file| put_forward(out, &Forward::Forget(*file)));
        });
        released.into_iter().for_each(|file| live.unpin_one(trees, file));
        drop(inner);
        drop(order);
    }
}
