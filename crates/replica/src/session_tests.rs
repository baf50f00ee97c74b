//! What is sent for live operations, told over a small tree of names.

use std::collections::BTreeMap;

use super::{Names, Session, Step};
use crate::op::{FileId, Op, Stamp};
use crate::walk::Task;

const ROOT: FileId = FileId::root(0);
const DIRECTORY: FileId = id(2);
const FILE: FileId = id(3);
const NEW: FileId = id(4);
/// Ids from here on are not in use.
const UNKNOWN: u64 = 1000;
const STAMP: Stamp = Stamp { seconds: 0, nanoseconds: 0 };

const fn id(node: u64) -> FileId {
    FileId { tree: 0, node }
}

/// Names as of after the operation under test.
#[derive(Default)]
struct Tree(BTreeMap<(FileId, Vec<u8>), FileId>);

impl Tree {
    fn with(names: &[(FileId, &str, FileId)]) -> Tree {
        let entry = |(parent, name, file): &(FileId, &str, FileId)| {
            ((*parent, name.as_bytes().to_vec()), *file)
        };
        Tree(names.iter().map(entry).collect())
    }
}

impl Names for Tree {
    fn names_of(&self, file: FileId) -> Vec<(FileId, Vec<u8>)> {
        self.0.iter().filter(|(_, at)| **at == file).map(|(name, _)| name.clone()).collect()
    }

    fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.0.get(&(parent, name.to_vec())).copied()
    }

    fn is_linked(&self, file: FileId) -> bool {
        !self.names_of(file).is_empty()
    }

    fn is_known(&self, file: FileId) -> bool {
        file.node < UNKNOWN
    }
}

fn write(file: FileId) -> Op<'static> {
    Op::Write { file, offset: 0, data: b"x", mtime: STAMP }
}

fn rename(parent: FileId, name: &'static str, new_parent: FileId, flags: u32) -> Op<'static> {
    let (name, new_name) = (name.as_bytes(), &b"new"[..]);
    let (parent_mtime, new_parent_mtime) = (STAMP, STAMP);
    Op::Rename { parent, name, new_parent, new_name, flags, parent_mtime, new_parent_mtime }
}

fn bind(file: FileId, parent: FileId, name: &str) -> Step {
    Step::Bind { file, parent, name: name.into() }
}

#[test]
fn equal_trees_are_bound_by_name_from_the_top_and_once() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "f", FILE)]);
    let mut session = Session::settled();
    let first = session.live(&write(FILE), &tree).unwrap();
    let expected = [bind(DIRECTORY, ROOT, "d"), bind(FILE, DIRECTORY, "f"), Step::Operation];
    assert_eq!(first, expected);
    assert_eq!(session.live(&write(FILE), &tree).unwrap(), [Step::Operation]);
}

#[test]
fn an_unlinked_file_is_nobodys_business() {
    let mut session = Session::settled();
    assert_eq!(session.live(&write(FILE), &Tree::default()).unwrap(), []);
}

#[test]
fn a_file_is_bound_by_the_name_it_had_before_it_was_linked() {
    let tree = Tree::with(&[(ROOT, "a", FILE), (ROOT, "z", FILE)]);
    for new in ["a", "z"] {
        let old = if new == "a" { "z" } else { "a" };
        let op = Op::Link { file: FILE, parent: ROOT, name: new.as_bytes(), parent_mtime: STAMP };
        let steps = Session::settled().live(&op, &tree).unwrap();
        assert_eq!(steps, [bind(FILE, ROOT, old), Step::Operation]);
    }
}

#[test]
fn what_the_walk_has_yet_to_reach_is_left_to_it() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "f", FILE)]);
    let mut session = Session::walking();
    assert_eq!(session.live(&write(FILE), &tree).unwrap(), []);
    session.bind(DIRECTORY);
    session.bind(FILE);
    assert_eq!(session.live(&write(FILE), &tree).unwrap(), [Step::Operation]);
    assert_eq!(session.next_task(), None);
}

#[test]
fn what_moves_from_the_unreached_into_the_reached_is_put_right_by_the_walk() {
    let tree = Tree::with(&[(ROOT, "new", FILE), (ROOT, "d", DIRECTORY)]);
    let mut session = Session::walking();
    assert_eq!(session.live(&rename(DIRECTORY, "f", ROOT, 0), &tree).unwrap(), []);
    let entry = Task::Entry { parent: ROOT, name: b"new".to_vec() };
    assert_eq!(session.next_task(), Some(entry));
}

#[test]
fn what_moves_out_of_the_reached_before_it_was_seen_is_discarded_there() {
    let tree = Tree::with(&[(DIRECTORY, "new", FILE), (ROOT, "d", DIRECTORY)]);
    let mut session = Session::walking();
    let steps = session.live(&rename(ROOT, "f", DIRECTORY, 0), &tree).unwrap();
    assert_eq!(steps, [Step::Discard { parent: ROOT, name: b"f".to_vec() }]);
    assert_eq!(session.next_task(), Some(Task::Finish(ROOT)));
}

#[test]
fn what_was_seen_moves_with_its_new_directory_made_first() {
    let tree = Tree::with(&[(DIRECTORY, "new", FILE), (ROOT, "d", DIRECTORY)]);
    let mut session = Session::walking();
    session.bind(FILE);
    let steps = session.live(&rename(ROOT, "f", DIRECTORY, 0), &tree).unwrap();
    let ensure = Step::Ensure { file: DIRECTORY, parent: ROOT, name: b"d".to_vec() };
    assert_eq!(steps, [ensure, Step::Operation]);
    let entry = Task::Entry { parent: DIRECTORY, name: b"new".to_vec() };
    assert_eq!(session.next_task(), Some(entry));
}

#[test]
fn of_an_exchange_halfway_what_was_reached_is_moved_and_the_rest_left_to_the_walk() {
    let tree = Tree::with(&[(ROOT, "new", FILE), (ROOT, "f", NEW)]);
    let exchange = rename(ROOT, "f", ROOT, super::RENAME_EXCHANGE);
    let ensure =
        |file, name: &str| Step::Ensure { file, parent: ROOT, name: name.as_bytes().to_vec() };
    for (reached, step) in [(FILE, ensure(FILE, "new")), (NEW, ensure(NEW, "f"))] {
        let mut session = Session::walking();
        session.bind(reached);
        assert_eq!(session.live(&exchange, &tree), Ok(vec![step]));
        let tasks: Vec<Task> = std::iter::from_fn(|| session.next_task()).collect();
        for name in ["new", "f"] {
            let entry = Task::Entry { parent: ROOT, name: name.into() };
            assert!(tasks.contains(&entry), "{tasks:?}");
        }
    }
    let mut session = Session::walking();
    assert_eq!(session.live(&exchange, &tree), Ok(vec![]), "neither was reached");
    assert!(session.next_task().is_some());
}

#[test]
fn an_exchange_with_a_directory_that_was_not_reached_takes_it_along() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "new", FILE), (ROOT, "f", NEW)]);
    let exchange = rename(ROOT, "f", DIRECTORY, super::RENAME_EXCHANGE);
    let ensure =
        |file, parent, name: &str| Step::Ensure { file, parent, name: name.as_bytes().to_vec() };
    let mut session = Session::walking();
    session.bind(FILE);
    let steps = session.live(&exchange, &tree).unwrap();
    assert_eq!(steps, [ensure(DIRECTORY, ROOT, "d"), ensure(FILE, DIRECTORY, "new")]);
    let mut session = Session::walking();
    [FILE, NEW].into_iter().for_each(|file| session.bind(file));
    let steps = session.live(&exchange, &tree).unwrap();
    assert_eq!(steps, [ensure(DIRECTORY, ROOT, "d"), Step::Operation]);
}

#[test]
fn a_lost_object_is_reached_again_by_every_name_in_reach() {
    let tree = Tree::with(&[(ROOT, "a", FILE), (DIRECTORY, "b", FILE)]);
    let mut session = Session::walking();
    session.bind(FILE);
    session.unbind(FILE, &tree);
    assert!(!session.is_bound(FILE));
    assert_eq!(session.next_task(), Some(Task::Entry { parent: ROOT, name: b"a".to_vec() }));
    assert_eq!(session.next_task(), None, "the other directory is yet to be walked");
}

#[test]
fn what_is_created_where_attributes_may_differ_is_looked_at_again() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "new", NEW), (NEW, "in", FILE)]);
    let create = |parent, name: &'static str, file| Op::Create {
        parent,
        name: name.as_bytes(),
        file,
        mode: 0o040_755,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: b"",
        mtime: STAMP,
        parent_mtime: STAMP,
    };
    let mut session = Session::waiting();
    session.compare_suspects([], [], [DIRECTORY]);
    let steps = session.live(&create(DIRECTORY, "new", NEW), &tree).unwrap();
    assert_eq!(steps, [bind(DIRECTORY, ROOT, "d"), Step::Operation]);
    assert_eq!(session.next_task(), Some(Task::Part { file: NEW, offset: 0, end: 0 }));
    session.live(&create(NEW, "in", FILE), &tree).unwrap();
    assert_eq!(session.next_task(), Some(Task::Part { file: FILE, offset: 0, end: 0 }));
    session.attributes_are_right(DIRECTORY);
    session.attributes_are_right(NEW);
    session.live(&create(NEW, "in", FILE), &tree).unwrap();
    assert_eq!(session.next_task(), None);
}

#[test]
fn a_delta_binds_over_trusted_names_and_leaves_the_rest_to_the_walk() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "f", FILE)]);
    let mut session = Session::waiting();
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![]), "the log remembers it");
    session.compare_suspects([DIRECTORY], [], []);
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![]));
    assert_eq!(session.next_task(), Some(Task::Part { file: FILE, offset: 0, end: 1 }));
    session.names_are_right(DIRECTORY);
    let steps = session.live(&write(FILE), &tree).unwrap();
    assert_eq!(steps, [bind(DIRECTORY, ROOT, "d"), bind(FILE, DIRECTORY, "f"), Step::Operation]);
    session.unbind(FILE, &tree);
    let entry = Task::Entry { parent: DIRECTORY, name: b"f".to_vec() };
    assert_eq!(session.next_task(), Some(entry));
    assert!(!session.is_trusted(DIRECTORY, b"f"));
}

#[test]
fn a_name_that_the_target_could_not_change_is_put_right_whatever_it_is() {
    let tree = Tree::with(&[(ROOT, "d", DIRECTORY), (DIRECTORY, "f", FILE)]);
    let entry = |name: &[u8]| Some(Task::Entry { parent: DIRECTORY, name: name.to_vec() });
    let mut session = Session::walking();
    session.astray(DIRECTORY, b"gone");
    assert_eq!(session.next_task(), None, "the directory is yet to be walked");
    session.bind(DIRECTORY);
    session.astray(DIRECTORY, b"gone");
    assert_eq!(session.next_task(), entry(b"gone"));
    let discard = Task::Discard { parent: DIRECTORY, name: b"gone".to_vec() };
    assert_eq!(session.next_task(), Some(discard));
    session.settle();
    // Of an operation that was on its way.
    session.astray(DIRECTORY, b"f");
    assert!(session.is_delta() && !session.is_trusted(DIRECTORY, b"f"));
    assert_eq!(session.next_task(), entry(b"f"));
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![]), "until that is done");
}

/// A walk through everything that has released FILE, which stands in DIRECTORY as `file`.
fn released() -> Session {
    let mut session = Session::walking();
    session.bind(DIRECTORY);
    session.bind(FILE);
    assert!(session.directory_is_done(DIRECTORY));
    let tree = Tree::with(&[(ROOT, "dir", DIRECTORY), (DIRECTORY, "file", FILE)]);
    assert!(session.may_release(FILE, DIRECTORY, &tree));
    session.release(FILE);
    session
}

#[test]
fn what_was_released_is_bound_by_its_name() {
    let tree = Tree::with(&[(ROOT, "dir", DIRECTORY), (DIRECTORY, "file", FILE)]);
    let mut session = released();
    let bound = bind(FILE, DIRECTORY, "file");
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![bound, Step::Operation]));
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![Step::Operation]));
    assert_eq!(session.next_task(), None);
}

#[test]
fn what_was_released_is_moved_from_under_its_former_name() {
    let tree = Tree::with(&[(ROOT, "dir", DIRECTORY), (ROOT, "new", FILE)]);
    let mut session = released();
    let steps = session.live(&rename(DIRECTORY, "file", ROOT, 0), &tree).unwrap();
    assert_eq!(steps, [bind(FILE, DIRECTORY, "file"), Step::Operation]);
    assert!(session.is_bound(FILE));
    let entry = Task::Entry { parent: ROOT, name: b"new".to_vec() };
    assert_eq!(session.next_task(), Some(entry));
}

#[test]
fn what_was_released_stays_one_file_when_it_is_linked_where_the_walk_has_not_been() {
    let tree = Tree::with(&[
        (ROOT, "dir", DIRECTORY),
        (DIRECTORY, "file", FILE),
        (ROOT, "far", NEW),
        (NEW, "link", FILE),
    ]);
    let mut session = released();
    let link = Op::Link { file: FILE, parent: NEW, name: b"link", parent_mtime: STAMP };
    assert_eq!(session.live(&link, &tree), Ok(vec![bind(FILE, DIRECTORY, "file")]));
    assert!(session.is_bound(FILE), "so that the walk makes a link of it there too");
}

#[test]
fn a_name_that_is_left_to_the_walk_is_not_relied_on_until_then() {
    let mut session = released();
    // Something comes into the directory from where the walk has not been.
    let moved = Tree::with(&[(ROOT, "dir", DIRECTORY), (DIRECTORY, "new", NEW)]);
    let steps = session.live(&rename(id(9), "x", DIRECTORY, 0), &moved).unwrap();
    assert_eq!(steps, []);
    let entry = Task::Entry { parent: DIRECTORY, name: b"new".to_vec() };
    assert_eq!(session.next_task(), Some(entry));
    assert_eq!(session.live(&write(NEW), &moved), Ok(Vec::new()));
    session.name_is_right(DIRECTORY, b"new");
    let bound = bind(NEW, DIRECTORY, "new");
    assert_eq!(session.live(&write(NEW), &moved), Ok(vec![bound, Step::Operation]));
}

#[test]
fn only_what_has_one_name_in_its_directory_is_released() {
    let mut session = Session::walking();
    session.bind(DIRECTORY);
    session.bind(FILE);
    let twice = Tree::with(&[(DIRECTORY, "file", FILE), (DIRECTORY, "other", FILE)]);
    assert!(!session.may_release(FILE, DIRECTORY, &twice));
    let elsewhere = Tree::with(&[(ROOT, "file", FILE)]);
    assert!(!session.may_release(FILE, DIRECTORY, &elsewhere));
    session.leave_name(DIRECTORY, b"file");
    let alone = Tree::with(&[(DIRECTORY, "file", FILE)]);
    assert!(!session.may_release(FILE, DIRECTORY, &alone), "its name is doubtful");
}

#[test]
fn a_directory_that_the_target_lost_is_not_done_any_more() {
    let tree = Tree::with(&[(ROOT, "dir", DIRECTORY), (DIRECTORY, "file", FILE)]);
    let mut session = released();
    session.unbind(DIRECTORY, &tree);
    assert_eq!(session.live(&write(FILE), &tree), Ok(Vec::new()), "the walk comes here again");
    assert!(!session.directory_is_done(DIRECTORY));
}

#[test]
fn ids_out_of_use_are_forgotten_with_an_operation_that_is_told_and_with_no_other() {
    let mut session = Session::settled();
    let unused = super::SWEEP_MIN as u64;
    (0..unused).for_each(|count| session.bind(id(UNKNOWN + count)));
    let none = Tree::default();
    let steps = session.live(&write(FILE), &none).unwrap();
    assert!(steps.is_empty(), "it has no name, and {} steps", steps.len());
    let tree = Tree::with(&[(ROOT, "file", FILE)]);
    let steps = session.live(&write(FILE), &tree).unwrap();
    let forgotten = steps.iter().filter(|step| matches!(step, Step::Forget(_))).count() as u64;
    assert_eq!(forgotten, unused);
    assert_eq!(steps.last(), Some(&Step::Operation));
    assert_eq!(session.live(&write(FILE), &tree), Ok(vec![Step::Operation]));
}

#[test]
fn both_names_of_an_exchange_are_put_right_by_the_walk() {
    let mut session = Session::walking();
    [DIRECTORY, FILE, NEW].into_iter().for_each(|file| session.bind(file));
    let tree = Tree::with(&[(DIRECTORY, "new", FILE), (ROOT, "old", NEW)]);
    let exchange = rename(ROOT, "old", DIRECTORY, super::RENAME_EXCHANGE);
    assert_eq!(session.live(&exchange, &tree), Ok(vec![Step::Operation]));
    let entry = |parent, name: &str| Some(Task::Entry { parent, name: name.into() });
    assert_eq!(session.next_task(), entry(ROOT, "old"));
    assert_eq!(session.next_task(), entry(DIRECTORY, "new"));
}
