//! Where changes go: one order for all trees of a module, and the recorder that sees it.
//!
//! The rules of replication are not here: a recorder may do with a change what it likes, but it
//! must not make a serving thread wait for the peer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse::{Answer, Errno};
use replica::op::{FileId, Op};
use replica::touch::Touch;

use crate::serve::caller;

/// Takes every change in the order in which it was applied; decides when callers are answered.
///
/// It is called under the order lock, and changes of names also hold the tree's lock of names.
/// So it must neither wait nor call `Tree::lookup`; all else of a tree may be used.
pub trait Recorder: Send {
    /// Asked once: what is to be done after each change and each beginning of a sync, outside the
    /// order.
    fn after(&self) -> Option<Arc<dyn After>> {
        None
    }

    /// Asked before a change is applied; an errno refuses it.
    fn admit(&mut self) -> Result<(), Errno>;

    /// Asked after that: whether what the change is about to touch has been prepared by the gate
    /// and is so still. If not, the gate is asked to, and then this again.
    fn confirm(&mut self, _touches: &[Touch]) -> bool {
        true
    }

    /// The number that the next change gets.
    fn next(&self) -> u64 {
        0
    }

    /// A predecessor has recorded the change with this number; its answer must be sent when the
    /// policy is met.
    fn recorded(&mut self, _number: u64, answer: Answer) {
        answer.send();
    }

    /// A request is refused because processes have died of it.
    fn gave_up(&mut self, _what: &str) {}

    /// A change was applied just now, still under the order lock. `answer` must be sent when the
    /// policy is met; without one nobody waits. It may carry an error that the caller must get.
    fn record(&mut self, op: Op<'_>, answer: Option<Answer>);

    /// A sync of `file` begins; everything recorded so far is covered. The number identifies it.
    fn sync_begins(&mut self, file: FileId, data_only: bool) -> u64;

    /// The local part of that sync ended; `answer` carries its outcome. If it failed in a way
    /// that makes this copy bad, `copy_failed` was called just before.
    fn sync_ended(&mut self, sync: u64, local: Result<(), Errno>, answer: Answer);

    /// The backing store failed in a way that makes this copy bad (EIO, EUCLEAN, EROFS, a failed
    /// sync).
    fn copy_failed(&mut self, what: &str, errno: Errno);
}

/// Prepares for changes, outside the order: it may wait for a disk.
pub trait Gate: Send + Sync {
    /// Something is about to be touched for the first time in a while; an errno refuses that.
    fn prepare(&self, touches: &[Touch]) -> Result<(), Errno>;
}

/// Sends what changes recorded, outside the order, so that the next change need not wait for it.
pub trait After: Send + Sync {
    /// Something was recorded. It must not wait for the peer.
    fn changed(&self);
}

/// One order for all trees of a module.
pub struct Order {
    recorder: Mutex<Box<dyn Recorder>>,
    gate: Option<Arc<dyn Gate>>,
    after: Option<Arc<dyn After>>,
}

impl Order {
    /// An order whose changes go to `recorder`, with nothing to prepare.
    pub fn new(recorder: impl Recorder + 'static) -> Order {
        let after = recorder.after();
        Order { recorder: Mutex::new(Box::new(recorder)), gate: None, after }
    }

    /// An order whose changes go through a gate first, as far as the recorder wants that.
    pub fn with_gate(recorder: impl Recorder + 'static, gate: Arc<dyn Gate>) -> Order {
        let after = recorder.after();
        Order { recorder: Mutex::new(Box::new(recorder)), gate: Some(gate), after }
    }

    /// Holds up every change until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, Box<dyn Recorder>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after a change, without the guard.
    pub(crate) fn changed(&self) {
        if let Some(after) = &self.after {
            after.changed();
        }
    }

    /// Takes the order for a change that touches these, once that is admitted and prepared.
    pub(crate) fn lock_for(
        &self,
        touches: &[Touch],
    ) -> Result<MutexGuard<'_, Box<dyn Recorder>>, Errno> {
        loop {
            let mut recorder = self.lock();
            recorder.admit()?;
            if recorder.confirm(touches) {
                return Ok(recorder);
            }
            drop(recorder);
            match &self.gate {
                Some(gate) => {
                    // What the gate writes is nobody's but ours.
                    caller::be_self();
                    if let Err(errno) = gate.prepare(touches) {
                        // A node that cannot note what it changes must not serve.
                        self.lock().copy_failed("noting a change before it is made", errno);
                        return Err(errno);
                    }
                }
                // A recorder that wants something prepared comes with a gate.
                None => return Err(Errno::IO),
            }
        }
    }
}

/// The recorder of a mount that is not replicated: answers at once.
#[derive(Debug, Default)]
pub struct Immediate;

impl Recorder for Immediate {
    fn admit(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn record(&mut self, _op: Op<'_>, answer: Option<Answer>) {
        if let Some(answer) = answer {
            answer.send();
        }
    }

    fn sync_begins(&mut self, _file: FileId, _data_only: bool) -> u64 {
        0
    }

    fn sync_ended(&mut self, _sync: u64, _local: Result<(), Errno>, answer: Answer) {
        answer.send();
    }

    fn copy_failed(&mut self, _what: &str, _errno: Errno) {}
}
