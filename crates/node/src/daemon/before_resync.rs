//! Runs the script that is to see a copy before a resync changes it, such as to keep a snapshot.
//!
//! It has a thread, so that the daemon's loop never waits for it, and a control group, so that
//! whatever it started can be ended. When it is wanted, and what follows from its outcome, is
//! decided by `cluster`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::input::ScriptError;
use model::config::ModuleConfig;
use model::{Copy, NodeName};

use crate::daemon::application::{join_before_exec, last_lines};
use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;
use crate::daemon::programs::{hold, reap};
use crate::daemon::units::ends_within;

/// How long the script may take. As long as it runs the node has no up-to-date copy.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the end of a killed script may take to be told.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The script of a module.
pub(crate) struct BeforeResync {
    shared: Arc<Shared>,
}

struct Shared {
    config: ModuleConfig,
    node: NodeName,
    log: PathBuf,
    limit: Duration,
    events: Sender<Event>,
    /// Held while it runs: never twice at once.
    running: Mutex<()>,
    /// Number of the newest run; one with another number is not wanted any more, and not started.
    wanted: Mutex<u64>,
}

impl BeforeResync {
    /// Ends what an earlier daemon left running, as nobody waits for its outcome any more.
    pub(crate) fn new(
        config: &ModuleConfig,
        node: &NodeName,
        log: PathBuf,
        events: &Sender<Event>,
    ) -> io::Result<BeforeResync> {
        let (config, node, events) = (config.clone(), node.clone(), events.clone());
        let (limit, running, wanted) = (LIMIT, Mutex::default(), Mutex::default());
        let shared = Shared { config, node, log, limit, events, running, wanted };
        if shared.config.scripts.before_resync.is_some() {
            shared.group()?.kill()?;
        }
        Ok(BeforeResync { shared: Arc::new(shared) })
    }

    /// Runs it; the outcome comes as an input. One that still runs is ended first.
    pub(crate) fn run(&self, serial: u64, source: NodeName, copy: Copy) {
        // If this fails, the other one has at most its limit of time.
        let number = self.shared.give_up().unwrap_or_else(|(number, _)| number);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("{}-before", shared.config.name))
            .spawn(move || shared.tell(serial, shared.run(number, &source, copy)));
        if let Err(error) = thread {
            self.shared.tell(serial, Err(no_run(&error)));
        }
    }
}

impl BeforeResync {
    /// Ends it, if it runs: the copy is about to change, and its outcome is of no use any more.
    pub(crate) fn end(&self) -> io::Result<()> {
        if self.shared.config.scripts.before_resync.is_none() {
            return Ok(());
        }
        self.shared.give_up().map_err(|(_, error)| error)?;
        self.shared.group()?.wait_empty()
    }
}

impl Shared {
    /// Whatever runs is ended, and what is about to run is not started. The number of a new run.
    fn give_up(&self) -> Result<u64, (u64, io::Error)> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted += 1;
        let killed = self.group().and_then(|group| group.kill());
        killed.map(|()| *wanted).map_err(|error| (*wanted, error))
    }

    fn tell(&self, serial: u64, outcome: Result<(), ScriptError>) {
        let module = self.config.name.clone();
        let input = Input::ResyncPrepared { module, serial, error: outcome.err() };
        let _ = self.events.send(Event::Input(input));
    }

    fn run(&self, number: u64, source: &NodeName, copy: Copy) -> Result<(), ScriptError> {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let group = self.group().map_err(|error| no_run(&error))?;
        end_all(&group).map_err(|error| no_run(&error))?;
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != number {
            return Err(no_run(&io::Error::other("it is not wanted any more")));
        }
        let child = self.start(&group, source, copy).and_then(hold);
        let child = child.map_err(|error| no_run(&error))?;
        drop(wanted);
        let in_time = ends_within(&child, self.limit);
        // What it left running is ended too, so that nothing of it works on a copy that changes.
        let how = match end_all(&group) {
            Err(error) => format!("cannot be ended: {error}"),
            Ok(()) => match ended(&child) {
                Ok(Some(status)) if in_time && status.success() => return Ok(()),
                Ok(Some(status)) if in_time => format!("ended with {status}"),
                Ok(_) => format!("had not ended after {:?} and was killed", self.limit),
                Err(errno) => format!("cannot be waited for: {errno}"),
            },
        };
        Err(ScriptError { how, said: self.last_lines() })
    }

    /// Starts it in its group. Its log has only what it said this time.
    fn start(&self, group: &Cgroup, source: &NodeName, copy: Copy) -> io::Result<Child> {
        let script = self.config.scripts.before_resync.as_deref();
        let script = script.ok_or_else(|| io::Error::other("none is configured"))?;
        let log = OpenOptions::new().create(true).write(true).truncate(true).open(&self.log)?;
        let mut members = OpenOptions::new().write(true).open(group.members_file())?;
        let directories = self.config.replicate.iter().map(|path| path.as_os_str());
        let directories = directories.collect::<Vec<_>>().join("\n".as_ref());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .env("EVENKEEL_MODULE", self.config.name.as_str())
            .env("EVENKEEL_NODE", self.node.as_str())
            .env("EVENKEEL_SOURCE", source.as_str())
            .env("EVENKEEL_COPY", copy.to_string())
            .env("EVENKEEL_DIRECTORIES", directories)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(Path::new("/"));
        join_before_exec(&mut command, move || members.write_all(b"0"));
        command.spawn()
    }

    fn group(&self) -> io::Result<Cgroup> {
        Cgroup::of(&self.config.name, "before-resync")
    }

    fn last_lines(&self) -> Vec<String> {
        last_lines(&self.log, 0)
    }
}

/// How the script ended, of whose group nobody is left: its end is told a moment after that.
fn ended(child: &OwnedFd) -> Result<Option<ExitStatus>, rustix::io::Errno> {
    ends_within(child, END_LIMIT);
    reap(child)
}

fn end_all(group: &Cgroup) -> io::Result<()> {
    if group.is_populated() {
        group.kill()?;
    }
    group.wait_empty()
}

fn no_run(error: &io::Error) -> ScriptError {
    ScriptError { how: format!("cannot be run: {error}"), said: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use std::fs;
    use std::sync::mpsc::{Receiver, channel};

    use model::config::{Source, parse_cluster, parse_module};

    use super::*;

    const CLUSTER: &str = "cluster = 'tests'\n\
        node = [{ name = 'a', addresses = { lan0 = '10.0.0.1' } },\n\
                { name = 'b', addresses = { lan0 = '10.0.0.2' } }]\n";

    /// A module with this script, and a directory that is removed at the end.
    fn script(name: &str, script: &str) -> (BeforeResync, Receiver<Event>, PathBuf) {
        let name = format!("before-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(&name);
        fs::create_dir_all(&place).unwrap();
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let text = format!(
            "module = '{name}'\nkind = 'mirror'\nreplicate = ['/srv/one', '/srv/two three']\n\
             [scripts]\nbefore_resync = '''{script}'''\n"
        );
        let config = parse_module(&Source { file: "m.toml", text: &text }, &cluster).unwrap();
        let (sender, events) = channel();
        let node = NodeName::new("a").unwrap();
        let hook = BeforeResync::new(&config, &node, place.join("log"), &sender).unwrap();
        (hook, events, place)
    }

    fn outcome(hook: &BeforeResync, events: &Receiver<Event>) -> Option<ScriptError> {
        hook.run(7, NodeName::new("b").unwrap(), Copy::Outdated);
        prepared(events, 7)
    }

    fn prepared(events: &Receiver<Event>, expected: u64) -> Option<ScriptError> {
        match events.recv().unwrap() {
            Event::Input(Input::ResyncPrepared { serial, error, .. }) => {
                assert_eq!(serial, expected);
                error
            }
            _ => panic!("the script answers, and nobody else"),
        }
    }

    fn remove(hook: &BeforeResync, place: &Path) {
        fs::remove_dir_all(place).unwrap();
        let group = hook.shared.group().unwrap().members_file();
        let group = group.parent().unwrap();
        fs::remove_dir(group).unwrap();
        fs::remove_dir(group.parent().unwrap()).unwrap();
    }

    #[test]
    fn it_is_told_what_is_about_to_happen() {
        let text = "echo \"$EVENKEEL_NODE $EVENKEEL_SOURCE $EVENKEEL_COPY\"; \
                    echo \"$EVENKEEL_DIRECTORIES\"; pwd";
        let (hook, events, place) = script("told", text);
        assert_eq!(outcome(&hook, &events), None);
        let said = fs::read_to_string(place.join("log")).unwrap();
        assert_eq!(said, "a b outdated\n/srv/one\n/srv/two three\n/\n");
        remove(&hook, &place);
    }

    #[test]
    fn a_failure_is_told_with_its_last_lines() {
        let (hook, events, place) = script("fails", "seq 9; echo no room >&2; exit 3");
        let error = outcome(&hook, &events).unwrap();
        assert_eq!(error.how, "ended with exit status: 3");
        assert_eq!(
            error.said.join(", "),
            "it said: 6, it said: 7, it said: 8, it said: 9, it said: no room"
        );
        remove(&hook, &place);
    }

    #[test]
    fn what_takes_too_long_or_stays_behind_is_killed() {
        let (mut hook, events, place) = script("slow", "sleep 1000 & echo waits; wait");
        Arc::get_mut(&mut hook.shared).unwrap().limit = Duration::from_millis(300);
        let error = outcome(&hook, &events).unwrap();
        assert_eq!(error.how, "had not ended after 300ms and was killed");
        assert_eq!(error.said, ["it said: waits"]);
        assert!(!hook.shared.group().unwrap().is_populated());
        remove(&hook, &place);

        let (hook, events, place) = script("stays", "sleep 1000 &");
        assert_eq!(outcome(&hook, &events), None);
        assert!(!hook.shared.group().unwrap().is_populated());
        remove(&hook, &place);
    }

    #[test]
    fn one_that_still_runs_is_ended_by_the_next() {
        let (hook, events, place) = script("next", "test $EVENKEEL_COPY = outdated || sleep 1000");
        hook.run(1, NodeName::new("b").unwrap(), Copy::Crashed);
        while !hook.shared.group().unwrap().is_populated() {
            std::thread::yield_now();
        }
        assert_eq!(outcome_of_two(&hook, &events), [true, false]);
        remove(&hook, &place);
    }

    fn outcome_of_two(hook: &BeforeResync, events: &Receiver<Event>) -> [bool; 2] {
        hook.run(2, NodeName::new("b").unwrap(), Copy::Outdated);
        // The end of the first one may be told after that of the second, which has not waited.
        let mut failed = [None, None];
        for _ in 0..2 {
            match events.recv().unwrap() {
                Event::Input(Input::ResyncPrepared { serial: serial @ 1..=2, error, .. }) => {
                    failed[usize::try_from(serial).unwrap() - 1] = Some(error.is_some());
                }
                _ => panic!("the scripts answer, and nobody else"),
            }
        }
        failed.map(Option::unwrap)
    }
}
