//! A change's turn: lock the order, ask for admission, apply, record, answer.
//!
//! What is applied is in the other modules; each change ends in exactly one `Done`.

use std::sync::Arc;

use fuse::{Answer, Connection, Errno, Request};
use replica::op::{FileId, Op};
use replica::touch::Touch;

use super::Server;
use crate::record::Recorder;
use crate::tree::Tree;

/// A change under way; holds the order lock.
pub(super) struct Turn<'a> {
    recorder: &'a mut dyn Recorder,
    tree: &'a Tree,
    connection: &'a Arc<Connection>,
    unique: u64,
    what: &'a str,
}

/// Proof that the caller of a change is taken care of.
pub(super) struct Done(());

impl Turn<'_> {
    /// The last change of the turn; the caller gets `outcome` when the policy is met.
    pub(super) fn finish(mut self, op: Op<'_>, outcome: Result<Vec<u8>, Errno>) -> Done {
        if let Err(errno) = outcome {
            self.failed(errno);
        }
        let answer = Answer::new(self.connection, self.unique, outcome);
        if self.is_private(&op) {
            answer.send();
        } else {
            self.recorder.record(op, Some(answer));
        }
        Done(())
    }

    /// As `finish`, but the policy also wants `file` to be durable, as it is here.
    pub(super) fn finish_durably(self, op: Op<'_>, file: FileId, body: Vec<u8>) -> Done {
        self.recorder.record(op, None);
        let sync = self.recorder.sync_begins(file, false);
        let answer = Answer::new(self.connection, self.unique, Ok(body));
        self.recorder.sync_ended(sync, Ok(()), answer);
        Done(())
    }

    /// The last change of the turn, followed by a sync of `file`, with whose end its caller is
    /// answered; gives that its number, unless the recorder does not know the file.
    pub(super) fn finish_with_sync(
        mut self,
        op: Op<'_>,
        file: FileId,
        data_only: bool,
    ) -> (Done, Option<u64>) {
        self.also(op);
        let unnamed = self.tree.note_sync(file.node);
        (Done(()), (!unnamed).then(|| self.recorder.sync_begins(file, data_only)))
    }

    /// A change that goes with the one that finishes the turn.
    pub(super) fn also(&mut self, op: Op<'_>) {
        if !self.is_private(&op) {
            self.recorder.record(op, None);
        }
    }

    /// Whether it is about a file without a name, which the peer does not know.
    fn is_private(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Write { file, .. }
            | Op::SetAttr { file, .. }
            | Op::SetXattr { file, .. }
            | Op::RemoveXattr { file, .. }
            | Op::Allocate { file, .. }
            | Op::Sync { file, .. } => self.tree.is_unnamed(file.node),
            Op::Create { .. } | Op::Link { .. } | Op::Remove { .. } | Op::Rename { .. } => false,
        }
    }

    /// Nothing was changed that the peer has to know.
    pub(super) fn unchanged(self, body: &[u8]) -> Done {
        self.connection.reply(self.unique, body);
        Done(())
    }

    /// What is here cannot be told to the peer, whatever the error is.
    pub(super) fn broken(&mut self, errno: Errno) {
        self.recorder.copy_failed(self.what, errno);
    }

    /// The backing store refused the change or a part of it.
    pub(super) fn failed(&mut self, errno: Errno) {
        if is_bad(errno) {
            self.recorder.copy_failed(self.what, errno);
        }
    }
}

/// Whether an error of the backing store makes this copy bad. A store that became read-only has
/// met an error before; a recorder that refuses with `EROFS` is never asked about here.
pub(super) fn is_bad(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::UCLEAN | Errno::ROFS)
}

/// Whether a failed sync makes this copy bad: what was written before may be lost, whatever the
/// error is. Only of a file that cannot be synced at all, as a pipe, nothing can be.
pub(super) fn is_bad_sync(errno: Errno) -> bool {
    is_bad(errno) || !matches!(errno, Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
}

impl Server {
    /// Applies a change in its turn, which may touch nothing but `touches`. An error is answered;
    /// it means that nothing was changed, or that what was is recorded.
    pub(super) fn change(
        &self,
        request: &Request<'_>,
        what: &str,
        touches: &[Touch],
        apply: impl FnOnce(Turn<'_>) -> Result<Done, Errno>,
    ) {
        let mut recorder = match self.order.lock_for(touches) {
            Ok(recorder) => recorder,
            Err(errno) => return self.connection.reply_error(request.unique, errno),
        };
        let turn = Turn {
            recorder: &mut **recorder,
            tree: &self.tree,
            connection: &self.connection,
            unique: request.unique,
            what,
        };
        if let Err(errno) = apply(turn) {
            if is_bad(errno) {
                recorder.copy_failed(what, errno);
            }
            drop(recorder);
            self.connection.reply_error(request.unique, errno);
        } else {
            drop(recorder);
        }
        self.order.changed();
    }

    /// Answers a question that changes nothing.
    pub(super) fn answer(&self, request: &Request<'_>, outcome: Result<Vec<u8>, Errno>) {
        match outcome {
            Ok(body) => self.connection.reply(request.unique, &body),
            Err(errno) => self.refuse(request, errno),
        }
    }

    /// Answers with an error, and tells the recorder of one that makes this copy bad.
    pub(super) fn refuse(&self, request: &Request<'_>, errno: Errno) {
        if is_bad(errno) {
            self.order.lock().copy_failed("reading the backing store", errno);
        }
        self.connection.reply_error(request.unique, errno);
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, is_bad, is_bad_sync};

    #[test]
    fn a_full_disk_fails_a_sync_but_not_the_copy() {
        for errno in [Errno::IO, Errno::UCLEAN, Errno::ROFS] {
            assert!(is_bad(errno) && is_bad_sync(errno), "{errno:?}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(!is_bad(errno) && is_bad_sync(errno), "{errno:?}");
        }
        for errno in [Errno::INVAL, Errno::OPNOTSUPP] {
            assert!(!is_bad(errno) && !is_bad_sync(errno), "{errno:?}");
        }
    }
}
