//! A change's turn: lock the order, ask for admission, apply, record, answer.
//!
//! What is applied is in the other modules; each change ends in exactly one `Done`.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use fuse::{Answer, Connection, Errno};
use replica::op::{FileId, Op};
use replica::touch::Touch;

use super::Server;
use super::call::Call;
use crate::estate::{Before, Doubt, Waiting};
use crate::record::Recorder;
use crate::tree::Tree;

/// A change under way; holds the order lock.
pub(super) struct Turn<'a> {
    recorder: &'a mut dyn Recorder,
    tree: &'a Tree,
    connection: &'a Arc<Connection>,
    call: &'a Call<'a>,
    what: &'a str,
    /// Operations of this change that a predecessor has recorded already.
    recorded: u64,
    /// Whether something was changed that is not recorded yet.
    made: &'a Cell<bool>,
}

/// Proof that the caller of a change is taken care of.
pub(super) struct Done(());

impl<'a> Turn<'a> {
    /// A turn that begins, or that goes on with what a predecessor may have done.
    fn new(
        server: &'a Server,
        recorder: &'a mut dyn Recorder,
        call: &'a Call<'a>,
        what: &'a str,
        made: &'a Cell<bool>,
    ) -> Turn<'a> {
        let next = recorder.next();
        let recorded = match &call.doubt {
            // Its operations are the same each time.
            Some(Doubt { first, before: Some(_) }) => next.saturating_sub(*first),
            // It is done, and told, once more: that changes nothing.
            Some(Doubt { before: None, .. }) | None => {
                call.marks.begin(next);
                0
            }
        };
        let (tree, connection) = (&server.tree, &server.connection);
        Turn { recorder, tree, connection, call, what, recorded, made }
    }

    /// What was under the change's names before a predecessor may have changed them.
    pub(super) fn before(&self) -> Option<Before> {
        self.call.doubt.as_ref()?.before.clone()
    }

    /// Whether a predecessor may have made this change.
    pub(super) fn is_doubtful(&self) -> bool {
        self.call.doubt.is_some()
    }

    /// Something was changed: from here on an error means that the peer cannot be told of it.
    pub(super) fn made(&self) {
        self.made.set(true);
    }

    /// What follows is told again by a successor, whatever of it a predecessor has told: it may
    /// come in other pieces, and changes nothing when it comes twice.
    pub(super) fn tell_again(&mut self) {
        self.recorded = 0;
    }

    /// Notes what is under the change's names, which are about to be changed.
    pub(super) fn expect(&self, before: &Before) {
        self.call.marks.expect(before);
    }

    /// The last change of the turn; the caller gets `outcome` when the policy is met.
    pub(super) fn finish(mut self, op: Op<'_>, outcome: Result<Vec<u8>, Errno>) -> Done {
        if let Err(errno) = outcome {
            self.failed(errno);
        }
        let unique = self.call.unique;
        if self.is_private(&op) {
            Answer::new(self.connection, unique, outcome).send();
        } else if self.recorded > 0 {
            let number = self.recorder.next() - 1;
            let answer = self.noted(Waiting::Answer { unique, number, outcome });
            self.recorder.recorded(number, answer);
        } else {
            let number = self.recorder.next();
            let answer = self.noted(Waiting::Answer { unique, number, outcome });
            self.recorder.record(op, Some(answer));
        }
        Done(())
    }

    /// As `finish`, but the policy also wants `file` to be durable, as it is here.
    pub(super) fn finish_durably(mut self, op: Op<'_>, file: FileId, body: Vec<u8>) -> Done {
        self.also(op);
        let (unique, number) = (self.call.unique, self.recorder.next());
        let waiting = Waiting::Durable { unique, number, node: file.node, body };
        let answer = self.noted(waiting);
        let sync = self.recorder.sync_begins(file, false);
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
        if self.is_private(&op) {
            return;
        }
        match self.recorded.checked_sub(1) {
            Some(rest) => self.recorded = rest,
            None => self.recorder.record(op, None),
        }
    }

    /// The answer of a request that waits, noted for a successor.
    fn noted(&self, waiting: Waiting) -> Answer {
        noted(self.tree, self.connection, waiting)
    }

    /// Whether it is about a file without a name or a name that is left out, which the peer does
    /// not know.
    fn is_private(&self, op: &Op<'_>) -> bool {
        match *op {
            Op::Write { file, .. }
            | Op::SetAttr { file, .. }
            | Op::SetXattr { file, .. }
            | Op::RemoveXattr { file, .. }
            | Op::Allocate { file, .. }
            | Op::Sync { file, .. } => {
                self.tree.is_unnamed(file.node) || self.tree.is_excluded(file)
            }
            Op::Create { parent, name, .. }
            | Op::Link { parent, name, .. }
            | Op::Remove { parent, name, .. } => self.tree.is_excluded_name(parent, name),
            // Across the border none is told.
            Op::Rename { parent, name, .. } => self.tree.is_excluded_name(parent, name),
        }
    }

    /// Nothing was changed that the peer has to know.
    pub(super) fn unchanged(self, body: &[u8]) -> Done {
        self.connection.reply(self.call.unique, body);
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

/// The answer of a request that waits, noted for a successor. When too many wait for that, a death
/// of this process is an error for this caller.
pub(super) fn noted(tree: &Tree, connection: &Arc<Connection>, waiting: Waiting) -> Answer {
    let answers = tree.estate().answers();
    let ticket = answers.add(&waiting);
    let (unique, outcome) = waiting.into_outcome();
    match ticket {
        Ok(ticket) => answers.answer(connection, unique, outcome, ticket),
        Err(_) => Answer::new(connection, unique, outcome),
    }
}

impl Server {
    /// Applies a change in its turn, which may touch nothing but `touches`. An error is answered;
    /// it means that nothing was changed, or that what was is recorded.
    pub(super) fn change(
        &self,
        request: &Call<'_>,
        what: &str,
        touches: &[Touch],
        apply: impl FnOnce(Turn<'_>) -> Result<Done, Errno>,
    ) {
        let touches = self.of_the_peer(touches);
        let mut recorder = match self.order.lock_for(&touches) {
            Ok(recorder) => recorder,
            Err(errno) => return self.connection.reply_error(request.unique, errno),
        };
        let made = Cell::new(false);
        let turn = Turn::new(self, &mut **recorder, request, what, &made);
        if let Err(errno) = apply(turn) {
            if is_bad(errno) || made.get() {
                recorder.copy_failed(what, errno);
            }
            // Nothing was changed: a successor may as well try it from the beginning.
            request.marks.clear();
            drop(recorder);
            self.connection.reply_error(request.unique, errno);
        } else {
            // Whoever comes next may change the same: this must not be done once more after that.
            request.marks.done();
            drop(recorder);
        }
        self.order.changed();
    }

    /// Without what the peer does not know.
    fn of_the_peer<'t>(&self, touches: &'t [Touch]) -> Cow<'t, [Touch]> {
        if !self.tree.has_excluded() {
            return Cow::Borrowed(touches);
        }
        let known = touches.iter().filter(|touch| match touch {
            Touch::Content { file, .. }
            | Touch::Rest(file)
            | Touch::Meta(file)
            | Touch::Names(file)
            | Touch::Moving(file)
            | Touch::Losing { file, .. } => !self.tree.is_excluded(*file),
            Touch::Anything => true,
        });
        Cow::Owned(known.copied().collect())
    }

    /// Answers a question that changes nothing.
    pub(super) fn answer(&self, request: &Call<'_>, outcome: Result<Vec<u8>, Errno>) {
        match outcome {
            Ok(body) => self.connection.reply(request.unique, &body),
            Err(errno) => self.refuse(request, errno),
        }
    }

    /// Answers with an error, and tells the recorder of one that makes this copy bad.
    pub(super) fn refuse(&self, request: &Call<'_>, errno: Errno) {
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
