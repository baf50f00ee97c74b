//! Children that this process has from an earlier daemon, as a daemon that starts anew goes on in
//! the same process: whoever of them ends is taken from the table of processes.
//!
//! Programs of an application are not among them: they are held, and waited for, by their own. Of
//! the others, such as keepers and scripts, nobody here knows but by what they leave.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::daemon::programs::reap;

/// Children of an earlier daemon in this process.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(Pid, OwnedFd)>);

impl Inherited {
    /// All children of this process. To be called before it starts any itself.
    pub(super) fn find() -> Inherited {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
            if parent(pid) == Some(getpid()) {
                found.push(pid);
            }
        }
        Inherited::of(found)
    }

    fn of(pids: Vec<Pid>) -> Inherited {
        // Nobody but this process can take a child from the table, so its id is not used again.
        let held = pids
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
        Inherited(held.collect())
    }

    /// Leaves those out that somebody else waits for.
    pub(super) fn except(mut self, others: &[Pid]) -> Inherited {
        self.0.retain(|(pid, _)| !others.contains(pid));
        self
    }

    /// Takes those from the table that have ended.
    pub(super) fn look(&mut self) {
        // An error says that it is no child any more.
        self.0.retain(|(_, child)| matches!(reap(child), Ok(None)));
    }
}

/// The parent of a process, if there is one with this id.
fn parent(pid: Pid) -> Option<Pid> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_has_ended_leaves_the_table_and_who_runs_stays() {
        let mut ends = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let mut runs = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut waited = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let pids = [&ends, &runs, &waited].map(Pid::from_child);
        assert!(pids.iter().all(|pid| parent(*pid) == Some(getpid())));
        let found = Inherited::find();
        assert!(pids.iter().all(|pid| found.0.iter().any(|(known, _)| known == pid)));
        let mut inherited = Inherited::of(pids.to_vec()).except(&pids[2..]);
        for child in [&mut ends, &mut waited] {
            // At its end the other side of this is closed.
            child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        }
        while inherited.0.len() > 1 {
            inherited.look();
            std::thread::yield_now();
        }
        assert_eq!(inherited.0[0].0, pids[1]);
        assert_eq!(parent(pids[0]), None, "it has left the table");
        assert_eq!(waited.wait().unwrap().code(), Some(0), "somebody else was told how it ended");
        runs.kill().unwrap();
        runs.wait().unwrap();
        inherited.look();
        assert!(inherited.0.is_empty());
    }
}
