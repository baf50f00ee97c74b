//! Whether a process lives. Its descriptor is waited for, so its death is known at once and nothing
//! is looked at again and again; only a process that is not there yet is.
//!
//! A process may have a successor: a unit gets another main process, a file another id. One that is
//! there by the time of the death takes its place. A systemd that does not answer says nothing of
//! the application.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Time;
use model::config::{CheckConfig, Watched};
use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::exec::{Ended, Run};
use super::{Finding, Turn, is_ready};
use crate::daemon::application::Shared;

/// systemd is asked for what is there at most so often; after the death of a process it is asked at
/// once.
pub(super) const ASK_PAUSE: Duration = Duration::from_secs(10);

/// A process that is looked for or waited for.
pub(super) struct Watch {
    check: CheckConfig,
    watched: Watched,
    state: State,
    /// The process that was held last.
    pid: Option<Pid>,
}

enum State {
    /// Nothing was found out yet.
    Begins,
    /// systemd is asked which one it is.
    Asks(Box<Run>),
    /// Its end is waited for.
    Holds(Arc<OwnedFd>),
}

/// What was found.
enum Found {
    Process(Option<Pid>, Arc<OwnedFd>),
    /// systemd has to be asked.
    Question(Box<Run>),
    Nothing(Finding),
}

impl Watch {
    pub(super) fn begin(
        check: &CheckConfig,
        watched: &Watched,
        application: &Shared,
        limit: Time,
    ) -> io::Result<Watch> {
        let (check, watched) = (check.clone(), watched.clone());
        let mut watch = Watch { check, watched, state: State::Begins, pid: None };
        if let Watched::Service(unit) = &watch.watched {
            watch.state = State::Asks(Box::new(ask(&watch.check, unit, application, limit)?));
        }
        Ok(watch)
    }

    pub(super) fn turn(&mut self, application: &Shared, now: Time) -> Turn {
        let before = self.pid;
        let found = match &mut self.state {
            State::Begins => self.find(application, now),
            State::Asks(run) => match run.ended(now) {
                Ended::Not => return Turn::Waits,
                Ended::Killed => return Turn::Ends(None),
                Ended::Overrun(_) | Ended::Stays(_) => {
                    let words = "systemd did not answer in time".to_owned();
                    return Turn::Tells(self.unanswered(words));
                }
                Ended::With(_) => self.understand(),
            },
            State::Holds(handle) if !is_ready(handle, PollFlags::IN) => return Turn::Waits,
            State::Holds(_) => self.find(application, now),
        };
        match found {
            Found::Process(pid, handle) => {
                self.state = State::Holds(handle);
                self.pid = pid;
                if before.is_some() { Turn::Waits } else { Turn::Tells(Finding::Well) }
            }
            Found::Question(run) => {
                self.state = State::Asks(run);
                Turn::Waits
            }
            Found::Nothing(finding) => Turn::Ends(Some(finding)),
        }
    }

    /// The question that is being asked, if one is.
    pub(super) fn into_question(self) -> Option<Run> {
        match self.state {
            State::Asks(run) => Some(*run),
            State::Begins | State::Holds(_) => None,
        }
    }

    pub(super) fn descriptors<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        match &self.state {
            State::Begins => {}
            State::Asks(run) => run.descriptors(all),
            State::Holds(handle) => all.push((handle.as_fd(), PollFlags::IN)),
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Begins => Some(Time::ZERO),
            State::Asks(run) => Some(run.deadline()),
            State::Holds(_) => None,
        }
    }

    fn find(&self, application: &Shared, now: Time) -> Found {
        let found = match &self.watched {
            Watched::Command(name) => {
                return match application.handle_of(name) {
                    Some(handle) if !is_ready(&handle, PollFlags::IN) => {
                        Found::Process(None, handle)
                    }
                    Some(_) | None => Found::Nothing(Finding::Dead(application.end_of(name))),
                };
            }
            Watched::Service(unit) => {
                let limit = now + self.check.timeout;
                return match ask(&self.check, unit, application, limit) {
                    Ok(run) => Found::Question(Box::new(run)),
                    Err(error) => {
                        Found::Nothing(self.unanswered(format!("systemd cannot be asked: {error}")))
                    }
                };
            }
            Watched::PidFile(path) => named_in(path),
            Watched::Program(name) => called(name, application),
        };
        self.hold(found)
    }

    /// What systemd said.
    fn understand(&self) -> Found {
        let State::Asks(run) = &self.state else { return self.nothing("nothing is known".into()) };
        let said = run.said();
        let value = |key: &str| {
            said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("")
        };
        let (active, main) = (value("ActiveState"), value("MainPID"));
        let unit = match &self.watched {
            Watched::Service(unit) => unit.as_str(),
            Watched::Command(_) | Watched::PidFile(_) | Watched::Program(_) => "",
        };
        match main.parse().ok().and_then(Pid::from_raw) {
            // A unit may have no process of its own, such as one that only starts others.
            None if active == "active" => Found::Nothing(Finding::Well),
            None if active.is_empty() => {
                Found::Nothing(self.unanswered(format!("systemd cannot be asked: {}", said.trim())))
            }
            None => self.nothing(format!(
                "{unit} is {active} ({}, {})",
                value("SubState"),
                value("Result")
            )),
            Some(pid) => self.hold(Ok(pid)),
        }
    }

    fn hold(&self, found: Result<Pid, String>) -> Found {
        let held = found.and_then(|pid| {
            let gone = |_| format!("process {} is gone", pid.as_raw_nonzero());
            let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(gone)?;
            if is_ready(&handle, PollFlags::IN) {
                Err(gone(rustix::io::Errno::SRCH))
            } else {
                Ok((pid, handle))
            }
        });
        match held {
            Ok((pid, handle)) => Found::Process(Some(pid), Arc::new(handle)),
            Err(why) => self.nothing(why),
        }
    }

    /// One that was there is dead; one that was not may still come.
    fn nothing(&self, why: String) -> Found {
        Found::Nothing(self.dead(&why).unwrap_or_else(|| Finding::Failed(vec![why])))
    }

    /// What is known when systemd does not answer: only that the process that it had named is dead.
    fn unanswered(&self, why: String) -> Finding {
        self.dead(&why).unwrap_or_else(|| Finding::Unknown(vec![why]))
    }

    fn dead(&self, why: &str) -> Option<Finding> {
        let pid = self.pid?.as_raw_nonzero();
        Some(Finding::Dead(vec![format!("process {pid} has ended; {why}")]))
    }
}

fn ask(check: &CheckConfig, unit: &str, application: &Shared, limit: Time) -> io::Result<Run> {
    let words = ["systemctl", "show", "--property=MainPID,ActiveState,SubState,Result", "--", unit];
    let words = words.map(str::to_owned);
    Run::begin(&application.config.name, &check.name, &words, None, limit)
}

fn named_in(path: &Path) -> Result<Pid, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    let pid = first.filter(|pid| *pid > 1).and_then(Pid::from_raw);
    pid.ok_or_else(|| format!("{shown} holds no process id"))
}

/// The oldest process of the application with this program.
fn called(name: &str, application: &Shared) -> Result<Pid, String> {
    let members = application.members().map_err(|error| error.to_string())?;
    let found = members.into_iter().filter(|pid| runs(*pid, name));
    found
        .min_by_key(|pid| crate::daemon::programs::start_time(*pid))
        .ok_or_else(|| format!("no process of the application runs {name}"))
}

fn runs(pid: Pid, name: &str) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())) else {
        return false;
    };
    let program = program.file_name().map(|name| name.to_string_lossy().into_owned());
    // So called when the file was replaced while it runs.
    program.is_some_and(|program| program.strip_suffix(" (deleted)").unwrap_or(&program) == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use super::super::tests::Running;
    use super::*;
    use crate::clock;

    /// What is found when systemd does not answer, after a process that it had named has died or
    /// not.
    fn without_an_answer(name: &str, pid: Option<Pid>) -> Finding {
        let unit = "services = ['nginx']\n";
        let running = Running::new(name, unit);
        let application = running.application.shared();
        let check = application.config.checks.first().unwrap().clone();
        let words = ["sleep", "1000"].map(str::to_owned);
        let now = clock::now();
        let limit = now + Duration::from_secs(1);
        let run = Run::begin(&application.config.name, &check.name, &words, None, limit).unwrap();
        let watched = Watched::Service("nginx".to_owned());
        let mut watch = Watch { check, watched, state: State::Asks(Box::new(run)), pid };
        assert!(matches!(watch.turn(&application, now), Turn::Waits));
        let Turn::Tells(finding) = watch.turn(&application, limit) else { panic!("it waits") };
        while !matches!(watch.turn(&application, limit), Turn::Ends(None)) {
            std::thread::yield_now();
        }
        finding
    }

    #[test]
    fn a_systemd_that_does_not_answer_says_nothing_of_the_application() {
        match without_an_answer("unanswered", None) {
            Finding::Unknown(words) => {
                assert_eq!(words, ["systemd did not answer in time"]);
            }
            other => panic!("{other:?}"),
        }
        match without_an_answer("unanswered-dead", Pid::from_raw(7)) {
            Finding::Dead(words) => {
                assert_eq!(words, ["process 7 has ended; systemd did not answer in time"]);
            }
            other => panic!("{other:?}"),
        }
    }
}
