//! The application of a module: its programs, scripts and units, started and stopped in order.
//!
//! Everything runs in the application's own control group, so that a stop leaves nothing behind.
//! When to start and stop is decided by `cluster`; whether a program lives is for `checks` to see.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::effect::ServiceAction;
use cluster::input::ScriptError;
use model::ModuleName;
use model::config::{CommandConfig, ModuleConfig, StopSignal};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;
use crate::daemon::programs::{Program, Programs};
use crate::daemon::units::{Units, ends_within};

/// How much of a log's end is shown as evidence, in bytes.
const EVIDENCE_BYTES: u64 = 1024;
/// How many of its last lines.
const EVIDENCE_LINES: usize = 5;
/// How long a killed process may take to be told dead.
const GONE_LIMIT: Duration = Duration::from_secs(1);
/// How long systemd may take to kill or stop a unit where nobody else is served meanwhile.
const UNIT_LIMIT: Duration = Duration::from_secs(10);
/// Pause before what could not be ended is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5000 });

/// The application of a module.
pub(crate) struct Application {
    shared: Arc<Shared>,
    actions: Sender<ServiceAction>,
    /// Whether this daemon has found it, was to end it, and could not.
    left: bool,
}

/// What acting on the application and checking it have in common.
pub(crate) struct Shared {
    pub(crate) config: ModuleConfig,
    group: Cgroup,
    log: PathBuf,
    /// How long the log was when the application was started: what was said before is of no matter.
    log_from: AtomicU64,
    events: Sender<Event>,
    programs: Mutex<Programs>,
    units: Units,
}

impl Application {
    /// Makes the group and the thread that acts on the application, and finds the programs that an
    /// earlier daemon noted in this file.
    pub(crate) fn new(
        config: &ModuleConfig,
        log: PathBuf,
        programs: PathBuf,
        events: &Sender<Event>,
    ) -> io::Result<Application> {
        Application::with(config, log, programs, (events, Units::default()))
    }

    fn with(
        config: &ModuleConfig,
        log: PathBuf,
        programs: PathBuf,
        (events, units): (&Sender<Event>, Units),
    ) -> io::Result<Application> {
        let group = Cgroup::of(&config.name, "application")?;
        if let Some(directory) = log.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let (config, events) = (config.clone(), events.clone());
        let programs = Mutex::new(Programs::find(programs));
        let log_from = AtomicU64::default();
        let shared = Arc::new(Shared { config, group, log, log_from, events, programs, units });
        let (actions, queue) = channel();
        let acting = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("{}-app", shared.config.name))
            .spawn(move || acting.act_on_all(&queue))?;
        Ok(Application { shared, actions, left: false })
    }

    /// Whether anything of it runs, also when an earlier daemon started it. An error says why that
    /// is not known.
    pub(crate) fn is_running(&self) -> io::Result<bool> {
        self.shared.is_running()
    }

    /// The processes of its commands.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.shared.programs().pids()
    }

    /// What checks need of it.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Ends everything at once, and waits for that.
    pub(crate) fn kill_now(&self) -> io::Result<()> {
        self.shared.kill(Some(UNIT_LIMIT))
    }

    /// A start that an earlier daemon ordered may come yet: until a kill has stopped every unit,
    /// none is taken for ended.
    pub(crate) fn doubt(&self) {
        self.shared.units.doubt();
    }

    /// Goes on trying to end what was left and could not be ended.
    pub(crate) fn kill_left(&mut self) {
        self.left = true;
        self.run(ServiceAction::Kill);
    }

    /// Whether it was left running by an earlier daemon and could not be ended by this one.
    pub(crate) fn is_left(&self) -> bool {
        self.left
    }

    /// Acts on it; the outcome comes as an input. A kill does not wait for what is under way.
    pub(crate) fn run(&self, action: ServiceAction) {
        if action == ServiceAction::Kill {
            self.shared.units.cut_short();
            // A failure shows when the thread waits for the group to become empty.
            let _ = self.shared.group.kill();
        }
        // The thread lives as long as the process.
        let _ = self.actions.send(action);
    }
}

impl Shared {
    /// Acts as it is told, until the daemon ends. What could not be ended is killed again and again
    /// until it has ended, or something else is to be done.
    fn act_on_all(&self, queue: &Receiver<ServiceAction>) {
        let mut left = false;
        loop {
            let next = if left {
                queue.recv_timeout(KILL_AGAIN)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(action) => left = !self.act(action),
                Err(RecvTimeoutError::Timeout) => {
                    left = self.kill(None).is_err();
                    if !left {
                        self.tell(ServiceAction::Kill, Ok(()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether nothing is left that was to be ended.
    fn act(&self, action: ServiceAction) -> bool {
        let result = match action {
            ServiceAction::Start => self.start(),
            ServiceAction::Stop => self.stop(),
            ServiceAction::Kill => {
                self.units.begin_kill();
                self.kill(None)
            }
        };
        // A script may fail, and nothing be left all the same. Nobody asks if a kill comes next.
        let ended = action == ServiceAction::Start
            || result.is_ok()
            || self.units.is_cut_short()
            || matches!(self.is_running(), Ok(false));
        self.tell(action, result);
        ended
    }

    /// Begins something in the group, unless a kill waits.
    fn begin<T>(&self, begin: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let begun = self.units.begin(begin)?;
        if self.units.is_cut_short() {
            // The group may have been killed before this was in it.
            let _ = self.group.kill();
        }
        Ok(begun)
    }

    fn is_running(&self) -> io::Result<bool> {
        if self.group.is_populated() {
            return Ok(true);
        }
        for unit in &self.config.services {
            if self.units.is_active(unit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell(&self, action: ServiceAction, result: io::Result<()>) {
        let said = || if action == ServiceAction::Start { self.last_lines() } else { Vec::new() };
        let error = result.err().map(|error| ScriptError { how: error.to_string(), said: said() });
        let module = self.config.name.clone();
        let input = Input::ServiceDone { module, action, error };
        let _ = self.events.send(Event::Input(input));
    }

    fn start(&self) -> io::Result<()> {
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        self.log_from.store(length, Ordering::Relaxed);
        // What an interrupted stop or an earlier daemon has left would be a second instance.
        let left = self.programs().take();
        self.kill_rest(left)?;
        for unit in &self.config.services {
            self.units.order("start", unit)?;
        }
        for command in &self.config.commands {
            self.spawn(command)?;
        }
        match &self.config.scripts.start {
            Some(script) => self.script("start", script),
            None => Ok(()),
        }
    }

    fn stop(&self) -> io::Result<()> {
        let mut first_error = Ok(());
        if let Some(script) = &self.config.scripts.stop {
            first_error = self.script("stop", script);
        }
        let programs = self.programs().take();
        // Once it is to be killed, nobody is asked any more.
        for program in programs.iter().rev().take_while(|_| !self.units.is_cut_short()) {
            self.stop_program(program);
        }
        for unit in self.config.services.iter().rev() {
            let stopped = self.units.order("stop", unit);
            first_error = first_error.and(stopped);
        }
        self.kill_rest(programs)?;
        first_error
    }

    /// Ends everything. If a limit is given, systemd may take that long for each answer.
    fn kill(&self, limit: Option<Duration>) -> io::Result<()> {
        let programs = self.programs().take();
        let units = self.kill_units(limit);
        self.kill_rest(programs)?;
        units?;
        self.units.settle();
        Ok(())
    }

    /// Kills all units at once: one that does not end keeps no other waiting, and many that do not
    /// take no longer than one.
    fn kill_units(&self, limit: Option<Duration>) -> io::Result<()> {
        let kill = |unit: &str| self.units.kill(unit, limit);
        if let [unit] = self.config.services.as_slice() {
            return kill(unit);
        }
        std::thread::scope(|scope| {
            let mut begun = Vec::new();
            for unit in &self.config.services {
                let thread = std::thread::Builder::new();
                begun.push(thread.spawn_scoped(scope, move || kill(unit)));
            }
            let ended = begun.into_iter().map(|thread| {
                thread?.join().unwrap_or_else(|_| Err(io::Error::other("a kill went wrong")))
            });
            // All are waited for, also after one that failed.
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Ends whatever is in the group, and lets go of programs of it.
    fn kill_rest(&self, programs: Vec<Program>) -> io::Result<()> {
        if self.group.is_populated() {
            self.group.kill()?;
        }
        self.group.wait_empty()?;
        for program in programs {
            // A process leaves its group a moment before its parent is told of its end.
            ends_within(&program.handle, GONE_LIMIT);
        }
        Ok(())
    }

    fn spawn(&self, command: &CommandConfig) -> io::Result<()> {
        let (program, arguments) = command
            .run
            .split_first()
            .ok_or_else(|| io::Error::other(format!("command `{}` is empty", command.name)))?;
        let child = self.prepare(Path::new(program), command.user.as_deref())?;
        let child = self
            .units
            .begin(|| { child }.args(arguments).spawn())
            .map_err(|error| io::Error::other(format!("cannot start {program}: {error}")))?;
        let added = self.programs().add(command.name.clone(), child);
        added.map_err(|error| io::Error::other(format!("{program}: {error}")))
    }

    /// Asks a program to end and waits as long as it may take; what is left is killed with the
    /// group.
    fn stop_program(&self, program: &Program) {
        let command = self.config.commands.iter().find(|command| command.name == program.name);
        let Some(command) = command else { return };
        let signal = match command.stop_signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Quit => Signal::QUIT,
        };
        if pidfd_send_signal(&program.handle, signal).is_ok() {
            ends_within(&program.handle, command.stop_timeout);
        }
    }

    /// The process of a command, if one was started and not stopped.
    pub(crate) fn handle_of(&self, name: &ModuleName) -> Option<Arc<OwnedFd>> {
        self.programs().of(name).map(|program| Arc::clone(&program.handle))
    }

    /// How the process of a command ended, and what was said last.
    pub(crate) fn end_of(&self, name: &ModuleName) -> Vec<String> {
        let how = match self.programs().of(name) {
            Some(program) => program.end().unwrap_or_else(|| "it has not ended".to_owned()),
            None => return vec![format!("{name} does not run")],
        };
        std::iter::once(format!("{name} ended: {how}")).chain(self.last_lines()).collect()
    }

    /// The processes of the application, but for those of its units.
    pub(crate) fn members(&self) -> io::Result<Vec<Pid>> {
        let text = std::fs::read_to_string(self.group.members_file())?;
        Ok(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect())
    }

    fn script(&self, which: &str, script: &str) -> io::Result<()> {
        let mut command = self.prepare(Path::new("/bin/sh"), None)?;
        let mut running = self.begin(|| command.args(["-c", script]).spawn())?;
        let status = running.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("the {which} script ended with {status}")))
    }

    /// A command that joins the group before it becomes the program.
    fn prepare(&self, program: &Path, user: Option<&str>) -> io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut members = OpenOptions::new().write(true).open(self.group.members_file())?;
        let mut command = as_user(program, user);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        join_before_exec(&mut command, move || members.write_all(b"0"));
        Ok(command)
    }

    fn last_lines(&self) -> Vec<String> {
        last_lines(&self.log, self.log_from.load(Ordering::Relaxed))
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that becomes a program, perhaps as another user.
pub(super) fn as_user(program: &Path, user: Option<&str>) -> Command {
    let Some(user) = user else { return Command::new(program) };
    // setpriv is part of every Debian and Red Hat system.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]).arg(program);
    command
}

/// The last lines of a log after this place, as evidence.
pub(super) fn last_lines(log: &Path, from: u64) -> Vec<String> {
    let text = match log_end(log, from) {
        Ok(text) => text,
        Err(error) => return vec![format!("its log cannot be read: {error}")],
    };
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(EVIDENCE_LINES);
    lines.into_iter().skip(first).map(|line| format!("it said: {line}")).collect()
}

fn log_end(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(EVIDENCE_BYTES).max(from)))?;
    let mut text = Vec::new();
    file.take(EVIDENCE_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

#[allow(unsafe_code, reason = "a process must join its group before it can start others")]
pub(super) fn join_before_exec(
    command: &mut Command,
    join: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the closure makes one write system call on a descriptor opened before the fork; it
    // allocates nothing and takes no lock.
    unsafe { command.pre_exec(join) };
}

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;
