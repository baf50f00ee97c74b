//! The programs that run for a module's commands, which a daemon that follows this one finds again.
//!
//! A process id alone is no identity, as ids are used again; with the time at which the process
//! began it is. Whether a program's death matters is not judged here.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use model::ModuleName;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
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
    /// None when an earlier daemon started it.
    child: Option<Child>,
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

    /// Takes up one that was started just now.
    pub(crate) fn add(&mut self, name: ModuleName, child: Child) -> io::Result<()> {
        let pid = Pid::from_child(&child);
        let handle = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        let began = start_time(pid).unwrap_or(0);
        self.running.push(Program { name, pid, handle, began, child: Some(child) });
        self.note()
    }

    /// The one of a command.
    pub(crate) fn of(&mut self, name: &ModuleName) -> Option<&mut Program> {
        self.running.iter_mut().find(|program| program.name == *name)
    }

    /// Hands all of them over to be stopped.
    pub(crate) fn take(&mut self) -> Vec<Program> {
        let programs = std::mem::take(&mut self.running);
        if !programs.is_empty()
            && let Err(error) = self.note()
        {
            eprintln!("! {}: {error}", self.file.display());
        }
        programs
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
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Some(status.to_string()),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(format!("it cannot be waited for: {error}")),
            // Only a parent is told.
            None => Some("an earlier daemon had started it, so its exit status is unknown".into()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended leaves the table of processes; one that cannot be killed stays there.
        if let Some(child) = &mut self.child {
            let _ = child.try_wait();
        }
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
        child: None,
    })
}

/// When a process began, in ticks since boot.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}
