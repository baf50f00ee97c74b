//! The plan of a resync: which directories, entries and blocks are still to be compared.
//!
//! Work lies in levels; one begins when all that came of the levels before it is done. So the
//! names in suspect directories are put right from the roots down before anything that is reached
//! by them.
//!
//! Every object is compared once; questions to the target are limited in number, so that memory
//! and the delay of live operations stay bounded. Reading and sending is the shell's work.

use std::collections::{BTreeMap, BTreeSet};

use crate::op::FileId;

/// Questions to the target that may be unanswered at a time: enough for both nodes to be at work
/// all the time when files are small.
const QUESTIONS_MAX: usize = 512;
/// Bytes that the target may be asked to compare at a time: live operations wait behind them.
const ASKED_BYTES_MAX: u64 = 16 << 20;
/// What a listing counts for, whose length is not known before.
const LIST_BYTES: u64 = 256 << 10;

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Ask what the target holds in a directory.
    List(FileId),
    /// Make the target hold what the source holds in a directory; sizes are the target's.
    Directory {
        /// Directory.
        directory: FileId,
        /// What the target holds.
        theirs: BTreeMap<Vec<u8>, Theirs>,
    },
    /// Put one name right.
    Entry {
        /// Directory.
        parent: FileId,
        /// Name.
        name: Vec<u8>,
    },
    /// Compare the content of a file from a position on.
    Content {
        /// File.
        file: FileId,
        /// Position, in bytes.
        offset: u64,
        /// Where to stop, in bytes.
        end: u64,
        /// Whether the target's file is empty, so that comparing is a waste.
        fresh: bool,
    },
    /// Put the attributes of an object right, and compare this part of its content.
    Part {
        /// Object.
        file: FileId,
        /// Position, in bytes.
        offset: u64,
        /// Where to stop, in bytes; nothing is compared where that is the position.
        end: u64,
    },
    /// Remove a name that the source does not have.
    Discard {
        /// Directory.
        parent: FileId,
        /// Name.
        name: Vec<u8>,
    },
    /// Send blocks that differ.
    Blocks {
        /// File.
        file: FileId,
        /// Start of the first compared block, in bytes.
        offset: u64,
        /// Bit i for block i.
        blocks: u32,
    },
    /// Everything of the object was sent: give it its modification time.
    Finish(FileId),
}

/// What the target says of a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Theirs {
    /// Size of a regular file, in bytes.
    pub size: u64,
    /// Type, as in `d_type` of a directory entry.
    pub kind: u8,
    /// Whether it came or changed since the target's log began.
    pub recent: bool,
}

/// What a question was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    List(FileId),
    Compare { file: FileId, offset: u64, bytes: u64 },
}

impl Question {
    fn bytes(&self) -> u64 {
        match self {
            Question::List(_) => LIST_BYTES,
            Question::Compare { bytes, .. } => *bytes,
        }
    }
}

/// Directories in which everything is complete, each with what can be released of it.
pub type Complete = Vec<(FileId, Vec<FileId>)>;

/// Leaves an object out of what is complete.
pub fn leave_out(complete: &mut Complete, object: FileId) {
    complete.retain_mut(|(directory, files)| {
        files.retain(|file| *file != object);
        *directory != object
    });
}

/// What is left of a file's comparison.
#[derive(Debug, Clone, Copy, Default)]
struct FileState {
    questions: u32,
    /// Tasks that send blocks of it and have not been handed out.
    blocks: u32,
    /// Stretches of content that have not been read to their end.
    stretches: u32,
}

/// A directory whose files are not all known to be right yet.
#[derive(Debug, Default)]
struct Open {
    /// What of it can be released once all is right.
    files: Vec<FileId>,
    /// How many of them are not complete.
    left: usize,
    /// Whether all that stands in it was found.
    read: bool,
}

/// The plan of a resync.
#[derive(Debug, Default)]
pub struct Walk {
    /// Work, the newest first, so that the number of open directories stays small.
    stack: Vec<Task>,
    questions: BTreeMap<u64, Question>,
    /// Bytes that these are about.
    asked_bytes: u64,
    next_tag: u64,
    visited: BTreeSet<FileId>,
    /// Directories all of whose content is compared, whatever it looks like.
    whole: BTreeSet<FileId>,
    files: BTreeMap<FileId, FileState>,
    /// Directories under way, and of which of them a file under way is.
    open: BTreeMap<FileId, Open>,
    directory_of: BTreeMap<FileId, FileId>,
    /// What is complete and has not been taken.
    complete: Complete,
    /// Work of later levels, the next one last.
    levels: Vec<Vec<Task>>,
}

impl Walk {
    /// A walk from the roots of these trees.
    #[must_use]
    pub fn new(trees: impl DoubleEndedIterator<Item = u16>) -> Walk {
        let stack: Vec<Task> = trees.rev().map(|tree| Task::List(FileId::root(tree))).collect();
        let whole = stack.iter().filter_map(|task| match task {
            Task::List(directory) => Some(*directory),
            _ => None,
        });
        let whole = whole.collect();
        Walk { stack, whole, ..Walk::default() }
    }

    /// A walk through these levels of work, the first one first.
    #[must_use]
    pub fn through(levels: impl DoubleEndedIterator<Item = Vec<Task>>) -> Walk {
        Walk { levels: levels.rev().collect(), ..Walk::default() }
    }

    /// The next piece of work, or none when answers must be awaited first or nothing is left.
    pub fn next_task(&mut self) -> Option<Task> {
        while self.stack.is_empty() && self.questions.is_empty() {
            self.stack = self.levels.pop()?;
            self.stack.reverse();
        }
        let may_ask = self.questions.len() < QUESTIONS_MAX && self.asked_bytes < ASKED_BYTES_MAX;
        let next = self.stack.last()?;
        let asks = matches!(next, Task::List(_) | Task::Content { fresh: false, .. });
        if asks && !may_ask {
            return None;
        }
        let task = self.stack.pop();
        if let Some(Task::Blocks { file, .. }) = task {
            if let Some(state) = self.files.get_mut(&file) {
                state.blocks = state.blocks.saturating_sub(1);
            }
            self.finish_if_complete(file);
        }
        if let Some(Task::Finish(file)) = task {
            self.finishing(file);
        }
        task
    }

    /// Whether nothing is left to do or to await.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stack.is_empty() && self.questions.is_empty() && self.levels.is_empty()
    }

    /// Whether answers are awaited.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Adds work.
    pub fn add(&mut self, task: Task) {
        self.stack.push(task);
    }

    /// Adds work for the last level.
    pub fn add_last(&mut self, task: Task) {
        match self.levels.first_mut() {
            Some(last) => last.push(task),
            None => self.stack.insert(0, task),
        }
    }

    /// Whether no other level comes after the present one.
    #[must_use]
    pub fn is_last_level(&self) -> bool {
        self.levels.is_empty()
    }

    /// A directory was put right under its name; adds its content unless that was done before.
    pub fn found_directory(&mut self, directory: FileId) {
        if self.visited.insert(directory) {
            self.whole.insert(directory);
            self.stack.push(Task::List(directory));
        }
    }

    /// Whether everything in a directory is to be compared, whatever it looks like.
    #[must_use]
    pub fn is_whole(&self, directory: FileId) -> bool {
        self.whole.contains(&directory)
    }

    /// Part of a file's content is to be compared, unless all of it is or was.
    pub fn found_part(&mut self, file: FileId, offset: u64, end: u64) {
        if !self.visited.contains(&file) {
            self.files.entry(file).or_default().stretches += 1;
            self.stack.push(Task::Content { file, offset, end, fresh: false });
        }
    }

    /// A file was put right under its name; adds its content unless that was done before.
    pub fn found_file(&mut self, file: FileId, fresh: bool) {
        if self.visited.insert(file) {
            self.files.entry(file).or_default().stretches += 1;
            self.stack.push(Task::Content { file, offset: 0, end: u64::MAX, fresh });
        }
    }

    /// In a directory stands an object that is nowhere else, and that need not be remembered once
    /// it is right. To be said before a file's content is found.
    pub fn found_alone(&mut self, directory: FileId, object: FileId, has_content: bool) {
        if self.visited.contains(&object) {
            return;
        }
        let open = self.open.entry(directory).or_default();
        open.files.push(object);
        if has_content && self.directory_of.insert(object, directory).is_none() {
            open.left += 1;
        }
    }

    /// All that stands in a directory was found.
    pub fn read_whole(&mut self, directory: FileId) {
        self.open.entry(directory).or_default().read = true;
        self.close_if_complete(directory);
    }

    /// Directories in which everything is complete, once what can be released is so much.
    pub fn take_complete(&mut self, least: usize) -> Complete {
        let files = self.complete.iter().map(|(_, files)| files.len() + 1).sum::<usize>();
        if files < least { Vec::new() } else { std::mem::take(&mut self.complete) }
    }

    /// An object need not be remembered any more: found again, it is compared again.
    pub fn release(&mut self, file: FileId) {
        self.visited.remove(&file);
    }

    /// The target no longer holds the object: it must be compared again when it is next found.
    /// Answers about it that are under way do not count any more.
    pub fn unvisit(&mut self, file: FileId) {
        self.visited.remove(&file);
        self.files.remove(&file);
        // The directory that it is missing from is never complete then, and so never released.
        self.directory_of.remove(&file);
        // A directory is complete when it was found anew.
        self.open.remove(&file);
        self.directory_of.retain(|_, directory| *directory != file);
        leave_out(&mut self.complete, file);
        let about = |question: &Question| match question {
            Question::List(_) => false,
            Question::Compare { file: of, .. } => *of == file,
        };
        self.questions.retain(|_, question| !about(question));
        self.asked_bytes = self.questions.values().map(Question::bytes).sum();
        self.stack.retain(|task| match task {
            Task::Content { file: of, .. } | Task::Blocks { file: of, .. } | Task::Finish(of) => {
                *of != file
            }
            Task::List(_)
            | Task::Directory { .. }
            | Task::Entry { .. }
            | Task::Part { .. }
            | Task::Discard { .. } => true,
        });
    }

    /// A question about a directory goes out under the returned tag.
    pub fn ask_list(&mut self, directory: FileId) -> u64 {
        self.ask(Question::List(directory))
    }

    /// A question about blocks of so many bytes goes out under the returned tag.
    pub fn ask_compare(&mut self, file: FileId, offset: u64, bytes: u64) -> u64 {
        self.files.entry(file).or_default().questions += 1;
        self.ask(Question::Compare { file, offset, bytes })
    }

    /// A stretch was read to its end; its last answers may still be awaited.
    pub fn read_to_end(&mut self, file: FileId) {
        let state = self.files.entry(file).or_default();
        state.stretches = state.stretches.saturating_sub(1);
        self.finish_if_complete(file);
    }

    /// The target listed a directory. False when nobody asked.
    pub fn listed(&mut self, tag: u64, theirs: BTreeMap<Vec<u8>, Theirs>) -> bool {
        let Some(Question::List(directory)) = self.questions.remove(&tag) else {
            return false;
        };
        self.asked_bytes = self.asked_bytes.saturating_sub(LIST_BYTES);
        self.stack.push(Task::Directory { directory, theirs });
        true
    }

    /// The target compared blocks. False when nobody asked.
    pub fn compared(&mut self, tag: u64, blocks: u32) -> bool {
        let Some(Question::Compare { file, offset, bytes }) = self.questions.remove(&tag) else {
            return false;
        };
        self.asked_bytes = self.asked_bytes.saturating_sub(bytes);
        let state = self.files.entry(file).or_default();
        state.questions = state.questions.saturating_sub(1);
        if blocks != 0 {
            state.blocks += 1;
            self.stack.push(Task::Blocks { file, offset, blocks });
        }
        self.finish_if_complete(file);
        true
    }

    fn ask(&mut self, question: Question) -> u64 {
        self.next_tag += 1;
        self.asked_bytes += question.bytes();
        self.questions.insert(self.next_tag, question);
        self.next_tag
    }

    fn finish_if_complete(&mut self, file: FileId) {
        let complete =
            |state: &FileState| state.stretches == 0 && state.questions == 0 && state.blocks == 0;
        if self.files.get(&file).is_some_and(complete) {
            self.files.remove(&file);
            self.stack.push(Task::Finish(file));
        }
    }

    /// The last that there is to say of a file is being said.
    fn finishing(&mut self, file: FileId) {
        let Some(directory) = self.directory_of.remove(&file) else { return };
        if let Some(open) = self.open.get_mut(&directory) {
            open.left = open.left.saturating_sub(1);
        }
        self.close_if_complete(directory);
    }

    fn close_if_complete(&mut self, directory: FileId) {
        if self.open.get(&directory).is_some_and(|open| open.read && open.left == 0)
            && let Some(open) = self.open.remove(&directory)
        {
            self.complete.push((directory, open.files));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { tree: 0, node: 5 };

    #[test]
    fn a_file_is_finished_after_its_last_differing_block() {
        let mut walk = Walk::default();
        walk.found_file(FILE, false);
        let expected = Task::Content { file: FILE, offset: 0, end: u64::MAX, fresh: false };
        assert_eq!(walk.next_task(), Some(expected));
        let (first, second) = (walk.ask_compare(FILE, 0, 1), walk.ask_compare(FILE, 1 << 20, 1));
        walk.read_to_end(FILE);
        assert_eq!(walk.next_task(), None);
        assert!(walk.compared(second, 0b01));
        assert!(walk.compared(first, 0b10), "before the blocks of the second were sent");
        let blocks = |offset, blocks| Some(Task::Blocks { file: FILE, offset, blocks });
        assert_eq!(walk.next_task(), blocks(0, 0b10));
        assert_eq!(walk.next_task(), blocks(1 << 20, 0b01));
        assert_eq!(walk.next_task(), Some(Task::Finish(FILE)));
        assert!(walk.is_done());
        assert!(!walk.compared(first, 1), "an answer counts once");
    }

    #[test]
    fn an_object_with_two_names_is_compared_once() {
        let mut walk = Walk::default();
        walk.found_file(FILE, true);
        assert!(walk.next_task().is_some());
        walk.found_file(FILE, true);
        assert_eq!(walk.next_task(), None);
    }

    #[test]
    fn an_answer_from_before_an_object_was_lost_does_not_finish_it() {
        let mut walk = Walk::default();
        walk.found_file(FILE, false);
        assert!(walk.next_task().is_some());
        let old = walk.ask_compare(FILE, 0, 1);
        walk.unvisit(FILE);
        walk.found_file(FILE, false);
        assert!(walk.next_task().is_some());
        let new = walk.ask_compare(FILE, 0, 1);
        walk.read_to_end(FILE);
        assert!(!walk.compared(old, 0));
        assert_eq!(walk.next_task(), None, "the new answer is awaited");
        assert!(walk.compared(new, 0));
        assert_eq!(walk.next_task(), Some(Task::Finish(FILE)));
    }

    #[test]
    fn what_is_added_last_comes_after_all_levels_in_its_order() {
        let entry = |name: &str| Task::Entry { parent: FILE, name: name.into() };
        let mut walk = Walk::through([vec![entry("a")], vec![entry("b")]].into_iter());
        assert_eq!(walk.next_task(), Some(entry("a")));
        assert!(!walk.is_last_level());
        walk.add_last(entry("c"));
        walk.add_last(entry("d"));
        for name in ["b", "c", "d"] {
            assert_eq!(walk.next_task(), Some(entry(name)));
            assert!(walk.is_last_level());
        }
        walk.add_last(entry("e"));
        assert_eq!(walk.next_task(), Some(entry("e")));
        assert!(walk.is_done());
    }

    #[test]
    fn a_directory_is_complete_when_the_last_of_its_files_is_finished() {
        let (directory, pipe) = (FileId { tree: 0, node: 2 }, FileId { tree: 0, node: 6 });
        let mut walk = Walk::default();
        walk.found_alone(directory, FILE, true);
        walk.found_file(FILE, true);
        walk.found_alone(directory, pipe, false);
        walk.read_whole(directory);
        assert!(matches!(walk.next_task(), Some(Task::Content { .. })));
        walk.read_to_end(FILE);
        assert_eq!(walk.take_complete(1), []);
        assert_eq!(walk.next_task(), Some(Task::Finish(FILE)));
        assert_eq!(walk.take_complete(4), [], "so little is not worth a question");
        assert_eq!(walk.take_complete(3), [(directory, vec![FILE, pipe])]);
        walk.release(FILE);
        walk.found_file(FILE, false);
        assert!(walk.next_task().is_some(), "what was released is compared when found again");
    }

    #[test]
    fn a_directory_from_which_something_was_lost_is_not_complete() {
        let directory = FileId { tree: 0, node: 2 };
        let mut walk = Walk::default();
        walk.found_alone(directory, FILE, true);
        walk.found_file(FILE, true);
        walk.read_whole(directory);
        assert!(walk.next_task().is_some());
        walk.unvisit(FILE);
        walk.found_file(FILE, true);
        assert!(walk.next_task().is_some());
        walk.read_to_end(FILE);
        assert_eq!(walk.next_task(), Some(Task::Finish(FILE)));
        assert_eq!(walk.take_complete(0), []);
    }

    #[test]
    fn questions_are_limited() {
        let mut walk = Walk::new(0..1);
        let mut asked = 0;
        while let Some(Task::List(directory)) = walk.next_task() {
            walk.ask_list(directory);
            asked += 1;
            walk.found_directory(FileId { tree: 0, node: 100 + asked });
        }
        assert_eq!(asked, ASKED_BYTES_MAX / LIST_BYTES);
        assert!(!walk.is_done());
    }

    #[test]
    fn what_is_asked_about_is_limited_in_bytes() {
        let mut walk = Walk::default();
        walk.found_file(FILE, false);
        assert!(walk.next_task().is_some());
        let tag = walk.ask_compare(FILE, 0, ASKED_BYTES_MAX);
        let other = FileId { tree: 0, node: 6 };
        walk.found_file(other, false);
        assert_eq!(walk.next_task(), None, "its answer is awaited");
        assert!(walk.compared(tag, 0));
        assert!(walk.next_task().is_some());
    }
}
