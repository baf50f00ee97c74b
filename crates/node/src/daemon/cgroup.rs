//! Control groups: the one sure way to find and end everything an application started.
//!
//! Groups lie below `evenkeel/MODULE/` at the top of the cgroup2 file system, apart from the
//! daemon's own, so that ending the daemon ends nothing else.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use model::ModuleName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long killed processes may take to disappear.
const EMPTY_TIMEOUT_SECONDS: i64 = 10;

/// A control group.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of one part of a module, made if need be.
    pub(crate) fn of(module: &ModuleName, part: &str) -> io::Result<Cgroup> {
        let path = top()?.join("evenkeel").join(module.as_str()).join(part);
        fs::create_dir_all(&path).map_err(|error| named(&path, &error))?;
        Ok(Cgroup { path })
    }

    /// Those groups of a module that are there and whose names begin so.
    pub(crate) fn parts(module: &ModuleName, prefix: &str) -> io::Result<Vec<Cgroup>> {
        let directory = top()?.join("evenkeel").join(module.as_str());
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| named(&directory, &error))?,
        };
        let mut parts = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                parts.push(Cgroup { path: entry.path() });
            }
        }
        Ok(parts)
    }

    /// The file a process writes its own id to in order to join.
    pub(crate) fn members_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Whether any process is in it.
    pub(crate) fn is_populated(&self) -> bool {
        // What cannot be read may have somebody in it, unless it is gone.
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => text.lines().any(|line| line == "populated 1"),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Kills every process in it, without waiting.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let file = self.path.join("cgroup.kill");
        fs::write(&file, "1").map_err(|error| named(&file, &error))
    }

    /// Waits until no process is left in it.
    pub(crate) fn wait_empty(&self) -> io::Result<()> {
        let path = self.path.join("cgroup.events");
        let file = File::open(&path).map_err(|error| named(&path, &error))?;
        let limit = Timespec { tv_sec: EMPTY_TIMEOUT_SECONDS, tv_nsec: 0 };
        while self.is_populated() {
            let mut changed = [PollFd::new(&file, PollFlags::PRI)];
            if rustix::io::retry_on_intr(|| poll(&mut changed, Some(&limit)))? == 0 {
                let what = format!("processes in {} cannot be killed", self.path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            // Reading clears the event that was waited for.
            let mut text = String::new();
            io::Read::read_to_string(&mut &file, &mut text)?;
            io::Seek::rewind(&mut &file)?;
        }
        Ok(())
    }
}

/// Where the cgroup2 file system is mounted.
fn top() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts.lines().find_map(cgroup2_mount).ok_or_else(|| {
        io::Error::other("no cgroup2 file system is mounted; mount it at /sys/fs/cgroup")
    })
}

fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (fields, kind) = line.split_once(" - ")?;
    let point = fields.split(' ').nth(4)?;
    kind.starts_with("cgroup2 ").then(|| PathBuf::from(point))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
