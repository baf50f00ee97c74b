//! The live rule of a resync that goes through suspects alone.
//!
//! What is not suspect is the same on both sides, so it can be bound by its name. A *link*, which
//! is a name in a directory, is trusted unless the directory's names are yet to be put right or
//! the name itself is doubtful. An operation on what cannot be reached over trusted links is left
//! to the walk as a task, and the names that it changed become doubtful.

use crate::names::{Names, Without};
use crate::op::{FileId, Op};
use crate::session::{RENAME_EXCHANGE, Session, Step};
use crate::walk::Task;

/// Links of a path beyond which it is taken for a circle.
const LINKS_MAX: usize = 1 << 16;

impl Session {
    /// The names in a directory have been put right.
    pub fn names_are_right(&mut self, directory: FileId) {
        self.pending.remove(&directory);
    }

    /// A name stands for the right object from here on.
    pub fn name_is_right(&mut self, parent: FileId, name: &[u8]) {
        self.doubtful.remove(&(parent, name.to_vec()));
    }

    /// The attributes of an object are right from here on.
    pub fn attributes_are_right(&mut self, file: FileId) {
        self.undressed.remove(&file);
    }

    /// A directory was put under its name, but what is in it is not known.
    pub fn names_are_unknown(&mut self, directory: FileId) {
        self.pending.insert(directory);
    }

    /// Whether a name stands for the same object on both sides.
    #[must_use]
    pub fn is_trusted(&self, parent: FileId, name: &[u8]) -> bool {
        self.is_done(parent) && !self.is_doubtful(parent, name)
    }

    /// Whether a name of its own account may stand for another object.
    #[must_use]
    pub fn is_doubtful(&self, parent: FileId, name: &[u8]) -> bool {
        self.doubtful.contains(&(parent, name.to_vec()))
    }

    /// Binds an object and the directories above it over trusted links; none, with nothing bound,
    /// when there is no such way.
    pub fn reach(&mut self, file: FileId, names: &dyn Names) -> Option<Vec<Step>> {
        let mut links = Vec::new();
        let mut at = file;
        while !self.is_bound(at) {
            let known = names.names_of(at);
            let (parent, name) =
                known.into_iter().find(|(parent, name)| self.is_trusted(*parent, name))?;
            links.push(Step::Bind { file: at, parent, name });
            at = parent;
            if links.len() > LINKS_MAX {
                return None;
            }
        }
        for link in &links {
            if let Step::Bind { file, .. } = link {
                self.bind(*file);
            }
        }
        links.reverse();
        Some(links)
    }

    pub(crate) fn live_delta(&mut self, op: &Op<'_>, names: &dyn Names) -> Vec<Step> {
        match *op {
            Op::Write { file, offset, data, .. } => {
                self.change(file, offset..offset + data.len() as u64, names)
            }
            Op::Allocate { file, offset, length, .. } => {
                self.change(file, offset..offset.saturating_add(length), names)
            }
            Op::SetAttr { file, attr } => {
                let range = if attr.size.is_some() { 0..u64::MAX } else { 0..0 };
                self.change(file, range, names)
            }
            Op::SetXattr { file, .. } | Op::RemoveXattr { file, .. } => {
                self.change(file, 0..0, names)
            }
            Op::Sync { file, .. } if self.is_bound(file) => vec![Step::Operation],
            Op::Sync { .. } => Vec::new(),
            Op::Create { parent, name, file, .. } => match self.reach(parent, names) {
                Some(steps) => {
                    self.bind(file);
                    self.name_is_right(parent, name);
                    if self.undressed.contains(&parent) {
                        self.leave_part(file, 0, 0);
                    }
                    with_operation(steps)
                }
                None => self.leave_name(parent, name),
            },
            Op::Link { .. } => self.link_delta(op, names),
            Op::Remove { parent, name, .. } => match self.reach(parent, names) {
                Some(steps) => {
                    self.name_is_right(parent, name);
                    with_operation(steps)
                }
                None => self.leave_name(parent, name),
            },
            Op::Rename { .. } => self.rename_delta(op, names),
        }
    }

    fn change(
        &mut self,
        file: FileId,
        range: std::ops::Range<u64>,
        names: &dyn Names,
    ) -> Vec<Step> {
        if self.is_bound(file) {
            return vec![Step::Operation];
        }
        if !names.is_linked(file) {
            return Vec::new();
        }
        match self.reach(file, names) {
            Some(steps) => with_operation(steps),
            None => {
                self.leave_part(file, range.start, range.end);
                Vec::new()
            }
        }
    }

    fn link_delta(&mut self, op: &Op<'_>, names: &dyn Names) -> Vec<Step> {
        let Op::Link { file, parent, name, .. } = *op else { return Vec::new() };
        let without = Without { names, parent, name };
        let steps = self.reach(parent, names).and_then(|mut steps| {
            steps.extend(self.reach(file, &without)?);
            Some(steps)
        });
        match steps {
            Some(steps) => {
                self.name_is_right(parent, name);
                with_operation(steps)
            }
            None => self.leave_name(parent, name),
        }
    }

    fn rename_delta(&mut self, op: &Op<'_>, names: &dyn Names) -> Vec<Step> {
        let Op::Rename { parent, name, new_parent, new_name, flags, .. } = *op else {
            return Vec::new();
        };
        let exchange = flags & RENAME_EXCHANGE != 0;
        let moved = names.child(new_parent, new_name);
        let other = if exchange { names.child(parent, name) } else { None };
        let mut steps = Vec::new();
        let exact = self.reach_into(parent, names, &mut steps)
            && self.reach_into(new_parent, names, &mut steps)
            && self.was_under(moved, parent, name, &mut steps)
            && (!exchange || self.was_under(other, new_parent, new_name, &mut steps));
        if exact {
            self.name_is_right(new_parent, new_name);
            return with_operation(steps);
        }
        // What was bound on the way stays so, for its links were trusted.
        self.leave_name(parent, name);
        self.leave_name(new_parent, new_name);
        steps
    }

    fn reach_into(&mut self, file: FileId, names: &dyn Names, steps: &mut Vec<Step>) -> bool {
        let reached = self.reach(file, names);
        let found = reached.is_some();
        steps.extend(reached.unwrap_or_default());
        found
    }

    /// Whether the target has an object under the name that it had before the operation; it is
    /// bound there.
    fn was_under(
        &mut self,
        file: Option<FileId>,
        parent: FileId,
        name: &[u8],
        steps: &mut Vec<Step>,
    ) -> bool {
        let Some(file) = file.filter(|_| self.is_trusted(parent, name)) else { return false };
        if !self.is_bound(file) {
            steps.push(Step::Bind { file, parent, name: name.to_vec() });
            self.bind(file);
        }
        true
    }

    /// Leaves attributes and part of the content to the walk.
    fn leave_part(&mut self, file: FileId, offset: u64, end: u64) {
        self.undressed.insert(file);
        self.tasks.push_back(Task::Part { file, offset, end });
    }

    /// Leaves a name to the walk.
    pub fn leave_name(&mut self, parent: FileId, name: &[u8]) -> Vec<Step> {
        if self.doubtful.insert((parent, name.to_vec())) {
            self.tasks.push_back(Task::Entry { parent, name: name.to_vec() });
        }
        Vec::new()
    }
}

pub(crate) fn with_operation(mut steps: Vec<Step>) -> Vec<Step> {
    steps.push(Step::Operation);
    steps
}
