//! Runs the command that holds a peer off, so that a node can go on without it.
//!
//! It has a thread, so that the daemon's loop never waits for it, and a control group for each
//! module that wants it, so that whatever it started can be ended. It never runs twice at once.
//! When it is wanted, and what follows from its outcome, is decided by `cluster`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::input::ScriptError;
use model::config::FenceConfig;
use model::{ModuleName, NodeName};

use crate::daemon::application::{join_before_exec, last_lines};
use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;
use crate::daemon::programs::{hold, reap};
use crate::daemon::units::ends_within;

/// How long the end of a killed command may take to be told.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The command of a cluster.
pub(crate) struct HoldOff {
    shared: Arc<Shared>,
}

struct Shared {
    config: Option<FenceConfig>,
    node: NodeName,
    events: Sender<Event>,
    /// Held while it runs: never twice at once.
    running: Mutex<()>,
}

/// What it is run for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) module: ModuleName,
    pub(crate) serial: u64,
    pub(crate) peer: NodeName,
    pub(crate) log: PathBuf,
}

impl HoldOff {
    /// Ends what an earlier daemon left running for these modules: nobody hears its outcome.
    pub(crate) fn new<'a>(
        config: Option<FenceConfig>,
        node: &NodeName,
        modules: impl Iterator<Item = &'a ModuleName>,
        events: &Sender<Event>,
    ) -> io::Result<HoldOff> {
        if config.is_some() {
            for module in modules {
                group(module)?.kill()?;
            }
        }
        let (node, events, running) = (node.clone(), events.clone(), Mutex::default());
        Ok(HoldOff { shared: Arc::new(Shared { config, node, events, running }) })
    }

    /// Runs it, after one that runs already; the outcome comes as an input.
    pub(crate) fn run(&self, wanted: Wanted) {
        let (shared, again) = (Arc::clone(&self.shared), wanted.clone());
        let thread = std::thread::Builder::new()
            .name("hold-off".to_owned())
            .spawn(move || shared.tell(&wanted, shared.run(&wanted)));
        if let Err(error) = thread {
            self.shared.tell(&again, Err(no_run(&error)));
        }
    }
}

impl Shared {
    fn tell(&self, wanted: &Wanted, outcome: Result<(), ScriptError>) {
        let (module, serial) = (wanted.module.clone(), wanted.serial);
        let _ =
            self.events.send(Event::Input(Input::HeldOff { module, serial, error: outcome.err() }));
    }

    fn run(&self, wanted: &Wanted) -> Result<(), ScriptError> {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let none = || no_run(&io::Error::other("there is no [fence] in cluster.toml"));
        let config = self.config.as_ref().ok_or_else(none)?;
        let group = group(&wanted.module).map_err(|error| no_run(&error))?;
        end_all(&group).map_err(|error| no_run(&error))?;
        let child = self.start(config, &group, wanted).and_then(hold);
        let child = child.map_err(|error| no_run(&error))?;
        let in_time = ends_within(&child, config.timeout);
        let how = match end_all(&group) {
            Err(error) => format!("cannot be ended: {error}"),
            Ok(()) => {
                ends_within(&child, END_LIMIT);
                match reap(&child) {
                    Ok(Some(status)) if in_time && status.success() => return Ok(()),
                    Ok(Some(status)) if in_time => format!("ended with {status}"),
                    Ok(_) => format!("had not ended after {:?} and was killed", config.timeout),
                    Err(errno) => format!("cannot be waited for: {errno}"),
                }
            }
        };
        Err(ScriptError { how, said: last_lines(&wanted.log, 0) })
    }

    /// Starts it in its group. Its log has only what it said this time.
    fn start(&self, config: &FenceConfig, group: &Cgroup, wanted: &Wanted) -> io::Result<Child> {
        let (program, arguments) =
            config.exec.split_first().ok_or_else(|| io::Error::other("it names no program"))?;
        let log = OpenOptions::new().create(true).write(true).truncate(true).open(&wanted.log)?;
        let mut members = OpenOptions::new().write(true).open(group.members_file())?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("EVENKEEL_MODULE", wanted.module.as_str())
            .env("EVENKEEL_NODE", self.node.as_str())
            .env("EVENKEEL_PEER", wanted.peer.as_str())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(Path::new("/"));
        join_before_exec(&mut command, move || members.write_all(b"0"));
        command.spawn()
    }
}

fn group(module: &ModuleName) -> io::Result<Cgroup> {
    Cgroup::of(module, "hold-off")
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

    use super::*;

    struct Trial {
        hold_off: HoldOff,
        events: Receiver<Event>,
        wanted: Wanted,
        place: PathBuf,
    }

    fn trial(name: &str, script: &str, timeout: Duration) -> Trial {
        let name = format!("hold-off-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(&name);
        fs::create_dir_all(&place).unwrap();
        let module = ModuleName::new(&name).unwrap();
        let exec = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let (sender, events) = channel();
        let node = NodeName::new("a").unwrap();
        let config = Some(FenceConfig { exec, timeout });
        let hold_off = HoldOff::new(config, &node, [&module].into_iter(), &sender).unwrap();
        let peer = NodeName::new("b").unwrap();
        let wanted = Wanted { module, serial: 7, peer, log: place.join("log") };
        Trial { hold_off, events, wanted, place }
    }

    impl Trial {
        fn outcome(&self) -> Option<ScriptError> {
            match self.events.recv().unwrap() {
                Event::Input(Input::HeldOff { serial, error, .. }) => {
                    assert_eq!(serial, 7);
                    error
                }
                _ => panic!("the command answers, and nobody else"),
            }
        }

        fn run(&self) -> Option<ScriptError> {
            self.hold_off.run(self.wanted.clone());
            self.outcome()
        }
    }

    impl Drop for Trial {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.place).unwrap();
            let group = group(&self.wanted.module).unwrap().members_file();
            let group = group.parent().unwrap();
            fs::remove_dir(group).unwrap();
            fs::remove_dir(group.parent().unwrap()).unwrap();
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_told_whom_to_hold_off_and_a_failure_is_told_with_its_last_lines() {
        let script = "echo \"$EVENKEEL_NODE $EVENKEEL_PEER $EVENKEEL_MODULE\"; exit 3";
        let trial = trial("told", script, LONG);
        let error = trial.run().unwrap();
        assert_eq!(error.how, "ended with exit status: 3");
        assert_eq!(error.said, [format!("it said: a b {}", trial.wanted.module)]);
    }

    #[test]
    fn what_takes_too_long_is_killed_and_has_failed() {
        let trial = trial("slow", "sleep 1000 & echo waits; wait", Duration::from_millis(300));
        let error = trial.run().unwrap();
        assert_eq!(error.how, "had not ended after 300ms and was killed");
        assert!(!group(&trial.wanted.module).unwrap().is_populated());
    }

    #[test]
    fn it_never_runs_twice_at_once() {
        let trial =
            trial("twice", "D=/tmp/$EVENKEEL_MODULE/d; mkdir $D && sleep 0.2 && rmdir $D", LONG);
        for _ in 0..3 {
            trial.hold_off.run(trial.wanted.clone());
        }
        let ended = [(); 3].map(|()| trial.outcome());
        assert_eq!(ended, [None, None, None]);
    }

    #[test]
    fn without_a_command_nobody_is_held_off() {
        let mut trial = trial("none", "true", LONG);
        let shared = Arc::get_mut(&mut trial.hold_off.shared).unwrap();
        shared.config = None;
        assert!(trial.run().unwrap().how.contains("no [fence]"));
    }
}
