//! Reading `/proc`: which process is which, and ending one for certain. A pid alone names nothing
//! for long, so every process is remembered with its start time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be confused with a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid in the pid namespace of whoever uses the lab.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// The process that has this pid now, or `None`.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = Stat::read(&PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
        Some(ProcessId { pid, start: stat.start })
    }

    /// The calling process.
    pub fn own() -> Option<ProcessId> {
        ProcessId::of(rustix::process::getpid().as_raw_pid())
    }

    /// Whether it runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        let stat = Stat::read(&PathBuf::from(format!("/proc/{}/stat", self.pid)));
        stat.is_ok_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'))
    }

    /// A descriptor for it, or `None` when it is gone.
    pub fn open(self) -> Option<OwnedFd> {
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: the descriptor is of the process that was alive just now.
        self.is_alive().then_some(fd)
    }

    /// Sends a signal; says whether there was somebody to receive it.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let fd = self.open();
        fd.is_some_and(|fd| rustix::process::pidfd_send_signal(fd, signal).is_ok())
    }

    /// A file of its directory in `/proc`.
    pub(crate) fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// Kills all of `processes`, waits until they are gone, and reaps those that are our children.
pub(crate) fn kill_and_wait(processes: &[ProcessId]) -> io::Result<()> {
    let open: Vec<(ProcessId, OwnedFd)> =
        processes.iter().filter_map(|process| Some((*process, process.open()?))).collect();
    for (_, fd) in &open {
        match rustix::process::pidfd_send_signal(fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (_, fd) in &open {
        wait_readable(fd)?;
    }
    for process in processes {
        reap(*process);
    }
    Ok(())
}

/// Takes the exit status of a dead child, so that no zombie remains; nothing if it is not ours.
pub(crate) fn reap(process: ProcessId) {
    if let Some(pid) = Pid::from_raw(process.pid) {
        // Not our child, or already reaped: then there is nothing to do.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    }
}

fn wait_readable(fd: &OwnedFd) -> io::Result<()> {
    loop {
        let mut poll = [PollFd::new(fd, PollFlags::IN)];
        match rustix::event::poll(&mut poll, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What `/proc/PID/stat` and its like for threads tell.
pub(crate) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub state: char,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    pub(crate) fn read(path: &Path) -> io::Result<Stat> {
        let text = fs::read_to_string(path)?;
        Stat::parse(&text).ok_or_else(|| io::Error::other(format!("{}: odd form", path.display())))
    }

    /// The command may hold blanks and parentheses, so fields are counted from its end.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        Some(Stat { state, start: fields.get(19)?.parse().ok()? })
    }
}

/// The arguments of a process; empty for zombies and kernel threads.
pub(crate) fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// All processes in the pid namespace whose pid 1 is `init`, itself included.
pub(crate) fn in_namespace_of(init: ProcessId) -> Vec<i32> {
    let Ok(namespace) = fs::read_link(init.path("ns/pid")) else {
        return Vec::new();
    };
    let same = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == namespace)
    };
    all_pids().into_iter().filter(same).collect()
}

/// The pid out here of the process that has `inner` as its pid in the host of `init`.
pub(crate) fn outside_pid(init: ProcessId, inner: i32) -> Option<i32> {
    in_namespace_of(init).into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        pids.and_then(|pids| pids.split_ascii_whitespace().last()?.parse().ok()) == Some(inner)
    })
}

fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4 0 0 0 0 1 2 0 0 20 0 1 0 4711 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.start), ('S', 4711));
    }

    #[test]
    fn the_own_process_is_alive_and_another_start_time_is_not() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start: own.start + 1, ..own }.is_alive());
    }
}
