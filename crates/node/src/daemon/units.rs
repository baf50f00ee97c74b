//! What systemd is asked to do for an application: to start, stop and kill its units, and whether
//! they run. What is under way is cut short by a kill, which would wait behind it for as long as a
//! unit takes. When to start, stop and kill is not decided here.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::daemon::programs;

/// How long systemd may take to say whether a unit runs.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How much of what it says is kept, in bytes.
const SAID_BYTES: u64 = 1024;

/// The units of one application, and who waits for them.
pub(crate) struct Units {
    /// What systemd is asked with.
    systemctl: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kills that were ordered and not begun yet.
    kills: u32,
    /// The process that waits for what is under way.
    waits: Option<Arc<OwnedFd>>,
    /// A start was cut short: systemd may be about to carry it out, and not say so yet.
    doubtful: bool,
}

impl Default for Units {
    fn default() -> Units {
        Units::with("systemctl".into())
    }
}

impl Units {
    /// Asks with this program.
    pub(super) fn with(systemctl: PathBuf) -> Units {
        Units { systemctl, state: Mutex::default() }
    }

    /// A kill was ordered: until it begins, nothing else does, and nobody waits for what is under
    /// way.
    pub(crate) fn cut_short(&self) {
        let mut state = self.state();
        state.kills += 1;
        if let Some(waits) = &state.waits {
            let _ = pidfd_send_signal(waits, Signal::KILL);
        }
    }

    /// The kill that was ordered begins.
    pub(crate) fn begin_kill(&self) {
        let mut state = self.state();
        state.kills = state.kills.saturating_sub(1);
    }

    /// Whether a kill waits.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.state().kills > 0
    }

    /// Begins something, unless a kill waits. One that is ordered meanwhile is not kept waiting: a
    /// program on a disk that does not answer takes long to begin. Whoever begins it looks again.
    pub(crate) fn begin<T>(&self, begin: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_cut_short() { Err(was_cut_short()) } else { begin() }
    }

    /// Has a unit started or stopped, however long that takes.
    pub(crate) fn order(&self, verb: &str, unit: &str) -> io::Result<()> {
        let output = self.wait(&mut self.systemctl(&[verb], unit), verb == "start")?;
        judge(&[verb], unit, &output)
    }

    /// Kills and stops a unit; within a time, or however long what it does at its end takes.
    pub(crate) fn kill(&self, unit: &str, limit: Option<Duration>) -> io::Result<()> {
        // Of one that is not known to run nothing is assumed.
        let runs = self.is_active(unit).unwrap_or(true);
        if !runs && !self.state().doubtful {
            return Ok(());
        }
        let order = |words: &[&str]| {
            let output = output_within(&mut self.systemctl(words, unit), limit)?;
            judge(words, unit, &output)
        };
        let killed = if runs { order(&["kill", "--signal=KILL"]) } else { Ok(()) };
        // Or systemd would start it again. Once it is stopped, nothing was left to be killed.
        order(&["stop"]).or_else(|error| killed.and(Err(error))).or_else(|error| {
            // Where there is no systemd, none can be about to start it.
            if !runs && is_absent(&error) { Ok(()) } else { Err(error) }
        })
    }

    /// A start may come yet that nobody waits for.
    pub(crate) fn doubt(&self) {
        self.state().doubtful = true;
    }

    /// Every unit has been stopped: no start that was cut short can come after that.
    pub(crate) fn settle(&self) {
        self.state().doubtful = false;
    }

    /// Whether systemd runs a unit, or is just starting or stopping it.
    pub(crate) fn is_active(&self, unit: &str) -> io::Result<bool> {
        let mut asking = self.systemctl(&["is-active"], unit);
        let output = match output_within(&mut asking, Some(ANSWER_LIMIT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            output => output?,
        };
        let state = String::from_utf8_lossy(&output.stdout);
        match state.trim() {
            "active" | "activating" | "deactivating" | "reloading" | "refreshing" => Ok(true),
            "" if has_systemd() => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim();
                Err(io::Error::other(format!("systemd cannot be asked for {unit}: {said}")))
            }
            _ => Ok(false),
        }
    }

    fn systemctl(&self, words: &[&str], unit: &str) -> Command {
        let mut command = Command::new(&self.systemctl);
        command.arg("--no-ask-password").args(words).args(["--", unit]);
        command
    }

    /// What a command says, unless a kill is ordered before it has ended.
    fn wait(&self, command: &mut Command, starts: bool) -> io::Result<Output> {
        let running = self.begin(|| Running::begin(command))?;
        let mut state = self.state();
        if state.kills > 0 {
            let _ = pidfd_send_signal(&running.handle, Signal::KILL);
        }
        state.waits = Some(Arc::clone(&running.handle));
        drop(state);
        has_ended(&running.handle, None);
        let mut state = self.state();
        state.waits = None;
        if state.kills > 0 {
            state.doubtful |= starts;
            drop(state);
            let _ = programs::reap(&running.handle);
            return Err(was_cut_short());
        }
        drop(state);
        running.end()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that has begun.
struct Running {
    handle: Arc<OwnedFd>,
    said: (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>),
}

impl Running {
    fn begin(command: &mut Command) -> io::Result<Running> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let said = (child.stdout.take(), child.stderr.take());
        Ok(Running { handle: Arc::new(programs::hold(child)?), said })
    }

    /// What it said, now that it has ended.
    fn end(self) -> io::Result<Output> {
        let status = programs::reap(&self.handle)?.ok_or(io::ErrorKind::TimedOut)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let (Some(out), Some(err)) = self.said {
            out.take(SAID_BYTES).read_to_end(&mut stdout)?;
            err.take(SAID_BYTES).read_to_end(&mut stderr)?;
        }
        Ok(Output { status, stdout, stderr })
    }
}

/// What a command says that says little, and ends within a time, if one is given.
fn output_within(command: &mut Command, limit: Option<Duration>) -> io::Result<Output> {
    let running = Running::begin(command)?;
    if !has_ended(&running.handle, limit) {
        // One that cannot be killed stays, which is no reason to wait for it.
        let _ = pidfd_send_signal(&running.handle, Signal::KILL);
        has_ended(&running.handle, limit);
        let _ = programs::reap(&running.handle);
        let program = command.get_program().display();
        let what = format!("{program} did not answer within {:?}", limit.unwrap_or_default());
        return Err(io::Error::new(io::ErrorKind::TimedOut, what));
    }
    running.end()
}

/// Waits for the end of a process, but no longer than this; says whether it came.
pub(super) fn ends_within(process: &OwnedFd, limit: Duration) -> bool {
    has_ended(process, Some(limit))
}

fn has_ended(process: &OwnedFd, limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, limit.as_ref())).is_ok_and(|count| count > 0)
}

fn judge(words: &[&str], unit: &str, output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let words = words.join(" ");
    Err(io::Error::other(format!("systemctl {words} {unit}: {}", said.trim())))
}

/// Whether this failed because there is nobody to ask.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || !has_systemd()
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn was_cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "it was cut short by a kill")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_is_under_way_does_not_keep_a_kill_waiting() {
        let units = Arc::new(Units::default());
        let waiting = Arc::clone(&units);
        let waiter =
            std::thread::spawn(move || waiting.wait(&mut shell("exec sleep 100000"), true));
        while units.state().waits.is_none() {
            std::thread::yield_now();
        }
        units.cut_short();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it was cut short by a kill");
        assert!(units.state().doubtful && units.state().waits.is_none());
        let settled = || {
            units.settle();
            units.state().doubtful
        };
        assert!(!settled());
    }

    #[test]
    fn nothing_begins_between_the_order_to_kill_and_the_kill() {
        let units = Units::default();
        units.cut_short();
        units.cut_short();
        units.begin_kill();
        assert!(units.is_cut_short(), "there is another one");
        let begun = units.begin(|| -> io::Result<()> { Ok(()) });
        assert_eq!(begun.unwrap_err().kind(), io::ErrorKind::Interrupted);
        let waited = units.wait(&mut shell("exit 0"), false);
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::Interrupted);
        units.begin_kill();
        assert!(!units.is_cut_short());
        assert_eq!(units.begin(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn what_was_not_cut_short_tells_how_it_ended() {
        let units = Units::default();
        let output = units.wait(&mut shell("echo no >&2; exit 3"), true).unwrap();
        let error = judge(&["start"], "web.service", &output).unwrap_err();
        assert_eq!(error.to_string(), "systemctl start web.service: no");
        assert!(!units.state().doubtful);
    }
}
