//! A table alone, and one whose successor knows what it knew.

use super::*;

fn handle(number: u8) -> Handle {
    Handle::from_bytes(&[1, 0, 0, 0, number]).unwrap()
}

fn file() -> OwnedFd {
    OwnedFd::from(std::fs::File::open("/dev/null").unwrap())
}

struct Nobody;

impl Holder for Nobody {
    fn hold(&self, _tree: u16, _node: u64, _file: std::os::fd::BorrowedFd<'_>) {}
    fn let_go(&self, _tree: u16, _node: u64) {}
}

fn table() -> Table {
    Table::new(0, handle(1), file(), 10, Arc::new(Nobody))
}

#[test]
fn a_directory_stays_while_names_below_it_are_known() {
    let mut table = table();
    let directory = table.know(handle(2), Kind::Directory, Some(file()));
    table.refer(directory, Reference::Kernel);
    table.add_name(directory, fuse::ROOT, b"directory");
    let child = table.know(handle(3), Kind::File, Some(file()));
    table.refer(child, Reference::Kernel);
    table.add_name(child, directory, b"child");
    table.release(directory, Reference::Kernel, 1);
    assert_eq!(table.name_of(child), Some((directory, b"child".to_vec())));
    assert_eq!(table.name_of(directory), Some((fuse::ROOT, b"directory".to_vec())));
    table.release(child, Reference::Kernel, 1);
    assert_eq!(table.len(), 1);
    assert_eq!(table.know(handle(3), Kind::File, Some(file())), 4);
}

#[test]
fn a_pinned_file_without_lookups_stays() {
    let mut table = table();
    let node = table.know(handle(2), Kind::File, Some(file()));
    table.refer(node, Reference::Kernel);
    table.refer(node, Reference::Pin);
    table.release(node, Reference::Kernel, 7);
    assert_eq!(table.node_of(&handle(2)), Some(node));
    table.release(node, Reference::Pin, 1);
    assert_eq!(table.node_of(&handle(2)), None);
}
