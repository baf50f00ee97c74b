//! A program whose exit status is the finding. What it writes last is kept as evidence.
//!
//! It runs in a control group of its own: whatever it started is ended with it, also what has left
//! its process group, and the end of the application does not end it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use model::{ModuleName, Time};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::{Finding, Turn, is_ready};
use crate::clock;
use crate::daemon::application::{as_user, join_before_exec};
use crate::daemon::cgroup::Cgroup;
use crate::daemon::programs::{hold, reap};

/// How the names of the control groups begin, before the check's.
const GROUP: &str = "check-";
/// How much of what it writes is kept.
const KEPT_BYTES: usize = 4096;
/// How many of its last lines are evidence.
const EVIDENCE_LINES: usize = 5;
/// Longest line of evidence, in characters.
const LINE_CHARS_MAX: usize = 300;
/// One that cannot be killed is told at most so often.
const LIMIT_MIN: Duration = Duration::from_millis(100);

/// A program that runs.
pub(super) struct Run {
    handle: OwnedFd,
    /// What it writes, until it has closed that.
    output: Option<std::fs::File>,
    said: Vec<u8>,
    group: Cgroup,
    limit: Limit,
    killed: bool,
}

/// A span of time that may pass more than once.
#[derive(Debug, Clone, Copy)]
struct Limit {
    began: Time,
    span: Duration,
    next: Time,
}

impl Limit {
    fn new(began: Time, next: Time) -> Limit {
        Limit { began, span: next.since(began), next }
    }

    /// How much time has passed in all, if it is one span more than at the time before.
    fn passed(&mut self, now: Time) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        self.next = now + self.span.max(LIMIT_MIN);
        Some(whole_ms(now.since(self.began)))
    }
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
        let group = Cgroup::of(module, &format!("{GROUP}{check}"))?;
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
        let handle = hold(child)?;
        // The program's own end goes on blocking.
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
        let (output, said) = (Some(output.into()), Vec::new());
        let limit = Limit::new(clock::now(), limit);
        Ok(Run { handle, output, said, group, limit, killed: false })
    }

    pub(super) fn turn(&mut self, now: Time) -> Turn {
        match self.ended(now) {
            Ended::Not => Turn::Waits,
            Ended::Overrun(span) => {
                let words = format!("it had not ended after {span:?} and was killed");
                Turn::Tells(Finding::Failed(self.words(words)))
            }
            Ended::Stays(span) => {
                let words = format!("it was killed and is still there after {span:?}");
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

    /// What has become of it. One that is over its limit is killed; one that stays then is over its
    /// limit again and again.
    pub(super) fn ended(&mut self, now: Time) -> Ended {
        self.listen();
        if is_ready(&self.handle, PollFlags::IN) {
            let status = reap(&self.handle);
            let status = status.map_err(io::Error::from);
            let status = status.and_then(|status| status.ok_or(io::ErrorKind::WouldBlock.into()));
            self.listen();
            // What it left running is nobody's.
            let _ = self.group.kill();
            return if self.killed { Ended::Killed } else { Ended::With(status) };
        }
        let Some(span) = self.limit.passed(now) else { return Ended::Not };
        if self.killed {
            return Ended::Stays(span);
        }
        self.kill();
        Ended::Overrun(span)
    }

    pub(super) fn kill(&mut self) {
        self.killed = true;
        // One that has ended by itself is as good.
        let _ = self.group.kill();
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// What it wrote last.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        all.push((self.handle.as_fd(), PollFlags::IN));
        all.extend(self.output.iter().map(|output| (output.as_fd(), PollFlags::IN)));
    }

    /// When the next turn is due at the latest.
    pub(super) fn deadline(&self) -> Time {
        self.limit.next
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
    /// It was over its limit just now, after this time.
    Overrun(Duration),
    /// It was killed and is there all the same.
    Stays(Duration),
    /// It was killed, and is gone.
    Killed,
    With(io::Result<ExitStatus>),
}

fn whole_ms(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Ends what an earlier daemon left of a module's checks: nobody hears what it finds.
pub(super) fn end_leftovers(module: &ModuleName) -> io::Result<()> {
    for group in Cgroup::parts(module, GROUP)? {
        if group.is_populated() {
            group.kill()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_passes_again_and_again() {
        let at = |ms: u64| Time::from_millis(1000 + ms);
        let mut limit = Limit::new(at(0), at(300));
        let mut passed = |ms: u64| limit.passed(at(ms)).map(|span| span.as_millis());
        assert_eq!(passed(299), None);
        assert_eq!(passed(310), Some(310));
        assert_eq!(passed(311), None);
        assert_eq!(passed(609), None);
        assert_eq!(passed(2000), Some(2000));
        assert_eq!(passed(2299), None);
        assert_eq!(passed(2300), Some(2300));
    }
}
