//! The system calls that no safe wrapper offers, one small function each. No policy: callers
//! decide what a failure means.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The namespaces that make a host.
const HOST_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWCGROUP;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// Drop everything that is not on disk, the journal's unwritten part included.
const SHUTDOWN_NO_LOG_FLUSH: u32 = 2;

/// Moves the calling, single-threaded process into new namespaces of its own. Its pid namespace
/// applies to its next child.
#[allow(unsafe_code, reason = "unshare is not wrapped safely")]
pub(crate) fn unshare_host() -> io::Result<()> {
    // SAFETY: unshare takes no pointers. The file table is not unshared, and the process has one
    // thread, so no descriptor or lock of another thread changes its meaning.
    check(unsafe { libc::unshare(HOST_NAMESPACES) }).map(drop)
}

/// Gives the children that the calling process will have clocks of their own. Call it before the
/// first of them exists, for after that they cannot be set.
#[allow(unsafe_code, reason = "unshare is not wrapped safely")]
pub(crate) fn unshare_clocks() -> io::Result<()> {
    // SAFETY: unshare takes no pointers, and the caller's own clocks stay as they are.
    check(unsafe { libc::unshare(libc::CLONE_NEWTIME) }).map(drop)
}

/// Forks a child whose parent is the caller's parent. Returns `None` in the child, its pid in the
/// caller. The caller must be single-threaded and the child must soon execute a program.
#[allow(unsafe_code, reason = "no safe wrapper knows CLONE_PARENT")]
pub(crate) fn fork_sibling() -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: like fork(2): no stack and no thread pointers are passed, so parent and child go on
    // with copies of everything; no other thread exists whose locks the child could inherit held.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that becomes readable when a child changes state; blocks SIGCHLD's usual delivery.
#[allow(unsafe_code, reason = "signalfd is not wrapped safely")]
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is a plain value that sigemptyset initialises before anyone reads it, and the
    // descriptor returned belongs to nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut set))?;
        check(libc::sigaddset(&raw mut set, libc::SIGCHLD))?;
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Takes over a descriptor that the program inherited under a known number.
#[allow(unsafe_code, reason = "a number from the command line is turned into a descriptor")]
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer; it fails when the number is not an open descriptor.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the number is open, and only the command line of our own earlier stage names it, so
    // nothing else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of a loop device that is free at this moment.
#[allow(unsafe_code, reason = "ioctl")]
pub(crate) fn loop_free(control: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: this request takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
}

/// Puts `image` behind a free loop device; the device lets go of it with its last user.
#[allow(unsafe_code, reason = "ioctl")]
pub(crate) fn loop_configure(device: BorrowedFd<'_>, image: BorrowedFd<'_>) -> io::Result<()> {
    /// `struct loop_config` of the kernel, with `lo_flags` at its place inside `loop_info64`.
    #[repr(C)]
    struct LoopConfig {
        fd: u32,
        block_size: u32,
        info_before_flags: [u64; 5],
        info_number_and_keys: [u32; 3],
        flags: u32,
        info_after_flags: [u64; 22],
        reserved: [u64; 8],
    }
    let config = LoopConfig {
        fd: u32::try_from(image.as_raw_fd()).unwrap_or(u32::MAX),
        block_size: 0,
        info_before_flags: [0; 5],
        info_number_and_keys: [0; 3],
        flags: LO_FLAGS_AUTOCLEAR,
        info_after_flags: [0; 22],
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads exactly `struct loop_config`, 304 bytes, which `config` is at least.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// Takes the image from a loop device, at once or when its last user lets go.
#[allow(unsafe_code, reason = "ioctl")]
pub(crate) fn loop_clear(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) }).map(drop)
}

/// Ends a file system as a loss of power does: nothing more reaches its disk.
#[allow(unsafe_code, reason = "ioctl")]
pub(crate) fn shut_down_file_system(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = SHUTDOWN_NO_LOG_FLUSH;
    // SAFETY: the kernel reads one u32 through the pointer, which outlives the call.
    check(unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
