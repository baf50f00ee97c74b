//! The programs that run for a module's commands, which a daemon that follows this one finds again.
//!
//! A process id alone is no identity, as ids are used again; with the time at which the process
//! began it is. Whatever runs is held by a descriptor of its own, and only by that it is signalled,
//! waited for and taken from the table of processes. Whether a program's death matters is not
//! judged here.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;

use model::ModuleName;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};
use serde::{Deserialize, Serialize};

use crate::durable;

/// The programs of a module.
pub(crate) struct Programs {
    file: PathBuf,
    running: Vec<Program>,
}

/// A program that was started and not stopped.
pub(crate) struct Program {
    /// Its command.
    pub(crate) name: ModuleName,
    pub(crate) pid: Pid,
    pub(crate) handle: Arc<OwnedFd>,
    began: u64,
    /// How it ended, once that was told: it is told once.
    ended: Option<String>,
}

/// A program as a following daemon must know it.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    name: ModuleName,
    pid: i32,
    began: u64,
}

impl Programs {
    /// Those that an earlier daemon of this boot started and that still run.
    pub(crate) fn find(file: PathBuf) -> Programs {
        // Without the file they are not found, and count as dead: they are started again.
        let noted: Vec<Noted> = durable::read(&file).ok().flatten().unwrap_or_default();
        let running = noted.into_iter().filter_map(adopt).collect();
        Programs { file, running }
    }

    /// Takes up one that was started just now; one that cannot be held is killed.
    pub(crate) fn add(&mut self, name: ModuleName, child: Child) -> io::Result<()> {
        let pid = Pid::from_child(&child);
        let handle = Arc::new(hold(child)?);
        let began = start_time(pid).unwrap_or(0);
        self.running.push(Program { name, pid, handle, began, ended: None });
        // It runs. Only a daemon that follows does not find it then, and starts it again.
        self.complain();
        Ok(())
    }

    /// The one of a command.
    pub(crate) fn of(&mut self, name: &ModuleName) -> Option<&mut Program> {
        self.running.iter_mut().find(|program| program.name == *name)
    }

    /// Their processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.running.iter().map(|program| program.pid).collect()
    }

    /// Hands all of them over to be stopped.
    pub(crate) fn take(&mut self) -> Vec<Program> {
        let programs = std::mem::take(&mut self.running);
        if !programs.is_empty() {
            self.complain();
        }
        programs
    }

    fn complain(&self) {
        if let Err(error) = self.note() {
            eprintln!("! the programs that run cannot be noted: {}: {error}", self.file.display());
        }
    }

    fn note(&self) -> io::Result<()> {
        let noted = |program: &Program| Noted {
            name: program.name.clone(),
            pid: program.pid.as_raw_nonzero().get(),
            began: program.began,
        };
        durable::write(&self.file, &self.running.iter().map(noted).collect::<Vec<Noted>>())
    }
}

impl Program {
    /// How it ended; nothing while it runs.
    pub(crate) fn end(&mut self) -> Option<String> {
        if self.ended.is_none() {
            self.ended = match reap(&self.handle) {
                Ok(status) => status.map(|status| status.to_string()),
                // Only a parent is told.
                Err(Errno::CHILD) => Some(
                    "an earlier daemon had started it, so its exit status is unknown".to_owned(),
                ),
                Err(errno) => Some(format!("it cannot be waited for: {errno}")),
            };
        }
        self.ended.clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended leaves the table of processes; one that cannot be killed stays there.
        if self.ended.is_none() {
            let _ = reap(&self.handle);
        }
    }
}

/// Holds a process that was started just now, in place of its id. One that cannot be held is
/// killed, as nobody could find its end.
pub(crate) fn hold(mut child: Child) -> io::Result<OwnedFd> {
    let held = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    held.map_err(|errno| {
        let killed = child.kill().and_then(|()| child.wait());
        let then = killed.err().map_or("was killed".to_owned(), |error| format!("stays: {error}"));
        io::Error::other(format!("it cannot be watched ({errno}), so it {then}"))
    })
}

/// How a process ended that this one started, or nothing while it runs. It is told once, and takes
/// the process from the table.
pub(crate) fn reap(process: &OwnedFd) -> Result<Option<ExitStatus>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let ended = retry_on_intr(|| waitid(WaitId::PidFd(process.as_fd()), options))?;
    Ok(ended.map(|ended| ExitStatus::from_raw(raw(&ended))))
}

/// A status as `wait` tells it.
fn raw(ended: &WaitIdStatus) -> i32 {
    match (ended.exit_status(), ended.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if ended.dumped() => signal | 0x80,
        (None, signal) => signal.unwrap_or(0),
    }
}

fn adopt(noted: Noted) -> Option<Program> {
    let pid = Pid::from_raw(noted.pid)?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Asked after it is held, so that it is no other by now.
    (start_time(pid) == Some(noted.began)).then(|| Program {
        name: noted.name,
        pid,
        handle: Arc::new(handle),
        began: noted.began,
        ended: None,
    })
}

/// When a process began, in ticks since boot.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use std::process::Command;

    use rustix::process::{Signal, pidfd_send_signal};

    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).spawn().unwrap()
    }

    fn end(program: &mut Program) -> String {
        loop {
            match program.end() {
                Some(how) => break how,
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn the_end_of_a_program_is_known_by_its_descriptor_and_told_more_than_once() {
        // It cannot be noted there, which is no reason not to run.
        let mut programs = Programs::find(PathBuf::from("/proc/nowhere/programs.json"));
        let name = |name: &str| ModuleName::new(name).unwrap();
        programs.add(name("three"), shell("exit 3")).unwrap();
        programs.add(name("killed"), shell("exec sleep 1000")).unwrap();
        let three = programs.of(&name("three")).unwrap();
        for _ in 0..2 {
            assert_eq!(end(three), "exit status: 3");
        }
        let killed = programs.of(&name("killed")).unwrap();
        assert_eq!(killed.end(), None);
        pidfd_send_signal(&killed.handle, Signal::KILL).unwrap();
        assert_eq!(end(killed), "signal: 9 (SIGKILL)");
        assert_eq!(programs.take().len(), 2);
    }

    #[test]
    fn of_a_process_that_is_no_child_no_status_is_known() {
        let pid = rustix::process::getppid().unwrap();
        let began = start_time(pid).unwrap();
        let noted = |began| {
            let name = ModuleName::new("app").unwrap();
            adopt(Noted { name, pid: pid.as_raw_nonzero().get(), began })
        };
        assert!(noted(began + 1).is_none(), "its id was used again");
        let mut found = noted(began).unwrap();
        assert!(found.end().unwrap().contains("unknown"));
    }
}
