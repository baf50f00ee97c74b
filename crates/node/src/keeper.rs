//! The keeper of a replicator: starts it, keeps what the next one needs when it dies, and starts
//! that one.
//!
//! It is as small as can be, so that nothing in it can fail: it reads no data, writes no file and
//! takes no decision but whether there is something to go on with. The daemon knows nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use wire::local::{FromKeeper, Kept, ToKeeper};

use crate::packet;

/// Replicators in a row that may die before they have gone on.
const FUTILE_MAX: u32 = 5;
/// Deaths within `DEATHS_SPAN` after which the next one would die too.
const DEATHS_MAX: usize = 300;
const DEATHS_SPAN: Duration = Duration::from_secs(60);
/// The option by which a replicator finds its keeper.
const OPTION: &str = "--keeper";

/// How to run a keeper.
#[derive(Debug)]
pub struct KeeperOptions {
    /// Arguments of the replicator, from its program's name on.
    pub arguments: Vec<OsString>,
    /// File of the control group to join before anything is started.
    pub group: Option<PathBuf>,
}

struct Keeper {
    arguments: Vec<OsString>,
    kept: BTreeMap<Kept, OwnedFd>,
    futile: u32,
    deaths: VecDeque<Instant>,
}

/// Runs until a replicator ends with nothing to go on with; says how that ended.
pub fn run(options: KeeperOptions) -> io::Result<i32> {
    if let Some(group) = &options.group {
        std::fs::write(group, "0")?;
    }
    ignore_hangup();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let arguments = options.arguments;
    let mut keeper =
        Keeper { arguments, kept: BTreeMap::new(), futile: 0, deaths: VecDeque::new() };
    let mut ended = None;
    loop {
        let status = keeper.run_one(ended.take())?;
        if !keeper.may_go_on() {
            let signal = status.signal().map(|signal| 128 + signal);
            return Ok(status.code().or(signal).unwrap_or(1));
        }
        eprintln!("the replicator ended ({status}): another one goes on in its place");
        ended = Some(status.to_string());
    }
}

/// The end of the daemon hangs up on whoever stands still at that moment, as its group has lost its
/// way to a terminal then. A session of its own would do too, but schedulers give each session a
/// share, and a replicator that takes turns with the application's threads would wait for its own.
#[allow(unsafe_code, reason = "ignoring a signal has no safe wrapper")]
fn ignore_hangup() {
    // SAFETY: it only sets the disposition, which replicators inherit.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

impl Keeper {
    /// Runs one replicator to its end.
    fn run_one(&mut self, ended: Option<String>) -> io::Result<ExitStatus> {
        let (ours, mut child) = self.spawn()?;
        // One that cannot be told what was kept ends by itself.
        let _ = self.hand_over(&ours, ended);
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
        let death = pidfd_open(pid, PidfdFlags::empty())?;
        let mut open = true;
        loop {
            let interest = if open { PollFlags::IN } else { PollFlags::empty() };
            let mut waits = [PollFd::new(&death, PollFlags::IN), PollFd::new(&ours, interest)];
            rustix::io::retry_on_intr(|| poll(&mut waits, None))?;
            let (died, said) = (!waits[0].revents().is_empty(), !waits[1].revents().is_empty());
            if open && said {
                // Also what a dead one has said last.
                match packet::receive::<ToKeeper>(&ours) {
                    Ok(Some((message, descriptor))) => self.take(message, descriptor),
                    Ok(None) | Err(_) => open = false,
                }
            } else if died {
                return child.wait();
            }
        }
    }

    fn spawn(&self) -> io::Result<(OwnedFd, Child)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let number = theirs.as_raw_fd().to_string();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("evenkeel").args(&self.arguments).args([OPTION, &number]);
        // Its standard input, the daemon's way to it, is the keeper's own.
        Ok((ours, command.spawn()?))
    }

    fn hand_over(&self, to: &OwnedFd, ended: Option<String>) -> io::Result<()> {
        for (kept, descriptor) in &self.kept {
            packet::send(to, &FromKeeper::Kept(*kept), Some(descriptor.as_fd()))?;
        }
        packet::send(to, &FromKeeper::All { ended }, None)
    }

    fn take(&mut self, message: ToKeeper, descriptor: Option<OwnedFd>) {
        match (message, descriptor) {
            (ToKeeper::Keep(kept), Some(descriptor)) => drop(self.kept.insert(kept, descriptor)),
            (ToKeeper::Keep(_), None) => {}
            (ToKeeper::LetGo(kept), _) => drop(self.kept.remove(&kept)),
            (ToKeeper::LetGoAll, _) => self.kept.clear(),
            (ToKeeper::Resumed, _) => self.futile = 0,
        }
    }

    /// Whether another replicator is to go on where one has ended.
    fn may_go_on(&mut self) -> bool {
        if !self.kept.contains_key(&Kept::Memory) {
            return false;
        }
        let now = Instant::now();
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|at| now.duration_since(*at) > DEATHS_SPAN) {
            self.deaths.pop_front();
        }
        self.futile += 1;
        let may = self.futile <= FUTILE_MAX && self.deaths.len() <= DEATHS_MAX;
        if !may {
            eprintln!("replicators keep dying: the last one of them has no successor");
        }
        may
    }
}
