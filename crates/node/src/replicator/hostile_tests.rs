//! A receiver that is sent what no honest source sends, over a socket. Needs root, as the product
//! does.
//!
//! Whatever comes: a refusal that names it, nothing outside the replica touched, nothing applied
//! after it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use model::{NodeName, SessionId};
use mount::backing::{self, Root};
use replica::op::{Attr, FileId, Op, Stamp};
use wire::FRAME_BYTES_MAX;
use wire::frame::{PREFIX_BYTES, put_frame};
use wire::hello::{Joint, Protection, Welcome, take_welcome};
use wire::local::{Caller, FromReplicator};
use wire::replication::{Attributes, Backward, Ensure, Forward, put_forward, take_backward};

use super::Receiving;
use crate::authority::Authority;
use crate::connection;
use crate::keys::Keys;
use crate::replicator::Directory;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::greeter::Greeter;
use crate::replicator::log::ActivityLog;

const ROOT: FileId = FileId::root(0);
const A: FileId = FileId { tree: 0, node: 10 };
const B: FileId = FileId { tree: 0, node: 11 };
const MTIME: Stamp = Stamp { seconds: 1_000, nanoseconds: 7 };
const FILE: u32 = 0o100_640;
const PIPE: u32 = 0o010_640;
const CHARACTER: u32 = 0o020_640;
const DIRECTORY: u32 = 0o040_750;
const SESSION: SessionId = SessionId(7);

struct Site {
    folder: PathBuf,
    receiving: Receiving,
}

impl Site {
    /// A replica with a file, a directory and two symlinks that lead out of it, and beside it what
    /// must never be touched.
    fn new(name: &str) -> Site {
        let folder =
            std::env::temp_dir().join(format!("evenkeel-hostile-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for directory in ["replica/inner", "outside/kept"] {
            fs::create_dir_all(folder.join(directory)).unwrap();
        }
        fs::write(folder.join("outside/secret"), "secret").unwrap();
        fs::write(folder.join("replica/file"), "content").unwrap();
        symlink("../outside", folder.join("replica/way")).unwrap();
        symlink("../outside/secret", folder.join("replica/goal")).unwrap();
        let path = folder.join("replica");
        let root = Arc::new(Root::open(&path).unwrap());
        backing::set_xattr(&*root, b"trusted.evenkeel", b"marker", 0).unwrap();
        let directories = [Directory { path, root, exclude: Default::default() }];
        let source = NodeName::new("node1").unwrap();
        let (log, _) = ActivityLog::open(&folder.join("log"), 0).unwrap();
        let daemon = DaemonLink::unheard();
        let receiving =
            Receiving::new(SESSION, &source, 0, (&directories, None), &daemon, &log).unwrap();
        Site { folder, receiving }
    }

    /// Connects as a source that asks for a session; answers what the greeting was answered with.
    fn connect(&mut self, session: SessionId, joint: Joint) -> (TcpStream, Welcome) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let from = NodeName::new("node1").unwrap();
        let caller = Caller { from, session, joint, protection: Protection::None };
        let greeter = Greeter::new(Keys::new(&self.folder.join("keys")), &DaemonLink::unheard());
        let entrance = Some(self.receiving.entrance());
        greeter.greet(caller, listener.accept().unwrap().0, entrance);
        let mut frame = Vec::new();
        connection::read_frame(&mut stream, 1024, &mut frame).unwrap();
        (stream, take_welcome(&frame).unwrap())
    }

    /// Sends bytes and then an innocent operation; answers the complaints, when all is over.
    fn send(mut self, bytes: &[u8]) -> (Vec<String>, Site) {
        let (mut stream, welcome) = self.connect(SESSION, Joint::default());
        assert!(matches!(welcome, Welcome::Accepted(Joint { received: 0, .. })), "{welcome:?}");
        let sent =
            stream.write_all(bytes).and_then(|()| stream.write_all(&frames(&[create(b"late")])));
        // Who refuses may close at once.
        drop(sent.and_then(|()| stream.shutdown(Shutdown::Write)));
        let mut complaints = Vec::new();
        let mut answers = Vec::new();
        // A connection that is closed with something unread in it ends with an error.
        let _ = stream.read_to_end(&mut answers);
        let mut rest = answers.as_slice();
        while let Some((prefix, more)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let (frame, more) = more.split_at(u32::from_le_bytes(*prefix) as usize);
            if let Backward::Failed { what, .. } = take_backward(frame).unwrap() {
                complaints.push(String::from_utf8(what.to_vec()).unwrap());
            }
            rest = more;
        }
        (complaints, self)
    }

    /// Names, kinds, sizes, modes and owners of everything beside and in the replica.
    fn listing(&self) -> Vec<String> {
        let mut folders = vec![self.folder.clone()];
        let mut lines = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let (path, stat) = (entry.path(), entry.metadata().unwrap());
                let kind = stat.file_type();
                let special = kind.is_fifo() || kind.is_char_device();
                let owned = (stat.mode(), stat.uid(), if kind.is_dir() { 0 } else { stat.len() });
                lines.push(format!("{} {owned:?} {special}", path.display()));
                if kind.is_dir() {
                    folders.push(path);
                }
            }
        }
        lines.sort();
        lines
    }

    fn marker(&self) -> Vec<u8> {
        let root = Root::open(&self.folder.join("replica")).unwrap();
        backing::get_xattr(&root, b"trusted.evenkeel").unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn frames(messages: &[Forward<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| put_forward(&mut out, message));
    out
}

fn op(op: Op<'_>) -> Forward<'_> {
    Forward::Op { number: 1, op }
}

fn create_in<'a>(parent: FileId, name: &'a [u8]) -> Forward<'a> {
    let (uid, gid, rdev, target) = (0, 0, 0, &b""[..]);
    let (mtime, parent_mtime) = (MTIME, MTIME);
    let mode = FILE;
    let number = 1 << 40;
    let op =
        Op::Create { parent, name, file: B, mode, uid, gid, rdev, target, mtime, parent_mtime };
    Forward::Op { number, op }
}

fn create(name: &[u8]) -> Forward<'_> {
    create_in(ROOT, name)
}

fn ensure(name: &[u8], file: FileId, mode: u32, rdev: u64) -> Forward<'_> {
    let (parent, uid, gid, size, mtime) = (ROOT, 0, 0, 0, MTIME);
    let (target, xattrs) = (&b""[..], vec![]);
    let (apart, held) = (false, false);
    let ensure = Ensure {
        parent,
        name,
        file,
        mode,
        uid,
        gid,
        rdev,
        size,
        mtime,
        target,
        xattrs,
        apart,
        held,
    };
    Forward::Ensure(ensure)
}

fn bind(name: &[u8]) -> Forward<'_> {
    Forward::Bind { file: A, parent: ROOT, name }
}

fn write(file: FileId) -> Forward<'static> {
    op(Op::Write { file, offset: 0, data: b"evil", mtime: MTIME })
}

/// Sends frames to a strict receiver and to a tolerant one: each complains with these words, and
/// all is as before, or as it became by what was honest.
fn check(name: &str, messages: &[Forward<'_>], words: &str) {
    for strict in [true, false] {
        check_mode(name, strict, messages, words);
    }
}

fn check_mode(name: &str, strict: bool, messages: &[Forward<'_>], words: &str) {
    let mut all = vec![Forward::Strict(strict)];
    all.extend_from_slice(messages);
    check_bytes(name, Site::new(name), &frames(&all), Some(words));
}

fn check_bytes(name: &str, site: Site, bytes: &[u8], words: Option<&str>) {
    let before = site.listing();
    let (complaints, site) = site.send(bytes);
    match words {
        Some(words) => {
            let told = complaints.iter().any(|complaint| complaint.contains(words));
            assert!(told, "{name}: {complaints:?} lacks {words:?}");
        }
        None => assert!(complaints.is_empty(), "{name}: {complaints:?}"),
    }
    let special = |line: &&String| !line.ends_with(" true");
    let after = site.listing();
    let after: Vec<&String> = after.iter().filter(special).collect();
    assert_eq!(before.iter().collect::<Vec<_>>(), after, "{name}");
    assert_eq!(fs::read(site.folder.join("outside/secret")).unwrap(), b"secret", "{name}");
    assert_eq!(site.marker(), b"marker", "{name}");
}

#[test]
fn names_that_leave_their_directory() {
    for (index, name) in
        [&b".."[..], b".", b"", b"a/b", b"/", b"/etc", b"a\0b", &[b'x'; 256]].iter().enumerate()
    {
        let label = format!("name-{index}");
        check(&label, &[create(name)], "bad name");
        check(&label, &[ensure(name, A, FILE, 0)], "bad name");
        check(&label, &[bind(name)], "bad name");
        check(&label, &[Forward::Discard { parent: ROOT, name }], "bad name");
        let (directory, parent_mtime) = (false, MTIME);
        check(
            &label,
            &[op(Op::Remove { parent: ROOT, name, directory, parent_mtime })],
            "bad name",
        );
        let renamed = Op::Rename {
            parent: ROOT,
            name: b"file",
            new_parent: ROOT,
            new_name: name,
            flags: 0,
            parent_mtime,
            new_parent_mtime: MTIME,
        };
        check(&label, &[op(renamed)], "bad name");
    }
}

#[test]
fn symlinks_are_never_followed() {
    let through = [bind(b"way"), create_in(A, b"evil")];
    check("symlink-parent", &through, "creation of `evil`");
    let remove =
        op(Op::Remove { parent: A, name: b"secret", directory: false, parent_mtime: MTIME });
    check("symlink-remove", &[bind(b"way"), remove], "removal of `secret`");
    check(
        "symlink-discard",
        &[bind(b"way"), Forward::Discard { parent: A, name: b"kept" }],
        "kept",
    );
    check("symlink-write", &[bind(b"goal"), write(A)], "write of 4 bytes");
    let listing = Forward::List { tag: 1, directory: A };
    check("symlink-list", &[bind(b"way"), listing], "listed");
    let compare = Forward::Compare { tag: 1, file: A, offset: 0, hashes: vec![[0; 32]] };
    check("symlink-compare", &[bind(b"goal"), compare], "compared");
    let resize = Attr { size: Some(0), ..Attr::default() };
    let resize = op(Op::SetAttr { file: A, attr: resize });
    check("symlink-resize", &[bind(b"goal"), resize], "change of attributes");
    let xattr = Op::SetXattr { file: A, name: b"user.evil", value: b"" };
    check("symlink-xattr", &[bind(b"goal"), op(xattr)], "user.evil");
}

#[test]
fn pipes_and_devices_are_never_opened() {
    // Of /dev/full every write would fail with another reason.
    for (mode, rdev) in [(PIPE, 0), (CHARACTER, 0x107)] {
        let name = format!("special-{mode:o}");
        let made = ensure(b"special", A, mode, rdev);
        check(&name, &[made.clone(), write(A)], "write of 4 bytes");
        check(&name, &[made.clone(), op(Op::Sync { file: A, data_only: true })], "sync");
        let compare = Forward::Compare { tag: 1, file: A, offset: 0, hashes: vec![[0; 32]] };
        check(&name, &[made.clone(), compare], "compared");
        let block = Forward::Block { file: A, offset: 0, data: b"evil" };
        check(&name, &[made, block], "block");
    }
}

#[test]
fn other_trees_and_the_marker() {
    let foreign = FileId { tree: 1, node: 1 };
    // In a resync, what is not held is told as absent instead; a live change of it is no fault.
    check_mode("tree", true, &[create_in(foreign, b"evil")], "creation of `evil`");
    check("tree-id", &[ensure(b"file", FileId { tree: 9, node: 5 }, FILE, 0)], "`file`");
    check_mode(
        "unknown",
        true,
        &[create_in(FileId { tree: 0, node: 999 }, b"evil")],
        "creation of `evil`",
    );
    let root = Forward::Bind { file: ROOT, parent: ROOT, name: b"inner" };
    check("root", &[root], "`inner`");
    let name = b"trusted.evenkeel";
    check("marker-set", &[op(Op::SetXattr { file: ROOT, name, value: b"" })], "trusted.evenkeel");
    check("marker-off", &[op(Op::RemoveXattr { file: ROOT, name })], "trusted.evenkeel");
    let (mode, uid, gid) = (DIRECTORY | 0o005, 0, 0);
    let xattrs = vec![(&name[..], &b"other"[..])];
    let wanted = Attributes { file: ROOT, mode, uid, gid, xattrs };
    check("marker-dress", &[Forward::Attributes(wanted)], "attributes");
}

#[test]
fn frames_that_are_none() {
    let framed = |body: &[u8]| {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, |out| out.extend_from_slice(body));
        bytes
    };
    check_bytes("kind", Site::new("kind"), &framed(&[77]), Some("unknown kind 77"));
    let trailing = [&frames(&[Forward::Check { tag: 1 }])[PREFIX_BYTES..], b"x"].concat();
    check_bytes("rest", Site::new("rest"), &framed(&trailing), Some("1 bytes after"));
    let full = framed(&vec![77; FRAME_BYTES_MAX]);
    check_bytes("max", Site::new("max"), &full, Some("unknown kind 77"));
    for length in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let bytes = [&length.to_le_bytes()[..], &[1; 64]].concat();
        check_bytes("length", Site::new("length"), &bytes, None);
    }
    // A frame that takes the next one for its own rest, and then ends too early.
    let cut = [&1_000_u32.to_le_bytes()[..], &[1; 10]].concat();
    check_bytes("cut", Site::new("cut"), &cut, None);
}

#[test]
fn another_session_and_another_source_are_refused() {
    let mut site = Site::new("session");
    let (mut stream, welcome) = site.connect(SessionId(8), Joint::default());
    assert!(matches!(&welcome, Welcome::Absent(why) if why.contains("another session")));
    drop(stream.write_all(&frames(&[create(b"evil")])));
    let (mut first, welcome) = site.connect(SESSION, Joint::default());
    let Welcome::Accepted(begun) = welcome else { panic!("{welcome:?}") };
    let check = frames(&[Forward::Check { tag: 1 }]);
    first.write_all(&check).unwrap();
    let answer = take_frame(&mut first);
    assert_eq!(take_backward(&answer), Ok(Backward::Checked { tag: 1 }));
    for (wrong, words) in [
        (Joint { stream: 1, received: 0 }, "begun anew"),
        (Joint { stream: 0, received: 1 << 40 }, "bytes that were not sent"),
    ] {
        let (_, welcome) = site.connect(SESSION, wrong);
        assert!(matches!(&welcome, Welcome::Absent(why) if why.contains(words)), "{welcome:?}");
    }
    // The source itself goes on where it was.
    let (mut second, welcome) = site.connect(SESSION, Joint::default());
    let received = check.len() as u64;
    assert_eq!(welcome, Welcome::Accepted(Joint { received, ..begun }));
    assert_eq!(take_frame(&mut second), answer, "what it has not confirmed comes once more");
    assert!(!site.folder.join("replica/evil").exists());
}

#[test]
fn who_does_not_prove_who_it_is_is_told_to_the_daemon() {
    let site = Site::new("unproven");
    let (keys, own) = (site.folder.join("keys"), NodeName::new("node2").unwrap());
    Authority::new("demo").unwrap().furnish(&own, &keys).unwrap();
    let daemon = DaemonLink::unheard();
    let greeter = Greeter::new(Keys::new(&keys), &daemon);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let from = NodeName::new("node1").unwrap();
    let protection = Protection::Encrypted;
    let caller =
        Caller { from: from.clone(), session: SESSION, joint: Joint::default(), protection };
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    greeter.greet(caller, listener.accept().unwrap().0, Some(site.receiving.entrance()));
    let told = daemon.next();
    let FromReplicator::TurnedAway { from: named, why } = &told else { panic!("{told:?}") };
    assert_eq!(named, &from);
    assert!(!why.is_empty());
}

/// The next frame that is no ping, without its prefix.
fn take_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut frame = Vec::new();
    loop {
        connection::read_frame(stream, 1024, &mut frame).unwrap();
        if !matches!(take_backward(&frame), Ok(Backward::Ping(_))) {
            return frame;
        }
    }
}
