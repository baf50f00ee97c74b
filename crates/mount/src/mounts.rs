//! Mounts around a replicated directory: those below it, the read-only bind of a secondary, and
//! what a crash left behind.
//!
//! It never mounts FUSE itself, and it touches no mount that is not at the very path it is given.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::backing::{Root, stat};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u64,
    parent: u64,
    pub(crate) device: Vec<u8>,
    /// What of its file system it shows.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    pub(crate) read_only: bool,
    /// The group whose mounts it takes part in, and the one that it follows.
    pub(crate) shared: Option<u64>,
    pub(crate) master: Option<u64>,
    kind: Vec<u8>,
    /// What is mounted: the device, of a file system that has one.
    pub(crate) source: Vec<u8>,
}

/// Mount points strictly below a directory.
pub fn below(path: &Path) -> Result<Vec<PathBuf>, Errno> {
    let path = canonical(path)?;
    let mounts = mounts()?.into_iter().map(|mount| mount.point);
    Ok(mounts.filter(|point| *point != path && point.starts_with(&path)).collect())
}

/// Lays a read-only view of the directory over itself: reads stay native and coherent, writes
/// fail with `EROFS`. Does nothing when it is there already.
pub fn read_only_bind(path: &Path, root: &Root) -> Result<(), Errno> {
    if has_read_only_bind(path, root)? {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = rustix::mount::open_tree(root, "", flags)?;
    set_read_only(view.as_fd())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&view, "", CWD, path, flags)
}

/// Whether the read-only view is what `path` shows.
pub fn has_read_only_bind(path: &Path, root: &Root) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let seen = rustix::fs::statx(&top, "", how, StatxFlags::INO | StatxFlags::MNT_ID)?;
    let device = rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor);
    let below = root.stat();
    if (device, seen.stx_ino) != (below.dev, below.ino) || stat(&top)?.mount == below.mount {
        return Ok(false);
    }
    Ok(rustix::fs::fstatvfs(&top)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Takes the read-only view away. Does nothing when it is not there.
pub fn undo_read_only_bind(path: &Path, root: &Root) -> Result<(), Errno> {
    if has_read_only_bind(path, root)? {
        rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// Removes what a crashed process left at `path`: FUSE mounts of ours without a server, and
/// read-only views of a directory over itself. A mount that is being served stays. Returns what
/// was removed, in words.
pub fn remove_leftovers(path: &Path) -> Result<Vec<String>, Errno> {
    let path = canonical(path)?;
    let mut removed = Vec::new();
    loop {
        let mounts = mounts()?;
        let Some(top) = topmost(&mounts, &path) else {
            return Ok(removed);
        };
        let what = if top.kind == fuse::FILE_SYSTEM_TYPE.as_bytes() && is_dead(&path) {
            "a mount without a server"
        } else if is_bind_over_itself(top, &mounts) {
            "a read-only view"
        } else {
            return Ok(removed);
        };
        rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        removed.push(format!("{what} at {}", path.display()));
    }
}

/// The mount that a look at `path` ends in, when there is one right there. Mounts that were made
/// at one point lie on each other, each the parent of the next.
fn topmost<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let here = || mounts.iter().filter(|mount| mount.point == path);
    here().find(|mount| here().all(|other| other.parent != mount.id))
}

fn is_bind_over_itself(top: &Mount, mounts: &[Mount]) -> bool {
    let Some(under) = mounts.iter().find(|mount| mount.id == top.parent) else {
        return false;
    };
    let within = top.point.strip_prefix(&under.point).ok();
    let covered = within.map(|rest| match rest == Path::new("") {
        true => under.root.clone(),
        false => under.root.join(rest),
    });
    top.read_only && top.device == under.device && covered.as_ref() == Some(&top.root)
}

fn is_dead(path: &Path) -> bool {
    let how = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let seen = rustix::fs::statx(CWD, path, how, StatxFlags::BASIC_STATS);
    matches!(seen, Err(Errno::NOTCONN))
}

/// The path as mountinfo shows it. Only the directory above is resolved, as the last component
/// may be a mount without a server.
fn canonical(path: &Path) -> Result<PathBuf, Errno> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => {
            let above = if above == Path::new("") { Path::new(".") } else { above };
            Ok(above.canonicalize().map_err(failed)?.join(name))
        }
        _ => path.canonicalize().map_err(failed),
    }
}

pub(crate) fn mounts() -> Result<Vec<Mount>, Errno> {
    mounts_of(Path::new("/proc/self"))
}

/// What is mounted in the namespace of a process, by its directory in /proc.
pub(crate) fn mounts_of(process: &Path) -> Result<Vec<Mount>, Errno> {
    let text = std::fs::read(process.join("mountinfo"))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

pub(crate) fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next()?.to_vec();
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let read_only = fields.next()?.split(|byte| *byte == b',').any(|option| option == b"ro");
    // Optional fields end with a dash.
    let (mut shared, mut master) = (None, None);
    for field in fields.by_ref().take_while(|field| *field != b"-") {
        shared = shared.or(field.strip_prefix(b"shared:").and_then(number));
        master = master.or(field.strip_prefix(b"master:").and_then(number));
    }
    let kind = fields.next()?.to_vec();
    let source = unescape(fields.next()?).into_os_string().into_vec();
    Some(Mount { id, parent, device, root, point, read_only, shared, master, kind, source })
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[allow(unsafe_code, reason = "mount_setattr has no safe wrapper")]
fn set_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the empty name and the attributes are live for the length of the call, and the size
    // given is that of the attributes.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn mount(line: &str) -> Mount {
        parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn lines_of_mountinfo_are_read() {
        let read = mount("36 35 98:0 /mnt1 /mnt\\0402\\134 ro,noatime master:1 - fuse.x /dev/r rw");
        assert_eq!((read.id, read.parent, read.read_only), (36, 35, true));
        assert_eq!(read.root, Path::new("/mnt1"));
        assert_eq!(read.point.as_os_str(), OsStr::from_bytes(b"/mnt 2\\"));
        assert_eq!((&read.kind[..], read.shared, read.master), (&b"fuse.x"[..], None, Some(1)));
        assert_eq!(read.source, b"/dev/r");
        assert_eq!(parse(b"36 35 98:0 /mnt1"), None);
    }

    #[test]
    fn a_view_of_another_directory_is_not_ours() {
        let under = mount("20 1 254:0 / / rw - ext4 /dev/vda rw");
        let ours = mount("30 20 254:0 /srv/a /srv/a ro - ext4 /dev/vda rw");
        let other = mount("31 20 254:0 /srv/b /srv/a ro - ext4 /dev/vda rw");
        let writable = mount("32 20 254:0 /srv/a /srv/a rw - ext4 /dev/vda rw");
        let all = [under.clone(), ours.clone()];
        assert!(is_bind_over_itself(&ours, &all));
        assert!(!is_bind_over_itself(&other, &all));
        assert!(!is_bind_over_itself(&writable, &all));
        assert_eq!(topmost(&all, Path::new("/srv/a")), Some(&ours));
        assert_eq!(topmost(&all, Path::new("/srv")), None);
    }
}
