//! Starting, dying, cleaning up, and living with few descriptors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use common::{Fixture, scratch};
use fuse::{Answer, Errno};
use mount::backing::Root;
use mount::{Immediate, Order, Recorder, Serving, Tree, TreeError};
use replica::op::{FileId, Op};
use rustix::mount::{MountFlags, UnmountFlags};

/// Where the tests that run in a process of their own do so.
const AT: &str = "EVENKEEL_TEST_AT";

/// Runs one of the ignored tests below in a process of its own.
fn other_process(test: &str, at: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(AT, at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn at() -> PathBuf {
    std::env::var_os(AT).expect("run by another test, not by itself").into()
}

fn serve_over_itself(directory: &Path) -> Serving {
    let tree = Arc::new(Tree::open(0, directory).unwrap());
    Serving::start(tree, Arc::new(Order::new(Immediate)), directory, 2).unwrap()
}

#[test]
fn a_killed_server_leaves_an_error_that_can_be_cleaned_up() {
    let base = scratch("killed");
    let directory = base.join("directory");
    fs::create_dir(&directory).unwrap();
    let mut server = other_process("serves_until_killed", &directory);
    let said = BufReader::new(server.stdout.take().unwrap());
    let serves = said.lines().map_while(Result::ok).any(|line| line.contains("it serves"));
    assert!(serves, "the server did not start");
    let open = File::open(directory.join("ready")).unwrap();
    assert!(mount::remove_leftovers(&directory).unwrap().is_empty(), "it is being served");
    server.kill().unwrap();
    server.wait().unwrap();
    let not_connected = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOTCONN);
    assert!(not_connected(fs::read_dir(&directory).unwrap_err()));
    assert!(not_connected(open.sync_all().unwrap_err()));
    let removed = mount::remove_leftovers(&directory).unwrap();
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert!(removed[0].contains("without a server"));
    assert_eq!(fs::read(directory.join("ready")).unwrap(), b"ready");
    assert!(mount::remove_leftovers(&directory).unwrap().is_empty());
    fs::remove_dir_all(&base).unwrap();
}

#[test]
#[ignore = "the server of another test"]
fn serves_until_killed() {
    let _serving = serve_over_itself(&at());
    fs::write(at().join("ready"), b"ready").unwrap();
    println!("it serves");
    loop {
        std::thread::park();
    }
}

#[test]
fn many_files_need_few_descriptors() {
    let base = scratch("many");
    let done = other_process("serves_many_files", &base).wait().unwrap();
    let _ = mount::remove_leftovers(&base.join("view"));
    assert!(done.success());
    fs::remove_dir_all(&base).unwrap();
}

#[test]
#[ignore = "needs limits of its own, set by another test"]
fn serves_many_files() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(200), maximum: Some(200) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let (source, view) = (at().join("source"), at().join("view"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&view).unwrap();
    let tree = Arc::new(Tree::open(0, &source).unwrap());
    let order = Arc::new(Order::new(Immediate));
    let serving = Serving::start(Arc::clone(&tree), order, &view, 2).unwrap();
    let file = |number: u32| view.join(format!("{}/{number}", number % 20));
    for number in 0..20 {
        fs::create_dir(view.join(number.to_string())).unwrap();
    }
    for number in 0..20_000 {
        fs::write(file(number), number.to_string()).unwrap();
    }
    assert!(tree.known() > 20_000);
    for number in (0..20_000).rev() {
        fs::set_permissions(file(number), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        assert_eq!(fs::read_to_string(file(number)).unwrap(), number.to_string());
    }
    for number in 0..20_000 {
        fs::remove_file(file(number)).unwrap();
    }
    serving.detach().unwrap();
}

#[test]
fn a_read_only_view_shows_what_is_written_below() {
    let base = scratch("view");
    let directory = base.join("directory");
    fs::create_dir(&directory).unwrap();
    let root = Root::open(&directory).unwrap();
    assert!(!mount::has_read_only_bind(&directory, &root).unwrap());
    mount::read_only_bind(&directory, &root).unwrap();
    mount::read_only_bind(&directory, &root).unwrap();
    assert!(mount::has_read_only_bind(&directory, &root).unwrap());
    let refused = fs::write(directory.join("file"), b"").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let made = mount::backing::create(&root, b"file", 0o100_644, 0, 0, 0, b"").unwrap();
    let made = mount::backing::reopen(made, rustix::fs::OFlags::WRONLY).unwrap();
    File::from(made).write_all_at(b"below", 0).unwrap();
    assert_eq!(fs::read(directory.join("file")).unwrap(), b"below");
    mount::undo_read_only_bind(&directory, &root).unwrap();
    mount::undo_read_only_bind(&directory, &root).unwrap();
    fs::write(directory.join("file"), b"again").unwrap();
    // As after a crash, when nobody has the root any more.
    mount::read_only_bind(&directory, &root).unwrap();
    drop(root);
    assert_eq!(mount::remove_leftovers(&directory).unwrap().len(), 1);
    fs::write(directory.join("file"), b"again").unwrap();
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn what_is_mounted_below_is_refused() {
    let fixture = Fixture::new("nested");
    let below = fixture.source.join("below");
    fs::create_dir(&below).unwrap();
    rustix::mount::mount("none", &below, "tmpfs", MountFlags::empty(), None).unwrap();
    let refused = Tree::open(0, &fixture.source);
    let seen = fs::read_dir(fixture.view.join("below")).map(drop);
    rustix::mount::unmount(&below, UnmountFlags::DETACH).unwrap();
    assert_eq!(seen.unwrap_err().raw_os_error(), Some(libc::EXDEV));
    match refused {
        Err(TreeError::Nested { below: named, .. }) => assert_eq!(named, below),
        other => panic!("{other:?}"),
    }
    let missing = Tree::open(0, Path::new("/no/such/directory")).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/directory cannot be opened"), "{missing}");
}

/// Keeps every answer for ever, and tells that it has one.
struct Silent(Vec<Answer>, Sender<()>);

impl Recorder for Silent {
    fn admit(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn record(&mut self, _op: Op<'_>, answer: Option<Answer>) {
        self.0.extend(answer);
        self.1.send(()).unwrap();
    }

    fn sync_begins(&mut self, _file: FileId, _data_only: bool) -> u64 {
        0
    }

    fn sync_ended(&mut self, _sync: u64, _local: Result<(), Errno>, answer: Answer) {
        self.0.push(answer);
    }

    fn copy_failed(&mut self, _what: &str, _errno: Errno) {}
}

#[test]
fn nobody_is_left_waiting_when_the_mount_is_aborted() {
    let base = scratch("aborted");
    let directory = base.join("directory");
    fs::create_dir(&directory).unwrap();
    let tree = Arc::new(Tree::open(0, &directory).unwrap());
    let (told, heard) = channel();
    let order = Arc::new(Order::new(Silent(Vec::new(), told)));
    let serving = Serving::start(tree, order, &directory, 2).unwrap();
    let path = directory.join("new");
    let caller = std::thread::spawn(move || fs::create_dir(path));
    heard.recv().unwrap();
    serving.abort().unwrap();
    assert!(caller.join().unwrap().is_err());
    assert!(fs::read_dir(&directory).is_ok(), "the directory itself is back");
    fs::remove_dir_all(&base).unwrap();
}
