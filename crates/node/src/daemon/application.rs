//! The application of a module: its programs, scripts and units, started and stopped in order.
//!
//! Everything runs in the application's own control group, so that a stop leaves nothing behind.
//! When to start and stop is decided by `cluster`; restarting what died is not done here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::effect::ServiceAction;
use model::config::{CommandConfig, ModuleConfig, StopSignal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::daemon::cgroup::Cgroup;
use crate::daemon::event::Event;

/// How much of a log's end is shown as evidence, in bytes.
const EVIDENCE_BYTES: u64 = 1024;

/// The application of a module.
pub(crate) struct Application {
    shared: Arc<Shared>,
    actions: Sender<ServiceAction>,
}

struct Shared {
    config: ModuleConfig,
    group: Cgroup,
    log: PathBuf,
    events: Sender<Event>,
    programs: Mutex<Vec<Program>>,
}

/// A supervised program that runs.
#[derive(Clone)]
struct Program {
    config: CommandConfig,
    pid: u32,
}

impl Application {
    /// Makes the group and the thread that acts on the application.
    pub(crate) fn new(
        config: &ModuleConfig,
        log: PathBuf,
        events: &Sender<Event>,
    ) -> io::Result<Application> {
        let group = Cgroup::of(&config.name, "application")?;
        if let Some(directory) = log.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let (config, events) = (config.clone(), events.clone());
        let shared = Arc::new(Shared { config, group, log, events, programs: Mutex::default() });
        let (actions, queue) = channel();
        let acting = Arc::clone(&shared);
        std::thread::Builder::new().name(format!("{}-app", shared.config.name)).spawn(
            move || {
                for action in queue {
                    acting.act(action);
                }
            },
        )?;
        Ok(Application { shared, actions })
    }

    /// Whether anything of it runs, also when an earlier daemon started it.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.group.is_populated()
    }

    /// Ends everything at once, and waits for that.
    pub(crate) fn kill_now(&self) -> io::Result<()> {
        self.shared.programs().clear();
        for unit in &self.shared.config.services {
            if self.shared.systemctl("is-active --quiet", unit).is_ok() {
                self.shared.systemctl("kill --signal=KILL", unit)?;
                self.shared.systemctl("stop", unit)?;
            }
        }
        if self.is_running() {
            self.shared.group.kill()?;
            self.shared.group.wait_empty()?;
        }
        Ok(())
    }

    /// Acts on it; the outcome comes as an input. A kill does not wait for what is under way.
    pub(crate) fn run(&self, action: ServiceAction) {
        if action == ServiceAction::Kill {
            // Nobody is to be told of deaths that were ordered.
            self.shared.programs().clear();
            // A failure shows when the thread waits for the group to become empty.
            let _ = self.shared.group.kill();
        }
        // The thread lives as long as the process.
        let _ = self.actions.send(action);
    }
}

impl Shared {
    fn act(self: &Arc<Self>, action: ServiceAction) {
        let result = match action {
            ServiceAction::Start => self.start(),
            ServiceAction::Stop => self.stop(),
            ServiceAction::Kill => self.kill(),
        };
        let error = result.err().map(|error| error.to_string());
        let module = self.config.name.clone();
        let input = Input::ServiceDone { module, action, error };
        let _ = self.events.send(Event::Input(input));
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        for unit in &self.config.services {
            self.systemctl("start", unit)?;
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
        let programs: Vec<Program> = self.programs().drain(..).collect();
        for program in programs.iter().rev() {
            program.stop();
        }
        for unit in self.config.services.iter().rev() {
            let stopped = self.systemctl("stop", unit);
            first_error = first_error.and(stopped);
        }
        self.kill_rest()?;
        first_error
    }

    fn kill(&self) -> io::Result<()> {
        for unit in &self.config.services {
            self.systemctl("kill --signal=KILL", unit)?;
        }
        self.kill_rest()
    }

    fn kill_rest(&self) -> io::Result<()> {
        if self.group.is_populated() {
            self.group.kill()?;
        }
        self.group.wait_empty()
    }

    fn spawn(self: &Arc<Self>, command: &CommandConfig) -> io::Result<()> {
        let (program, arguments) = command
            .run
            .split_first()
            .ok_or_else(|| io::Error::other(format!("command `{}` is empty", command.name)))?;
        let child = self.prepare(Path::new(program), command.user.as_deref())?;
        let mut child = { child }
            .args(arguments)
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start {program}: {error}")))?;
        let program = Program { config: command.clone(), pid: child.id() };
        self.programs().push(program.clone());
        let shared = Arc::clone(self);
        std::thread::Builder::new()
            .name(format!("{}-{}", self.config.name, command.name))
            .spawn(move || shared.watch(&program, &mut child))?;
        Ok(())
    }

    /// Waits for a program's end and tells it, unless it was asked to end.
    fn watch(&self, program: &Program, child: &mut Child) {
        let status = child.wait();
        let mut programs = self.programs();
        let before = programs.len();
        programs.retain(|running| running.pid != program.pid);
        if programs.len() == before {
            return;
        }
        drop(programs);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let how = format!("{} ended: {status}; {}", program.config.name, self.last_words());
        let module = self.config.name.clone();
        let _ = self.events.send(Event::Input(Input::ServiceDied { module, how }));
    }

    fn script(&self, which: &str, script: &str) -> io::Result<()> {
        let status = self.prepare(Path::new("/bin/sh"), None)?.args(["-c", script]).status()?;
        if status.success() {
            return Ok(());
        }
        let what = format!("the {which} script ended with {status}; {}", self.last_words());
        Err(io::Error::other(what))
    }

    fn systemctl(&self, verb: &str, unit: &str) -> io::Result<()> {
        let output = Command::new("systemctl").args(verb.split(' ')).arg(unit).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("systemctl {verb} {unit}: {}", said.trim())))
    }

    /// A command that joins the group before it becomes the program.
    fn prepare(&self, program: &Path, user: Option<&str>) -> io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut members = OpenOptions::new().write(true).open(self.group.members_file())?;
        let mut command = match user {
            // setpriv is part of every Debian and Red Hat system.
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        join_before_exec(&mut command, move || members.write_all(b"0"));
        Ok(command)
    }

    fn last_words(&self) -> String {
        match log_end(&self.log) {
            Ok(text) if text.is_empty() => "it said nothing".to_owned(),
            Ok(text) => format!("its last words: {text}"),
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }

    fn programs(&self) -> MutexGuard<'_, Vec<Program>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// Asks it to end and waits as long as it may take; what is left is killed with the group.
    fn stop(&self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        let signal = match self.config.stop_signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Quit => Signal::QUIT,
        };
        if kill_process(pid, signal).is_err() {
            return;
        }
        ends_within(&handle, self.config.stop_timeout);
    }
}

/// The end of a log, as evidence.
pub(super) fn log_end(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(EVIDENCE_BYTES)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Waits for the end of a process, but no longer than this; says whether it came.
pub(super) fn ends_within(process: &OwnedFd, limit: Duration) -> bool {
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: i64::from(limit.subsec_nanos()) };
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, Some(&limit))).is_ok_and(|count| count > 0)
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
