//! The recorder of a serving replicator: numbers each change, sends it, and holds its answer back
//! as the acknowledgement rule wants.
//!
//! It runs under the order lock of the mount, so it never waits: not for the peer, not for room.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::input::ReplicatorEvent;
use fuse::Answer;
use model::config::Ack;
use model::{NodeName, SessionId};
use mount::{After, Recorder, Tree};
use replica::op::{FileId, Op};
use replica::touch::Touch;
use replica::{Acknowledge, Lost, Names, Session, Step};
use rustix::io::Errno;
use wire::replication::{Forward, put_forward};

use crate::replicator::Directory;
use crate::replicator::compare;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::keep::{Counts, Keep};
use crate::replicator::keeper_link::{KeeperLink, Left};
use crate::replicator::log::ActivityLog;
use crate::replicator::outbox::Outbox;

/// The trees of a module.
pub(super) type Trees = Arc<Vec<Arc<Tree>>>;

/// What the serving side holds, shared with the threads of its session.
pub(super) struct Primary {
    inner: Mutex<Inner>,
    trees: Trees,
    daemon: Arc<DaemonLink>,
    log: Arc<ActivityLog>,
    keep: Arc<Keep>,
    counts: Counts,
}

pub(super) struct Inner {
    pub(super) acks: Acknowledge<Answer>,
    /// Set when changes are refused.
    refuse: Option<Errno>,
    /// Why this copy must not be served any more.
    failed: Option<String>,
    live: Option<Live>,
}

/// The session to a target.
pub(super) struct Live {
    pub(super) id: SessionId,
    pub(super) target: NodeName,
    pub(super) known: Session,
    pub(super) outbox: Arc<Outbox>,
    /// Ids kept in use while a walk is under way.
    pub(super) pinned: BTreeMap<FileId, u32>,
}

impl Live {
    /// Keeps the ids in use that an operation has bound.
    fn pin(&mut self, trees: &Trees, op: &Op<'_>, steps: &[Step]) {
        let bound = steps.iter().filter_map(|step| match step {
            Step::Bind { file, .. } | Step::Ensure { file, .. } => Some(*file),
            Step::Discard { .. } | Step::Operation | Step::Forget(_) => None,
        });
        let created = match op {
            Op::Create { file, .. } => Some(*file),
            _ => None,
        };
        let files: Vec<FileId> = bound.chain(created).collect();
        self.pin_all(trees, &files);
    }

    /// Keeps the ids in use that the walk has bound.
    pub(super) fn pin_bound(&mut self, trees: &Trees, steps: &[Step]) {
        let bound = steps.iter().filter_map(|step| match step {
            Step::Bind { file, .. } => Some(*file),
            Step::Ensure { .. } | Step::Discard { .. } | Step::Operation | Step::Forget(_) => None,
        });
        let files: Vec<FileId> = bound.collect();
        self.pin_all(trees, &files);
    }

    fn pin_all(&mut self, trees: &Trees, files: &[FileId]) {
        for &file in files {
            let pinned = trees.get(usize::from(file.tree)).map(|tree| tree.pin(file));
            if matches!(pinned, Some(Ok(()))) {
                self.is_pinned(file);
            }
        }
    }

    /// An id was pinned once more.
    pub(super) fn is_pinned(&mut self, file: FileId) {
        *self.pinned.entry(file).or_default() += 1;
    }

    /// An id need not be kept in use any more.
    pub(super) fn unpin_one(&mut self, trees: &Trees, file: FileId) {
        let count = self.pinned.remove(&file).unwrap_or(0);
        if let Some(tree) = trees.get(usize::from(file.tree)) {
            (0..count).for_each(|_| tree.unpin(file));
        }
    }

    /// Nothing need be kept in use any more.
    pub(super) fn unpin(&mut self, trees: &Trees) {
        for (file, count) in std::mem::take(&mut self.pinned) {
            if let Some(tree) = trees.get(usize::from(file.tree)) {
                (0..count).for_each(|_| tree.unpin(file));
            }
        }
    }
}

impl Primary {
    /// Prepares to serve these directories, with what a predecessor left of them if there was one.
    pub(super) fn open(
        directories: &[Directory],
        keep: Keep,
        (keeper, left): (&Arc<KeeperLink>, &mut Left),
        daemon: &Arc<DaemonLink>,
        log: &Arc<ActivityLog>,
    ) -> io::Result<Arc<Primary>> {
        let mut trees = Vec::new();
        for (index, directory) in (0..).zip(directories) {
            let holder = Arc::clone(keeper) as Arc<dyn mount::Holder>;
            let estate = keep.estate(usize::from(index), holder)?;
            let root = Arc::clone(&directory.root);
            let tree = Tree::with_estate(index, root, estate, left.held(index));
            let tree = tree.map_err(io::Error::from)?.without(directory.exclude.clone());
            trees.push(Arc::new(tree));
        }
        let counts = keep.counts();
        let number = counts.number();
        let trees = Arc::new(trees);
        log.serve(&trees, number);
        let acks = Acknowledge::new(number);
        let inner = Mutex::new(Inner { acks, refuse: None, failed: None, live: None });
        let (daemon, log) = (Arc::clone(daemon), Arc::clone(log));
        let keep = Arc::new(keep);
        Ok(Arc::new(Primary { inner, trees, daemon, log, keep, counts }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trees(&self) -> &Trees {
        &self.trees
    }

    pub(super) fn daemon(&self) -> &DaemonLink {
        &self.daemon
    }

    pub(super) fn keep(&self) -> &Arc<Keep> {
        &self.keep
    }

    pub(super) fn log(&self) -> &Arc<ActivityLog> {
        &self.log
    }

    /// How to acknowledge, and whose confirmation answers need, from now on; returns the number of
    /// the last operation that was recorded before.
    pub(super) fn require(&self, ack: Ack, required: BTreeSet<NodeName>) -> u64 {
        let mut inner = self.lock();
        let number = inner.acks.number();
        let due = inner.acks.require(ack, required);
        drop(inner);
        due.into_iter().for_each(Answer::send);
        number
    }

    /// Begins to tell a target of every change from here on.
    pub(super) fn begin(&self, live: Live) {
        let mut inner = self.lock();
        self.log.set_alone(false);
        inner.acks.forget(&live.target);
        inner.live = Some(live);
    }

    /// The session has ended; what waits for the target goes on waiting.
    pub(super) fn end_session(&self, id: SessionId) {
        let mut inner = self.lock();
        if let Some(mut live) = inner.live.take_if(|live| live.id == id) {
            self.log.set_alone(true);
            inner.acks.forget(&live.target);
            // Before any other change is recorded: from then on those are counted elsewhere.
            live.outbox.close();
            drop(inner);
            live.unpin(&self.trees);
        }
    }

    /// Refuses changes from now on.
    pub(super) fn refuse(&self, errno: Errno) {
        self.lock().refuse = Some(errno);
    }

    /// Why this copy must not be served any more, if it has failed.
    pub(super) fn failed(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Answers everything that waits with an error.
    pub(super) fn cut(&self, errno: Errno) -> usize {
        let cut = self.lock().acks.cut();
        let count = cut.len();
        cut.into_iter().for_each(|answer| answer.refuse(errno));
        count
    }

    /// The target has applied everything up to a number.
    pub(super) fn applied(&self, target: &NodeName, number: u64) {
        let due = self.lock().acks.applied(target, number);
        due.into_iter().for_each(Answer::send);
    }

    /// A sync is durable at the target.
    pub(super) fn durable(&self, target: &NodeName, number: u64) {
        let due = self.lock().acks.durable(target, number);
        due.into_iter().for_each(Answer::send);
    }
}

impl Inner {
    /// The session with this id, while it lasts.
    pub(super) fn live_of(&mut self, id: SessionId) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.id == id)
    }

    /// Sends what a target must be told of a change; says whether its answer depends on the
    /// target.
    fn tell(&mut self, trees: &Trees, op: &Op<'_>, number: u64) -> Result<bool, Lost> {
        let Some(live) = &mut self.live else { return Ok(true) };
        let steps = live.known.live(op, &TreeNames(trees))?;
        if live.known.is_walking() {
            live.pin(trees, op, &steps);
        }
        if steps.is_empty() {
            // What is left to the walk is not at the target yet: no answer that needs the target
            // may be given for it.
            live.outbox.put_operation(number, |_| {});
            return Ok(live.known.is_walking());
        }
        let mut failed = None;
        live.outbox.put_operation(number, |out| {
            for step in &steps {
                if let Err(errno) = put_step(out, trees, step, op, number) {
                    failed = Some(errno);
                }
            }
        });
        match failed {
            None => Ok(true),
            Some(errno) => Err(Lost { why: format!("an object could not be described: {errno}") }),
        }
    }
}

fn put_step(
    out: &mut Vec<u8>,
    trees: &Trees,
    step: &Step,
    op: &Op<'_>,
    number: u64,
) -> Result<(), Errno> {
    match step {
        Step::Bind { file, parent, name } => {
            put_forward(out, &Forward::Bind { file: *file, parent: *parent, name });
        }
        Step::Ensure { file, parent, name } => {
            compare::put_ensure(out, trees, *file, (false, false), (*parent, name))?;
        }
        Step::Discard { parent, name } => {
            put_forward(out, &Forward::Discard { parent: *parent, name });
        }
        Step::Forget(file) => put_forward(out, &Forward::Forget(*file)),
        Step::Operation => put_forward(out, &Forward::Op { number, op: op.clone() }),
    }
    Ok(())
}

/// The recorder that the mount calls.
pub(super) struct PrimaryRecorder(pub(super) Arc<Primary>);

impl After for Primary {
    fn changed(&self) {
        let outbox = self.lock().live.as_ref().map(|live| Arc::clone(&live.outbox));
        if let Some(outbox) = outbox {
            outbox.send_at_once();
        }
    }
}

impl Recorder for PrimaryRecorder {
    fn after(&self) -> Option<Arc<dyn After>> {
        Some(Arc::clone(&self.0) as Arc<dyn After>)
    }

    fn admit(&mut self) -> Result<(), Errno> {
        self.0.lock().refuse.map_or(Ok(()), Err)
    }

    fn next(&self) -> u64 {
        self.0.lock().acks.number() + 1
    }

    fn recorded(&mut self, number: u64, answer: Answer) {
        if let Some(due) = self.0.lock().acks.answer(number, true, answer) {
            due.send();
        }
    }

    fn gave_up(&mut self, what: &str) {
        let why = format!("a request is refused, as replicators have died of it: {what}");
        eprintln!("{why}");
        // It may have been done in part: the target is compared.
        let mut inner = self.0.lock();
        self.lose(&mut inner, why);
    }

    fn confirm(&mut self, touches: &[Touch]) -> bool {
        let next = self.0.lock().acks.number() + 1;
        self.0.log.confirm(touches, next)
    }

    fn record(&mut self, op: Op<'_>, answer: Option<Answer>) {
        self.0.log.applied(&op);
        let mut inner = self.0.lock();
        let number = inner.acks.next_number();
        let travels = self.tell(&mut inner, &op, number);
        let Some(answer) = answer else { return };
        let due = inner.acks.answer(number, travels, answer);
        let outbox = inner.live.as_ref().map(|live| Arc::clone(&live.outbox));
        drop(inner);
        match (outbox, due) {
            (Some(outbox), None) => outbox.urge(),
            (Some(outbox), Some(due)) => outbox.answer(due),
            (None, Some(due)) => due.send(),
            (None, None) => {}
        }
    }

    fn sync_begins(&mut self, file: FileId, data_only: bool) -> u64 {
        let mut inner = self.0.lock();
        let number = inner.acks.next_number();
        if self.tell(&mut inner, &Op::Sync { file, data_only }, number) {
            inner.acks.sync_begins(number);
            if let Some(live) = &inner.live {
                live.outbox.urge();
            }
        }
        number
    }

    fn sync_ended(&mut self, sync: u64, local: Result<(), Errno>, answer: Answer) {
        let mut inner = self.0.lock();
        if let Some(errno) = inner.refuse {
            // Its being durable at the peer is not awaited any more, so it must not be promised.
            drop(inner);
            return answer.refuse(errno);
        }
        let due = inner.acks.sync_local(sync, local.is_err(), answer);
        drop(inner);
        if let Some(due) = due {
            due.send();
        }
    }

    fn copy_failed(&mut self, what: &str, errno: Errno) {
        let mut inner = self.0.lock();
        if inner.failed.is_none() {
            let why = format!("{what}: {errno}");
            inner.refuse = Some(Errno::IO);
            inner.failed = Some(why.clone());
            drop(inner);
            self.0.daemon.event(ReplicatorEvent::CopyFailed { why });
        }
    }
}

impl PrimaryRecorder {
    /// As `Inner::tell`; a target that can no longer be told apart loses its session.
    fn tell(&self, inner: &mut Inner, op: &Op<'_>, number: u64) -> bool {
        if inner.live.is_none() {
            self.0.counts.publish(0, number);
        }
        match inner.tell(&self.0.trees, op, number) {
            Ok(travels) => travels,
            Err(lost) => {
                self.lose(inner, lost.why);
                self.0.counts.publish(0, number);
                true
            }
        }
    }

    fn lose(&self, inner: &mut Inner, why: String) {
        if let Some(mut live) = inner.live.take() {
            self.0.log.set_alone(true);
            live.unpin(&self.0.trees);
            live.outbox.close();
            inner.acks.forget(&live.target);
            let session = live.id;
            self.0.daemon.event(ReplicatorEvent::LinkLost { session, why });
        }
    }
}

/// Names as the trees know them.
pub(super) struct TreeNames<'a>(pub(super) &'a Trees);

impl TreeNames<'_> {
    fn tree(&self, file: FileId) -> Option<&Arc<Tree>> {
        self.0.get(usize::from(file.tree))
    }
}

impl Names for TreeNames<'_> {
    fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)> {
        let Some(tree) = self.tree(file) else { return Vec::new() };
        let mut names = tree.names_of(file);
        if tree.has_excluded() {
            names.retain(|(parent, name)| !tree.is_excluded_name(*parent, name));
        }
        names
    }

    fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.tree(parent)?.known_child(parent, name)
    }

    fn is_linked(&self, file: FileId) -> bool {
        // What cannot be looked at is treated as named: leaving it out could lose data.
        self.tree(file).is_none_or(|tree| tree.stat(file).map_or(true, |stat| stat.nlink > 0))
    }

    fn is_known(&self, file: FileId) -> bool {
        self.tree(file).is_some_and(|tree| tree.is_known(file))
    }
}
