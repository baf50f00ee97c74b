//! What a target knows of the source's tree, and so what must be sent for each live operation.
//!
//! The invariant: a *bound* object stands at the target, under at least one right name, and every
//! operation on it since it was bound has been sent. While a walk is under way, what is not bound
//! may be left out, because the walk will reach it; what the walk might miss becomes a task.
//! When the walk has ended, everything that has a name is bound or can be bound by name.
//!
//! A walk through everything would bind everything. So what has become right in a directory is
//! *released* again, file by file, once the target has confirmed it: such a directory is *done*,
//! and what stands in it can be bound by its name from then on.
//!
//! Nothing is read from files here; the shell fills in what a step carries.

use std::collections::{BTreeSet, VecDeque};

use crate::delta::with_operation;
use crate::names::{Names, Without};
use crate::op::{FileId, Op};
use crate::walk::Task;

/// renameat2's flag that exchanges two names.
pub(crate) const RENAME_EXCHANGE: u32 = 2;

/// Something to send, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bind what stands under the name at both sides.
    Bind {
        /// Object.
        file: FileId,
        /// Directory.
        parent: FileId,
        /// Name.
        name: Vec<u8>,
    },
    /// Make what stands under the name be this object.
    Ensure {
        /// Object.
        file: FileId,
        /// Directory.
        parent: FileId,
        /// Name.
        name: Vec<u8>,
    },
    /// Remove what stands under the name.
    Discard {
        /// Directory.
        parent: FileId,
        /// Name.
        name: Vec<u8>,
    },
    /// The operation itself.
    Operation,
    /// Forget the id of an object, which is not in use any more.
    Forget(FileId),
}

/// The target can no longer be told apart step by step; the session must start afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why, as a sentence.
    pub why: String,
}

/// What a target knows of the source's tree.
#[derive(Debug)]
pub struct Session {
    pub(crate) bound: BTreeSet<FileId>,
    phase: Phase,
    /// What live operations left to the walk.
    pub(crate) tasks: VecDeque<Task>,
    /// Number of bound objects at which ids that are no longer in use are forgotten.
    sweep_at: usize,
    /// Walk through everything: directories whose names are right, but for doubtful ones.
    done: BTreeSet<FileId>,
    /// Walk through everything: what got another name since, and is not released: a complaint about
    /// it may come later than those that were waited for.
    stirred: BTreeSet<FileId>,
    /// Delta: bound or suspect directories whose names have not been put right yet.
    pub(crate) pending: BTreeSet<FileId>,
    /// Names that live operations or the target have made uncertain.
    pub(crate) doubtful: BTreeSet<(FileId, Vec<u8>)>,
    /// Delta: objects whose attributes may differ, so that what is created in them may inherit
    /// something else.
    pub(crate) undressed: BTreeSet<FileId>,
}

/// What the live rule goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What may differ is not known yet: nothing is sent, as the log remembers it.
    Waiting,
    /// All may differ: a walk through everything is under way.
    Walking,
    /// What may differ is known; a walk through that is under way.
    Delta,
    /// Nothing differs.
    Settled,
}

/// Bound objects below which nothing is swept.
const SWEEP_MIN: usize = 1 << 16;

impl Session {
    /// A session of trees that may differ in what is yet to be found out.
    #[must_use]
    pub fn waiting() -> Session {
        Session { phase: Phase::Waiting, ..Session::settled() }
    }

    /// A session of trees that must be compared whole.
    #[must_use]
    pub fn walking() -> Session {
        Session { phase: Phase::Walking, ..Session::settled() }
    }

    /// All may differ.
    pub fn compare_all(&mut self) {
        self.phase = Phase::Walking;
    }

    /// Beyond what the walk is told by its plan, the names in these directories may differ, these
    /// names may stand for other objects, and the attributes of these objects may differ.
    pub fn compare_suspects(
        &mut self,
        directories: impl IntoIterator<Item = FileId>,
        names: impl IntoIterator<Item = (FileId, Vec<u8>)>,
        undressed: impl IntoIterator<Item = FileId>,
    ) {
        self.phase = Phase::Delta;
        self.pending.extend(directories);
        self.doubtful.extend(names);
        self.undressed.extend(undressed);
    }

    /// A session of trees known to be equal.
    #[must_use]
    pub fn settled() -> Session {
        Session {
            bound: BTreeSet::new(),
            phase: Phase::Settled,
            tasks: VecDeque::new(),
            sweep_at: SWEEP_MIN,
            done: BTreeSet::new(),
            stirred: BTreeSet::new(),
            pending: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            undressed: BTreeSet::new(),
        }
    }

    /// Whether the target may lack something.
    #[must_use]
    pub fn is_walking(&self) -> bool {
        self.phase != Phase::Settled
    }

    /// Whether the walk goes through what is known to be suspect alone.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.phase == Phase::Delta
    }

    /// The walk has reached everything and no task is left.
    pub fn settle(&mut self) {
        debug_assert!(self.tasks.is_empty(), "tasks belong to the walk");
        debug_assert!(self.pending.is_empty(), "every suspect directory was put right");
        self.phase = Phase::Settled;
        self.done.clear();
        self.stirred.clear();
        self.doubtful.clear();
        self.undressed.clear();
    }

    /// Whether the names of a directory, its doubtful ones apart, stand for the same objects on
    /// both sides, all of which are right or bound.
    pub(crate) fn is_done(&self, directory: FileId) -> bool {
        match self.phase {
            Phase::Walking => self.done.contains(&directory),
            Phase::Waiting | Phase::Delta | Phase::Settled => !self.pending.contains(&directory),
        }
    }

    /// In a walk through everything: all that stands in a directory was made right, and the target
    /// has confirmed that.
    ///
    /// False when that does not count, as the target has lost the directory since.
    pub fn directory_is_done(&mut self, directory: FileId) -> bool {
        let counts = self.phase == Phase::Walking && self.is_bound(directory);
        if counts {
            self.done.insert(directory);
        }
        counts
    }

    /// Whether a file is known by its only name in a directory that is about to be done, so that it
    /// can be bound again whenever that is needed.
    #[must_use]
    pub fn may_release(&self, file: FileId, directory: FileId, names: &dyn Names) -> bool {
        let known = names.names_of(file);
        let [(parent, name)] = known.as_slice() else { return false };
        let stands = *parent == directory && !self.is_doubtful(*parent, name);
        stands && self.is_bound(file) && !self.stirred.contains(&file)
    }

    /// A file is known by its name alone from here on.
    pub fn release(&mut self, file: FileId) {
        self.bound.remove(&file);
    }

    /// Notes that an object stands at the target.
    pub fn bind(&mut self, file: FileId) {
        self.bound.insert(file);
    }

    /// The target no longer holds the object, as every name it had there was removed. The walk
    /// must reach it again by its other names.
    pub fn unbind(&mut self, file: FileId, names: &dyn Names) {
        self.bound.remove(&file);
        self.done.remove(&file);
        if self.phase == Phase::Settled {
            self.phase = Phase::Delta;
        }
        for (parent, name) in names.names_of(file) {
            if self.phase == Phase::Delta || self.is_bound(parent) {
                self.leave_name(parent, &name);
            }
        }
    }

    /// A change of this name was not made at the target as at the source: the walk puts it right.
    pub fn astray(&mut self, parent: FileId, name: &[u8]) {
        if self.phase == Phase::Settled {
            self.phase = Phase::Delta;
        }
        if self.phase == Phase::Delta {
            self.leave_name(parent, name);
        } else if self.is_bound(parent) {
            // Whichever of the two is right by then; the other one does nothing.
            let name = name.to_vec();
            self.doubtful.insert((parent, name.clone()));
            self.tasks.push_back(Task::Entry { parent, name: name.clone() });
            self.tasks.push_back(Task::Discard { parent, name });
        }
    }

    /// Whether the object stands at the target.
    #[must_use]
    pub fn is_bound(&self, file: FileId) -> bool {
        file.node == 1 || self.bound.contains(&file)
    }

    /// The next task that a live operation left to the walk.
    pub fn next_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// What to send for an operation that has just been applied; nothing when no peer need know.
    ///
    /// While a walk is under way, ids that are bound here must be kept in use by the caller: a
    /// file that came back under another id would be taken for one that the walk has yet to reach.
    pub fn live(&mut self, op: &Op<'_>, names: &dyn Names) -> Result<Vec<Step>, Lost> {
        match self.phase {
            Phase::Waiting => return Ok(Vec::new()),
            Phase::Walking => return self.live_walking(op, names),
            Phase::Delta => return Ok(self.live_delta(op, names)),
            Phase::Settled => {}
        }
        let steps = self.live_settled(op, names)?;
        if steps.is_empty() {
            // Nothing may travel for what is answered without the target.
            return Ok(steps);
        }
        Ok([self.sweep(names), steps].concat())
    }

    /// Forgets the ids that are no longer in use, now and then.
    fn sweep(&mut self, names: &dyn Names) -> Vec<Step> {
        if self.bound.len() < self.sweep_at {
            return Vec::new();
        }
        let (known, unknown) =
            std::mem::take(&mut self.bound).into_iter().partition(|file| names.is_known(*file));
        self.bound = known;
        self.sweep_at = self.bound.len() * 2 + SWEEP_MIN;
        let unknown: BTreeSet<FileId> = unknown;
        unknown.into_iter().map(Step::Forget).collect()
    }

    fn live_walking(&mut self, op: &Op<'_>, names: &dyn Names) -> Result<Vec<Step>, Lost> {
        Ok(match *op {
            Op::Write { file, .. }
            | Op::SetAttr { file, .. }
            | Op::SetXattr { file, .. }
            | Op::RemoveXattr { file, .. }
            | Op::Allocate { file, .. }
            | Op::Sync { file, .. } => self.if_reached(file, names),
            Op::Create { parent, file, .. } => {
                let steps = self.if_bound(parent);
                if !steps.is_empty() {
                    self.bind(file);
                }
                steps
            }
            Op::Link { file, parent, name, .. } => {
                self.stirred.insert(file);
                // Also where the new name is not told, as the walk must know the file there.
                let mut steps = self.reach(file, &Without { names, parent, name });
                match (self.is_bound(parent), &mut steps) {
                    (true, Some(steps)) => steps.push(Step::Operation),
                    (true, None) => drop(self.leave_name(parent, name)),
                    (false, _) => {}
                }
                steps.unwrap_or_default()
            }
            Op::Remove { parent, .. } => self.if_bound(parent),
            Op::Rename { .. } => return self.rename_walking(op, names),
        })
    }

    /// The operation, if the walk has reached the object: it may have been released since.
    fn if_reached(&mut self, file: FileId, names: &dyn Names) -> Vec<Step> {
        if self.is_bound(file) {
            return vec![Step::Operation];
        }
        let is_linked = names.is_linked(file);
        let steps = if is_linked { self.reach(file, names) } else { None };
        steps.map(with_operation).unwrap_or_default()
    }

    fn if_bound(&self, file: FileId) -> Vec<Step> {
        if self.is_bound(file) { vec![Step::Operation] } else { Vec::new() }
    }

    fn rename_walking(&mut self, op: &Op<'_>, names: &dyn Names) -> Result<Vec<Step>, Lost> {
        let Op::Rename { parent, name, new_parent, new_name, flags, .. } = *op else {
            return Ok(Vec::new());
        };
        let moved = names.child(new_parent, new_name);
        self.stirred.extend(moved);
        let mut steps = Vec::new();
        self.was_released(moved, (parent, name), &mut steps);
        let moved_is_bound = moved.is_some_and(|file| self.is_bound(file));
        if flags & RENAME_EXCHANGE != 0 {
            let other = names.child(parent, name);
            self.stirred.extend(other);
            self.was_released(other, (new_parent, new_name), &mut steps);
            let sides = [(other, parent, name), (moved, new_parent, new_name)];
            steps.extend(self.exchange_walking(sides, names)?);
            return Ok(steps);
        }
        if moved_is_bound {
            steps.extend(self.chain(new_parent, names, Self::ensure)?);
        }
        match (self.is_bound(parent), self.is_bound(new_parent)) {
            (true, true) if moved_is_bound => steps.push(Step::Operation),
            (true, _) => {
                steps.push(Step::Discard { parent, name: name.to_vec() });
                // Discarding carries no modification time.
                self.tasks.push_back(Task::Finish(parent));
            }
            (false, _) => {}
        }
        if self.is_bound(new_parent) {
            // Whatever the target made of it, the walk puts this name right.
            self.leave_name(new_parent, new_name);
        }
        Ok(steps)
    }

    /// Each object with its new place. One that the walk has reached is moved, the other one is
    /// left to the walk: it may be anything at the target.
    fn exchange_walking(
        &mut self,
        sides: [(Option<FileId>, FileId, &[u8]); 2],
        names: &dyn Names,
    ) -> Result<Vec<Step>, Lost> {
        let mut steps = Vec::new();
        let reached = sides.map(|(file, ..)| file.filter(|file| self.is_bound(*file)));
        for ((_, parent, _), file) in sides.iter().zip(reached) {
            if file.is_some() {
                steps.extend(self.chain(*parent, names, Self::ensure)?);
            }
        }
        let whole = reached.iter().all(Option::is_some);
        if whole {
            steps.push(Step::Operation);
        } else {
            let reached = sides.iter().zip(reached).find_map(|(side, file)| Some((side, file?)));
            steps.extend(reached.map(|((_, parent, name), file)| Step::Ensure {
                file,
                parent: *parent,
                name: name.to_vec(),
            }));
        }
        for (_, parent, name) in sides {
            if self.is_bound(parent) {
                // It may have stood for something else at the target.
                self.leave_name(parent, name);
                if !whole {
                    // Only the operation carries modification times.
                    self.tasks.push_back(Task::Finish(parent));
                }
            }
        }
        Ok(steps)
    }

    /// Binds what was released under the name that it had before the operation.
    fn was_released(
        &mut self,
        file: Option<FileId>,
        (parent, name): (FileId, &[u8]),
        steps: &mut Vec<Step>,
    ) {
        let unbound = file.filter(|file| !self.is_bound(*file));
        if let Some(file) = unbound.filter(|_| self.is_trusted(parent, name)) {
            steps.push(Self::bind_step(file, parent, name.to_vec()));
            self.bind(file);
        }
    }

    fn live_settled(&mut self, op: &Op<'_>, names: &dyn Names) -> Result<Vec<Step>, Lost> {
        let mut steps = match *op {
            Op::Write { file, .. }
            | Op::SetAttr { file, .. }
            | Op::SetXattr { file, .. }
            | Op::RemoveXattr { file, .. }
            | Op::Allocate { file, .. }
            | Op::Sync { file, .. } => {
                if !names.is_linked(file) {
                    return Ok(Vec::new());
                }
                self.chain(file, names, Self::bind_step)?
            }
            Op::Create { parent, file, .. } => {
                let steps = self.chain(parent, names, Self::bind_step)?;
                self.bind(file);
                steps
            }
            Op::Link { file, parent, name, .. } => {
                let mut steps = self.chain(parent, names, Self::bind_step)?;
                let without = Without { names, parent, name };
                steps.extend(self.chain(file, &without, Self::bind_step)?);
                steps
            }
            Op::Remove { parent, .. } => self.chain(parent, names, Self::bind_step)?,
            Op::Rename { parent, new_parent, .. } => {
                let mut steps = self.chain(parent, names, Self::bind_step)?;
                steps.extend(self.chain(new_parent, names, Self::bind_step)?);
                steps
            }
        };
        steps.push(Step::Operation);
        Ok(steps)
    }

    /// What to send so that a settled target knows an object by its id.
    pub fn reach_settled(&mut self, file: FileId, names: &dyn Names) -> Result<Vec<Step>, Lost> {
        debug_assert!(!self.is_walking(), "in a resync the walk decides what is bound");
        self.chain(file, names, Self::bind_step)
    }

    /// Binds an object and the directories above it that are not bound yet, topmost first.
    fn chain(
        &mut self,
        file: FileId,
        names: &dyn Names,
        step: fn(FileId, FileId, Vec<u8>) -> Step,
    ) -> Result<Vec<Step>, Lost> {
        let mut steps = Vec::new();
        let mut at = file;
        while !self.is_bound(at) {
            let Some((parent, name)) = names.names_of(at).into_iter().next() else {
                let why =
                    format!("no name is known of object {} of directory {}", at.node, at.tree);
                return Err(Lost { why });
            };
            steps.push(step(at, parent, name));
            self.bind(at);
            at = parent;
        }
        steps.reverse();
        Ok(steps)
    }

    fn ensure(file: FileId, parent: FileId, name: Vec<u8>) -> Step {
        Step::Ensure { file, parent, name }
    }

    fn bind_step(file: FileId, parent: FileId, name: Vec<u8>) -> Step {
        Step::Bind { file, parent, name }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
