//! The tiny init at work: it starts programs on request, reaps whatever dies, answers who waits,
//! and ends, and with it the host, when its owner ends. One loop, one thread, no timers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use super::{Inherited, explain, mounts};
use crate::options::HostSpec;
use crate::protocol::{Boot, Exit, Reply, Request, SpawnSpec};
use crate::user::{self, User};
use crate::{cgroup, sys};

/// Where a host sees its own cgroup.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Longest request accepted, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The state of a running init.
pub(super) struct Server {
    spec: HostSpec,
    inherited: Inherited,
    signals: OwnedFd,
    callers: Vec<Caller>,
    /// Programs that were started on request; `None` while they run.
    children: BTreeMap<i32, Option<Exit>>,
}

/// One connection: its request so far, or the process whose end it waits for.
struct Caller {
    stream: UnixStream,
    received: Vec<u8>,
    waits_for: Option<i32>,
    done: bool,
}

impl Server {
    pub(super) fn new(boot: &Boot, inherited: Inherited) -> io::Result<Server> {
        inherited.listener.set_nonblocking(true)?;
        Ok(Server {
            spec: boot.spec.clone(),
            inherited,
            signals: sys::child_signals()?,
            callers: Vec::new(),
            children: BTreeMap::new(),
        })
    }

    /// Serves until the owner ends.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.owner {
                return Ok(());
            }
            if ready.signals {
                self.reap()?;
            }
            for index in ready.callers {
                self.receive(index);
            }
            if ready.listener {
                self.accept();
            }
            self.callers.retain(|caller| !caller.done);
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut poll = vec![
            PollFd::new(&self.inherited.listener, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        poll.extend(self.callers.iter().map(|c| PollFd::new(&c.stream, PollFlags::IN)));
        poll.extend(self.inherited.owner.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        loop {
            match rustix::event::poll(&mut poll, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let set = |index: usize| poll.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let callers = self.callers.len();
        Ok(Ready {
            listener: set(0),
            signals: set(1),
            callers: (0..callers).filter(|index| set(2 + index)).collect(),
            owner: set(2 + callers),
        })
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.inherited.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                let received = Vec::new();
                self.callers.push(Caller { stream, received, waits_for: None, done: false });
            }
        }
    }

    fn receive(&mut self, index: usize) {
        let Some(caller) = self.callers.get_mut(index) else {
            return;
        };
        let mut buffer = [0; 4096];
        match caller.stream.read(&mut buffer) {
            Ok(0) => caller.done = true,
            Ok(length) => caller.received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => caller.done = true,
        }
        if caller.received.len() > REQUEST_BYTES_MAX {
            caller.done = true;
        }
        if caller.done || !caller.received.ends_with(b"\n") {
            return;
        }
        let request = serde_json::from_slice(&std::mem::take(&mut caller.received));
        let reply = match request {
            Ok(Request::Wait { pid }) => match self.children.get(&pid) {
                Some(Some(exit)) => Reply::Exited(*exit),
                Some(None) => {
                    self.callers[index].waits_for = Some(pid);
                    return;
                }
                None => Reply::Failed(format!("process {pid} was not started by the lab")),
            },
            Ok(request) => self.obey(request).unwrap_or_else(|e| Reply::Failed(e.to_string())),
            Err(error) => Reply::Failed(format!("not understood: {error}")),
        };
        self.callers[index].answer(&reply);
    }

    fn obey(&mut self, request: Request) -> io::Result<Reply> {
        match request {
            Request::Spawn(spec) => self.spawn(&spec),
            Request::Kill { pid, signal } => kill(pid, signal),
            Request::Wait { .. } => Err(io::Error::other("a wait is answered later")),
            Request::Detach => {
                self.inherited.owner = None;
                Ok(Reply::Done)
            }
            Request::Mount { disk } => {
                let disk = self.disk(&disk)?;
                let root = Path::new("/");
                mounts::mount_disk(root, &self.inherited.dir, &disk)?;
                mounts::binds_of(&disk, &self.spec.binds)
                    .try_for_each(|bind| mounts::mount_bind(root, bind))?;
                Ok(Reply::Done)
            }
            Request::Unmount { disk } => {
                mounts::unmount_disk(&self.disk(&disk)?, &self.spec.binds)?;
                Ok(Reply::Done)
            }
        }
    }

    fn disk(&self, name: &str) -> io::Result<crate::options::Disk> {
        let disk = self.spec.disks.iter().find(|disk| disk.name == name).cloned();
        disk.ok_or_else(|| io::Error::other(format!("there is no disk {name}")))
    }

    fn spawn(&mut self, spec: &SpawnSpec) -> io::Result<Reply> {
        let [program, arguments @ ..] = spec.argv.as_slice() else {
            return Err(io::Error::other("no program is named"));
        };
        let log = match &spec.log {
            Some(log) if log.contains('/') => {
                return Err(io::Error::other(format!("the log {log} must be a plain file name")));
            }
            Some(log) => log.clone(),
            None => {
                let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
                format!("{name}.{}.log", self.children.len())
            }
        };
        let user = user::find(spec.user.as_deref().unwrap_or("root"))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(user::environment(&user)).envs(&spec.env);
        command.current_dir(spec.cwd.as_deref().unwrap_or(Path::new("/"))).process_group(0);
        self.redirect(&mut command, &log)?;
        become_user(&mut command, &user);
        let child = within_cgroup(spec.cgroup.as_deref(), || command.spawn());
        let child = child.map_err(explain(&format!("cannot start {program}")))?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.children.insert(pid, None);
        Ok(Reply::Spawned { pid, log })
    }

    fn redirect(&self, command: &mut Command, log: &str) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let log = rustix::fs::openat(&self.inherited.dir, log, flags, mode)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        // What the descriptor holds only says that somebody died; wait tells who.
        let mut signal = [0; 128];
        while rustix::io::read(self.signals.as_fd(), &mut signal).is_ok() {}
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(dead)) => dead,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let exit = match status.terminating_signal() {
                Some(signal) => Exit::Signal(signal),
                None => Exit::Code(status.exit_status().unwrap_or(-1)),
            };
            let pid = pid.as_raw_pid();
            if let Some(child) = self.children.get_mut(&pid) {
                *child = Some(exit);
            }
            for caller in self.callers.iter_mut().filter(|c| c.waits_for == Some(pid)) {
                caller.answer(&Reply::Exited(exit));
            }
        }
    }
}

/// What may be looked at without waiting.
struct Ready {
    listener: bool,
    signals: bool,
    callers: Vec<usize>,
    owner: bool,
}

impl Caller {
    fn answer(&mut self, reply: &Reply) {
        self.done = true;
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            // A caller that went away needs no answer.
            let _ = self.stream.write_all(&line);
        }
    }
}

fn kill(pid: i32, signal: i32) -> io::Result<Reply> {
    let known = Signal::from_named_raw(signal).zip(Pid::from_raw(pid.abs()));
    let (signal, target) =
        known.ok_or_else(|| io::Error::other(format!("no signal {signal} or no process {pid}")))?;
    if pid < 0 {
        rustix::process::kill_process_group(target, signal)?;
    } else {
        rustix::process::kill_process(target, signal)?;
    }
    Ok(Reply::Done)
}

fn become_user(command: &mut Command, user: &User) {
    if user.uid != 0 {
        command.uid(user.uid).gid(user.gid);
    }
}

/// Runs `start` while this process is in the named cgroup, so that the child begins there. Nobody
/// else can be affected: init has one thread.
fn within_cgroup<T>(name: Option<&str>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(name) = name else { return start() };
    let root = Path::new(CGROUP_ROOT);
    let dir = mounts::at(root, name);
    fs::create_dir_all(&dir).map_err(explain(&format!("cannot make the cgroup {name}")))?;
    cgroup::join(&dir)?;
    let result = start();
    cgroup::join(root)?;
    result
}
