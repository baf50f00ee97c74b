//! The descriptor of /dev/fuse: reading requests, writing answers and notifications, negotiating.
//!
//! Shared by all serving threads. It does not decode requests other than the first one, and it
//! starts no threads.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read, write, writev};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{Features, Operation, Request, abi, reply};

/// What was agreed on with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// Minor version of the protocol.
    pub minor: u32,
    /// Flags in use, of those in `abi`.
    pub flags: u64,
    /// Features in use, of those that can be done without.
    pub features: Features,
}

/// A mount's connection to the kernel.
#[derive(Debug)]
pub struct Connection {
    device: OwnedFd,
    number: u32,
    protocol: Protocol,
}

/// Features that are asked for. Never the write-back cache: it reorders data behind changes of
/// the namespace. Never locks: they stay in the kernel.
const WANTED: u64 = abi::ASYNC_READ
    | abi::ATOMIC_O_TRUNC
    | abi::BIG_WRITES
    | abi::DONT_MASK
    | abi::DO_READDIRPLUS
    | abi::READDIRPLUS_AUTO
    | abi::ASYNC_DIO
    | abi::PARALLEL_DIROPS
    | abi::POSIX_ACL
    | abi::MAX_PAGES
    | abi::CACHE_SYMLINKS
    | abi::EXPLICIT_INVAL_DATA
    | abi::HANDLE_KILLPRIV_V2
    | abi::SETXATTR_EXT
    | abi::INIT_EXT
    | abi::DIRECT_IO_ALLOW_MMAP;

impl Connection {
    /// Negotiates over the descriptor of a mount just made. `number` is the minor number of the
    /// mount's device.
    pub(crate) fn negotiate(
        device: OwnedFd,
        number: u32,
        features: Features,
    ) -> Result<Connection, Errno> {
        let protocol = Protocol { minor: 0, flags: 0, features };
        let mut connection = Connection { device, number, protocol };
        let mut buffer = vec![0; abi::REQUEST_BYTES_MAX];
        let length = connection.receive(&mut buffer)?.ok_or(Errno::NODEV)?;
        let bytes = buffer.get(..length).ok_or(Errno::PROTO)?;
        let request = Request::parse(bytes).map_err(|_| Errno::PROTO)?;
        let Operation::Init(offer) = request.operation else {
            return Err(Errno::PROTO);
        };
        if offer.major != abi::MAJOR {
            connection.reply_error(request.unique, Errno::PROTO);
            return Err(Errno::PROTO);
        }
        let flags = offer.flags & agreeable(offer.flags) & !features.unwanted();
        let features = features.agreed(flags);
        let protocol = Protocol { minor: offer.minor.min(abi::MINOR), flags, features };
        connection.protocol = protocol;
        let answer = reply::init(protocol.minor, offer.readahead, protocol.flags);
        connection.write(&[&header(answer.len(), 0, request.unique), &answer])?;
        Ok(connection)
    }

    /// Goes on with a connection that another process negotiated and left: requests which that one
    /// has read are not read again, but their answers are taken from anybody.
    #[must_use]
    pub fn resume(device: OwnedFd, number: u32, protocol: Protocol) -> Connection {
        Connection { device, number, protocol }
    }

    /// What was agreed on.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Minor device number of the mount, which is also its name below /sys/fs/fuse/connections.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Waits for a request and reads it; `None` once the file system is unmounted or aborted.
    ///
    /// The buffer must hold `abi::REQUEST_BYTES_MAX` bytes.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            match read(&self.device, &mut *buffer) {
                Ok(length) => return Ok(Some(length)),
                // ENOENT: the caller gave up while the request was being read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Answers a request.
    pub fn reply(&self, unique: u64, body: &[u8]) {
        let sent = self.write(&[&header(body.len(), 0, unique), body]);
        // The kernel refuses an answer that does not fit its question. Its caller must not wait
        // for ever for a better one.
        if sent == Err(Errno::INVAL) {
            self.reply_error(unique, Errno::IO);
        }
    }

    pub(crate) fn give(&self, unique: u64, outcome: &Result<Vec<u8>, Errno>) {
        match outcome {
            Ok(body) => self.reply(unique, body),
            Err(errno) => self.reply_error(unique, *errno),
        }
    }

    /// Answers a request with an error.
    pub fn reply_error(&self, unique: u64, errno: Errno) {
        // Fails only when the caller gave up or the mount is gone: nobody waits then.
        let _ = self.write(&[&header(0, errno.raw_os_error(), unique)]);
    }

    /// Makes the kernel forget what it knows of an inode: attributes, and data from `offset` on
    /// for `length` bytes (0: to the end) unless the offset is negative. An inode that the
    /// kernel does not know is no error.
    pub fn forget_inode(&self, node: u64, offset: i64, length: i64) -> Result<(), Errno> {
        let mut body = node.to_ne_bytes().to_vec();
        body.extend(offset.to_ne_bytes());
        body.extend(length.to_ne_bytes());
        self.notify(abi::NOTIFY_INVAL_INODE, &body)
    }

    /// Makes the kernel look up a name anew. A name that it does not know is no error.
    pub fn forget_entry(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        let mut body = parent.to_ne_bytes().to_vec();
        body.extend((name.len() as u32).to_ne_bytes());
        body.extend(0u32.to_ne_bytes());
        body.extend(name);
        body.push(0);
        self.notify(abi::NOTIFY_INVAL_ENTRY, &body)
    }

    /// Ends the connection: every waiting caller gets an error at once, and so does every later
    /// one. Needs no directory of the control file system to be mounted.
    pub fn abort(&self) -> Result<(), Errno> {
        let control = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(control.as_fd())?;
        let root =
            fsmount(control.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let name = format!("{}/abort", self.number);
        match openat(&root, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => write(&file, b"1").map(|_| ()),
            // Already gone.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn notify(&self, code: i32, body: &[u8]) -> Result<(), Errno> {
        match self.write(&[&header(body.len(), -code, 0), body]) {
            Err(Errno::NOENT) => Ok(()),
            outcome => outcome,
        }
    }

    fn write(&self, parts: &[&[u8]]) -> Result<(), Errno> {
        let parts: [IoSlice<'_>; 2] = [
            IoSlice::new(parts.first().copied().unwrap_or_default()),
            IoSlice::new(parts.get(1).copied().unwrap_or_default()),
        ];
        loop {
            match writev(&self.device, &parts) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// What is asked for of an offer.
fn agreeable(offered: u64) -> u64 {
    // A kernel that cannot say whose set-gid bit an ACL removes is not given ACLs to keep, nor one
    // that truncates on opening without saying whose set-id bits that removes.
    let mut wanted = WANTED;
    if offered & abi::SETXATTR_EXT == 0 {
        wanted &= !abi::POSIX_ACL;
    }
    if offered & abi::HANDLE_KILLPRIV_V2 == 0 {
        wanted &= !abi::ATOMIC_O_TRUNC;
    }
    wanted
}

/// Header of an answer, or of a notification when `unique` is 0.
fn header(body_bytes: usize, errno: i32, unique: u64) -> [u8; abi::OUT_HEADER_BYTES] {
    let length = (abi::OUT_HEADER_BYTES + body_bytes) as u32;
    let mut bytes = [0; abi::OUT_HEADER_BYTES];
    let (front, back) = bytes.split_at_mut(8);
    back.copy_from_slice(&unique.to_ne_bytes());
    front[..4].copy_from_slice(&length.to_ne_bytes());
    front[4..].copy_from_slice(&(-errno).to_ne_bytes());
    bytes
}
