//! `lab-enter PID [--cgroup DIR] [--user NAME] [--cwd DIR] -- COMMAND...`: runs a command inside
//! the host whose pid 1 is PID. A program of its own because only a process with one thread can
//! join a mount and a pid namespace. It passes on input, output and exit code, nothing else.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, PidfdFlags};
use rustix::thread::ThreadNameSpaceType;

use crate::{cgroup, user};

/// The hidden subcommand that enters a host.
pub(crate) const COMMAND: &str = "lab-enter";
/// Exit code when the command could not be started, as in shells.
const CANNOT_START: u8 = 127;

/// Runs the command that `args` (without `lab-enter` itself) ask for and returns its exit code;
/// 128 + N if it died by signal N, 127 if it could not be started.
pub fn run(args: Vec<OsString>) -> ExitCode {
    match parse(args).and_then(|plan| plan.run()) {
        Ok(status) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            // Nothing can be done when even standard error is gone.
            let _ = writeln!(io::stderr(), "lab-enter: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

struct Plan {
    pid: Pid,
    cgroup: Option<PathBuf>,
    user: String,
    cwd: Option<PathBuf>,
    command: Vec<OsString>,
}

fn parse(args: Vec<OsString>) -> io::Result<Plan> {
    let usage = || io::Error::other("usage: lab-enter PID [--cgroup DIR] [--user NAME] -- COMMAND");
    let mut args = args.into_iter();
    let pid = args.next().and_then(|pid| Pid::from_raw(pid.to_str()?.parse().ok()?));
    let mut plan = Plan {
        pid: pid.ok_or_else(usage)?,
        cgroup: None,
        user: "root".to_owned(),
        cwd: None,
        command: Vec::new(),
    };
    while let Some(option) = args.next() {
        match option.to_str() {
            Some("--") => {
                plan.command = args.collect();
                break;
            }
            Some("--cgroup") => plan.cgroup = Some(args.next().ok_or_else(usage)?.into()),
            Some("--cwd") => plan.cwd = Some(args.next().ok_or_else(usage)?.into()),
            Some("--user") => {
                let name = args.next().and_then(|name| name.into_string().ok());
                plan.user = name.ok_or_else(usage)?;
            }
            Some(_) | None => return Err(usage()),
        }
    }
    if plan.command.is_empty() { Err(usage()) } else { Ok(plan) }
}

impl Plan {
    fn run(self) -> io::Result<ExitStatus> {
        let host = rustix::process::pidfd_open(self.pid, PidfdFlags::empty())?;
        if let Some(cgroup) = &self.cgroup {
            std::fs::create_dir_all(cgroup)?;
            cgroup::join(cgroup)?;
        }
        let namespaces = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::CONTROL_GROUP;
        rustix::thread::move_into_thread_name_spaces(host.as_fd(), namespaces)?;
        let user = user::find(&self.user)?;
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(user::environment(&user));
        command.current_dir(self.cwd.unwrap_or_else(|| "/".into()));
        if user.uid != 0 {
            command.uid(user.uid).gid(user.gid);
        }
        let named = |error: io::Error| {
            let program = program.display();
            io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
        };
        command.status().map_err(named)
    }
}
