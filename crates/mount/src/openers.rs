//! Programs that would change a directory past whatever is mounted over it: with a file open for
//! writing, or a working or root directory below, from before.
//!
//! Nothing here waits for a program or a file system: links are read, never followed to the end.
//! What is only mapped is not looked for, as asking for mappings may wait for a stuck process.

use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags, fstatvfs, makedev, openat, statx,
};
use rustix::io::Errno;

use crate::backing::Root;

/// A program, and what it has below the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// Its process id.
    pub pid: u32,
    /// What it is called.
    pub name: String,
    /// What it has there.
    pub has: Has,
}

/// What a program has below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Has {
    /// A file open for writing.
    File(PathBuf),
    /// Its working directory.
    WorkingDirectory(PathBuf),
    /// Its root directory.
    RootDirectory(PathBuf),
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opener { pid, name, has } = self;
        match has {
            Has::File(path) => write!(f, "{name} (pid {pid}) writes to {}", path.display()),
            Has::WorkingDirectory(path) => {
                write!(f, "{name} (pid {pid}) has its working directory in {}", path.display())
            }
            Has::RootDirectory(path) => {
                write!(f, "{name} (pid {pid}) has its root directory in {}", path.display())
            }
        }
    }
}

/// Programs other than this one that would change the directory `path` past a mount over it.
///
/// Paths are compared, as the programs see them, and devices; what is mounted read-only is left
/// out. Processes that end meanwhile, or may not be looked at, are not among them.
pub fn openers(path: &Path) -> Result<Vec<Opener>, Errno> {
    let root = Root::open(path)?;
    let path = fs::canonicalize(path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let place = Place { path, device: root.stat().dev };
    let mut found = Vec::new();
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| *pid != own) {
            place.look_at(pid, &entry.path(), &mut found);
        }
    }
    found.sort_by_key(|opener| opener.pid);
    Ok(found)
}

struct Place {
    path: PathBuf,
    device: u64,
}

impl Place {
    fn look_at(&self, pid: u32, process: &Path, found: &mut Vec<Opener>) {
        let name = || {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            name.trim_end().to_owned()
        };
        let mut add = |has| found.push(Opener { pid, name: name(), has });
        if let Some(path) = self.leads_here(&process.join("cwd")) {
            add(Has::WorkingDirectory(path));
        }
        if let Some(path) = self.leads_here(&process.join("root")) {
            add(Has::RootDirectory(path));
        }
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let info = process.join("fdinfo").join(entry.file_name());
            if let Some(path) = self.leads_here(&entry.path())
                && is_writable(&fs::read_to_string(info).unwrap_or_default())
            {
                add(Has::File(path));
                return;
            }
        }
    }

    /// Where a link of /proc leads to, if that is below here on the same device and not mounted
    /// read-only.
    fn leads_here(&self, link: &Path) -> Option<PathBuf> {
        let path = fs::read_link(link).ok()?;
        if !path.starts_with(&self.path) {
            return None;
        }
        // Of another file system's server nothing is asked.
        let target = openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let seen = statx(&target, "", how, StatxFlags::empty()).ok()?;
        if makedev(seen.stx_dev_major, seen.stx_dev_minor) != self.device {
            return None;
        }
        let mounted = fstatvfs(target.as_fd()).ok()?;
        (!mounted.f_flag.contains(StatVfsMountFlags::RDONLY)).then_some(path)
    }
}

/// Whether a descriptor is open for writing, by its line `flags:` in octal.
fn is_writable(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags
        .is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};

    use super::*;

    fn program(script: &str, at: &Path) -> std::process::Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{script}; echo ready; read end")])
            .current_dir(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child
    }

    #[test]
    fn who_writes_or_works_below_is_found_and_who_reads_is_not() {
        let base = std::env::temp_dir().join(format!("evenkeel-openers-{}", std::process::id()));
        let (place, beside) = (base.join("place"), base.join("place-beside"));
        fs::create_dir_all(place.join("below")).unwrap();
        fs::create_dir_all(&beside).unwrap();
        let file = place.join("below/file");
        File::create(&file).unwrap();
        let shown = file.display();
        let mut reader = program(&format!("exec 7< {shown}"), &beside);
        assert_eq!(openers(&place), Ok(Vec::new()));
        let mut writer = program(&format!("exec 7<> {shown}"), &beside);
        let mut worker = program("true", &place.join("below"));
        let found = openers(&place).unwrap();
        let has = |pid: u32| {
            found.iter().find(|opener| opener.pid == pid).map(|opener| opener.has.clone())
        };
        assert_eq!(has(writer.id()), Some(Has::File(file.clone())));
        assert_eq!(has(worker.id()), Some(Has::WorkingDirectory(place.join("below"))));
        assert_eq!((has(reader.id()), found.len()), (None, 2));
        let sentence = format!("sh (pid {}) writes to {shown}", writer.id());
        assert!(found.iter().any(|opener| opener.to_string() == sentence), "{found:?}");
        for child in [&mut reader, &mut writer, &mut worker] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
