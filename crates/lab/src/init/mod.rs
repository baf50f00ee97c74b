//! Pid 1 of a host: how it comes to be. `lab-init DIR` makes the namespaces and forks the real
//! pid 1 as a child of whoever started it; that one, `lab-init DIR pid1 ...`, builds the host's
//! view of the file system and then obeys requests or executes systemd. It takes no decisions.

mod mounts;
pub(crate) use mounts::{at, own_mount};
mod serve;
mod systemd;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::io::FdFlags;

use crate::options::InitKind;
use crate::protocol::{self, Boot, BootReport};
use crate::{cgroup, sys};

/// The hidden subcommand that runs an init.
pub(crate) const COMMAND: &str = "lab-init";

/// Runs the init that the command line asks for; the process must have no other thread.
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip_while(|arg| arg != COMMAND).skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        [dir] => begin(Path::new(dir)),
        [dir, "pid1", fds @ ..] => pid_1(Path::new(dir), fds),
        _ => Err(io::Error::other("lab-init is started by the lab only")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&BootReport::Failed(error.to_string()));
            // The lab keeps this in the host's init.log.
            let _ = writeln!(io::stderr(), "lab-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What pid 1 inherits, opened while the machine's own paths were still in sight.
struct Inherited {
    /// The host's directory, with its images and logs.
    dir: OwnedFd,
    listener: UnixListener,
    /// The process with which the host ends.
    owner: Option<OwnedFd>,
}

/// First stage: opens what the private mounts will hide, makes the namespaces, forks pid 1.
fn begin(path: &Path) -> io::Result<()> {
    let boot = read_boot(path)?;
    let dir = protocol::open_dir(path)?;
    let listener = protocol::listen(&dir)?;
    let owner = match boot.owner {
        None => None,
        Some(owner) => Some(owner.open().ok_or_else(|| io::Error::other("the owner is gone"))?),
    };
    if let Some(cgroup) = &boot.cgroup {
        cgroup::join(cgroup)?;
    }
    sys::unshare_host().map_err(explain("cannot make namespaces"))?;
    if boot.spec.boot_clock_ahead > 0 {
        set_clocks(boot.spec.boot_clock_ahead).map_err(explain("cannot set its clocks"))?;
    }
    let Some(pid) = sys::fork_sibling()? else {
        return Err(become_pid_1(path, &boot, &Inherited { dir, listener, owner }));
    };
    report(&BootReport::Pid(pid));
    match (boot.spec.init, owner) {
        (InitKind::Systemd, Some(owner)) => systemd::watch(pid, &owner, boot.cgroup.as_deref()),
        (InitKind::Tiny | InitKind::Systemd, _) => Ok(()),
    }
}

/// Sets the clocks of the coming pid 1 and its descendants.
fn set_clocks(seconds_ahead: u32) -> io::Result<()> {
    sys::unshare_clocks()?;
    let offsets = format!("monotonic {seconds_ahead} 0\nboottime {seconds_ahead} 0\n");
    fs::write("/proc/self/timens_offsets", offsets)
}

/// Executes the second stage, so that pid 1 is a program of its own and not half a copy.
fn become_pid_1(path: &Path, boot: &Boot, inherited: &Inherited) -> io::Error {
    let mut command = Command::new(&boot.binary);
    command.arg(COMMAND).arg(path).arg("pid1");
    let owner = inherited.owner.as_ref().map(AsRawFd::as_raw_fd);
    let fds = [inherited.dir.as_raw_fd(), inherited.listener.as_raw_fd()];
    for fd in fds.into_iter().chain(owner) {
        command.arg(fd.to_string());
    }
    let kept = [Some(&inherited.dir), inherited.owner.as_ref()];
    for fd in kept.into_iter().flatten() {
        if let Err(error) = rustix::io::fcntl_setfd(fd, FdFlags::empty()) {
            return error.into();
        }
    }
    match rustix::io::fcntl_setfd(&inherited.listener, FdFlags::empty()) {
        Ok(()) => command.exec(),
        Err(error) => error.into(),
    }
}

/// Second stage: pid 1 of the new pid namespace.
fn pid_1(path: &Path, fds: &[&str]) -> io::Result<()> {
    let mut fds = fds.iter().map(|text| {
        let number = text.parse().map_err(|_| io::Error::other("not a descriptor"))?;
        let fd = sys::inherited(number)?;
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        io::Result::Ok(fd)
    });
    let mut next = || fds.next().unwrap_or_else(|| Err(io::Error::other("too few descriptors")));
    let dir = next()?;
    let listener = UnixListener::from(next()?);
    let owner = fds.next().transpose()?;
    let boot = read_boot(path)?;
    // A Ctrl-C at the terminal is for the lab, not for the programs on its hosts.
    rustix::process::setsid()?;
    match boot.spec.init {
        InitKind::Tiny => {
            mounts::prepare(&boot, &dir)?;
            let server = serve::Server::new(&boot, Inherited { dir, listener, owner })?;
            report(&BootReport::Ready);
            // From here on the log takes everything; the lab sees the end of the report.
            rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
            server.run()
        }
        InitKind::Systemd => systemd::boot(&boot, &dir),
    }
}

fn read_boot(dir: &Path) -> io::Result<Boot> {
    let path: PathBuf = dir.join(protocol::BOOT_FILE);
    let text = fs::read(&path).map_err(explain(&format!("cannot read {}", path.display())))?;
    Ok(serde_json::from_slice(&text)?)
}

fn report(report: &BootReport) {
    if let Ok(text) = serde_json::to_string(report) {
        // A lab that no longer listens has died; its lifeline ends us then.
        let _ = writeln!(io::stdout(), "{text}");
        let _ = io::stdout().flush();
    }
}

/// Says what was attempted, as the report of a failed boot shows it.
fn explain(what: &str) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
