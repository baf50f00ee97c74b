//! A program whose exit status is the finding. What it writes last is kept as evidence.
//!
//! It runs in a control group of its own: whatever it started is ended with it, also what has left
//! its process group, and the end of the application does not end it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use model::{ModuleName, Time};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Finding, Turn, is_ready};
use crate::clock;
use crate::daemon::application::{as_user, join_before_exec};
use crate::daemon::cgroup::Cgroup;

/// How much of what it writes is kept.
const KEPT_BYTES: usize = 4096;
/// How many of its last lines are evidence.
const EVIDENCE_LINES: usize = 5;
/// Longest line of evidence, in characters.
const LINE_CHARS_MAX: usize = 300;

/// A program that runs.
pub(super) struct Run {
    child: Child,
    handle: OwnedFd,
    /// What it writes, until it has closed that.
    output: Option<std::fs::File>,
    said: Vec<u8>,
    group: Cgroup,
    began: Time,
    limit: Time,
    killed: bool,
}

impl Run {
    pub(super) fn begin(
        module: &ModuleName,
        check: &ModuleName,
        run: &[String],
        user: Option<&str>,
        limit: Time,
    ) -> io::Result<Run> {
        let (program, arguments) =
            run.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let group = Cgroup::of(module, &format!("check-{check}"))?;
        let members = group.members_file();
        let mut members = std::fs::OpenOptions::new().write(true).open(members)?;
        let (output, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command: Command = as_user(Path::new(program), user);
        command
            .args(arguments)
            .env("EVENKEEL_MODULE", module.as_str())
            .env("EVENKEEL_CHECK", check.as_str())
            .stdin(Stdio::null())
            .stdout(theirs.try_clone()?)
            .stderr(theirs)
            .current_dir("/");
        join_before_exec(&mut command, move || members.write_all(b"0"));
        let child = command.spawn();
        let child =
            child.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        // The program's own end goes on blocking.
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
        let (output, said) = (Some(output.into()), Vec::new());
        let began = clock::now();
        Ok(Run { child, handle, output, said, group, began, limit, killed: false })
    }

    pub(super) fn turn(&mut self, now: Time) -> Turn {
        match self.ended(now) {
            Ended::Not => Turn::Waits,
            Ended::Overrun => {
                let span = whole_ms(self.limit.since(self.began));
                let words = format!("it had not ended after {span:?} and was killed");
                Turn::Tells(Finding::Failed(self.words(words)))
            }
            Ended::Killed => Turn::Ends(None),
            Ended::With(Ok(status)) if status.success() => Turn::Ends(Some(Finding::Well)),
            Ended::With(Ok(status)) => {
                Turn::Ends(Some(Finding::Failed(self.words(format!("it ended with {status}")))))
            }
            Ended::With(Err(error)) => {
                let words = format!("it cannot be waited for: {error}");
                Turn::Ends(Some(Finding::Failed(self.words(words))))
            }
        }
    }

    /// What has become of it. One that is over its limit is killed.
    pub(super) fn ended(&mut self, now: Time) -> Ended {
        self.listen();
        if is_ready(&self.handle, PollFlags::IN) {
            let status = self.child.wait();
            self.listen();
            // What it left running is nobody's.
            let _ = self.group.kill();
            return if self.killed { Ended::Killed } else { Ended::With(status) };
        }
        if self.killed || now < self.limit {
            return Ended::Not;
        }
        self.kill();
        Ended::Overrun
    }

    pub(super) fn kill(&mut self) {
        self.killed = true;
        // One that has ended by itself is as good.
        let _ = self.group.kill();
        let _ = self.child.kill();
    }

    /// What it wrote last.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        all.push((self.handle.as_fd(), PollFlags::IN));
        all.extend(self.output.iter().map(|output| (output.as_fd(), PollFlags::IN)));
    }

    /// When the next turn is due at the latest; none once it is killed and only has to die.
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.killed).then_some(self.limit)
    }

    fn listen(&mut self) {
        let mut block = [0; KEPT_BYTES];
        // No more than a turn's worth, as one that writes without end must not hold up the others.
        for _ in 0..16 {
            let Some(output) = &mut self.output else { break };
            match output.read(&mut block) {
                Ok(0) => self.output = None,
                Ok(count) => self.said.extend_from_slice(&block[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.output = None,
            }
        }
        let surplus = self.said.len().saturating_sub(KEPT_BYTES);
        self.said.drain(..surplus);
    }

    fn words(&self, first: String) -> Vec<String> {
        let said = self.said();
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(EVIDENCE_LINES);
        let said = lines.into_iter().skip(from).map(|line| {
            let line: String = line.trim().chars().take(LINE_CHARS_MAX).collect();
            format!("it said: {line}")
        });
        std::iter::once(first).chain(said).collect()
    }
}

/// What has become of a program.
pub(super) enum Ended {
    Not,
    /// It was over its limit just now.
    Overrun,
    /// It was killed, and is gone.
    Killed,
    With(io::Result<ExitStatus>),
}

fn whole_ms(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
