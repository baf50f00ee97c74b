//! One host as its user sees it: addresses, files, programs. Faults are in [`crate::fault`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::error::{During, Error, Result, cannot};
use crate::init::{at, own_mount};
use crate::options::{HostSpec, InitKind};
use crate::proc::{self, ProcessId};
use crate::protocol::{self, Exit, Reply, Request, SpawnSpec};
use crate::state::Store;
use crate::{cgroup, enter, network, plan};

/// How often a systemd that cannot be asked yet is asked again.
const SYSTEMD_TRIES: u32 = 600;
/// How long between two tries.
const SYSTEMD_PAUSE: Duration = Duration::from_millis(50);

/// A host of a lab; a name only, so it stays valid while the host is killed and booted again.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) store: Store,
    pub(crate) name: String,
}

/// A program that [`Host::spawn`] started.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its pid inside the host.
    pub pid: i32,
    /// The process as seen from here; `None` if it had ended before it could be looked up.
    pub outside: Option<ProcessId>,
    /// The file that takes its output.
    pub log: PathBuf,
    host: Host,
}

impl Host {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was made from.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn spec(&self) -> Result<HostSpec> {
        Ok(self.store.load()?.spec(&self.name)?.clone())
    }

    /// Its directory in the lab's: images, logs, the init's socket.
    pub fn dir(&self) -> PathBuf {
        self.store.host_dir(&self.name)
    }

    /// Its own address on a network.
    ///
    /// # Errors
    /// When the lab has no such network.
    pub fn address(&self, network: &str) -> Result<IpAddr> {
        let state = self.store.load()?;
        Ok(plan::address(state.network_position(network)?, state.position(&self.name)?))
    }

    /// All addresses that it has at this moment, virtual ones and loopback included.
    ///
    /// # Errors
    /// When it is down.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        network::addresses(self.init()?)
    }

    /// Its pid 1, as seen from here.
    ///
    /// # Errors
    /// [`Error::Down`] when it does not run.
    pub fn init(&self) -> Result<ProcessId> {
        self.store.load()?.init(&self.name)
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.init().is_ok()
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// When it is down.
    pub fn netns(&self) -> Result<OwnedFd> {
        network::namespace(self.init()?)
    }

    /// Its root directory as seen from here.
    ///
    /// # Errors
    /// When it is down.
    pub fn root_path(&self) -> Result<PathBuf> {
        Ok(self.init()?.path("root"))
    }

    /// A path inside it as seen from here. Absolute symbolic links on the way lead astray.
    ///
    /// # Errors
    /// When it is down.
    pub fn path(&self, inside: impl AsRef<Path>) -> Result<PathBuf> {
        Ok(at(&self.root_path()?, inside))
    }

    /// The root of one of its disks as seen from here, below whatever is mounted over it.
    ///
    /// # Errors
    /// When it is down.
    pub fn disk_path(&self, disk: &str) -> Result<PathBuf> {
        Ok(own_mount(&self.root_path()?, disk))
    }

    /// Writes a file inside it and makes the directories above.
    ///
    /// # Errors
    /// When it is down or the file cannot be written.
    pub fn write_file(&self, inside: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(inside)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).during(|| cannot("create", parent))?;
        }
        fs::write(&path, text).during(|| cannot("write", &path))
    }

    /// Reads a file inside it.
    ///
    /// # Errors
    /// When it is down or the file cannot be read as text.
    pub fn read_file(&self, inside: impl AsRef<Path>) -> Result<String> {
        let path = self.path(inside)?;
        fs::read_to_string(&path).during(|| cannot("read", &path))
    }

    /// A command that runs inside it, ready for input and output to be set; its exit code is that
    /// of the program, 127 if that could not be started, 128 + N if it died by signal N.
    ///
    /// # Errors
    /// When it is down.
    pub fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Command> {
        self.command_as("root", argv)
    }

    /// The same as another user.
    ///
    /// # Errors
    /// When the host is down.
    pub fn command_as<S: AsRef<OsStr>>(
        &self,
        user: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let state = self.store.load()?;
        let init = state.init(&self.name)?;
        let mut command = Command::new(&state.binary);
        command.arg(enter::COMMAND).arg(init.pid.to_string()).args(["--user", user]);
        if let Some(cgroup) = cgroup::of_lab(&state.name) {
            // Not the host's own cgroup: a systemd inside allows no process there.
            command.arg("--cgroup").arg(cgroup.join(&self.name).join(enter::COMMAND));
        }
        command.arg("--").args(argv);
        Ok(command)
    }

    /// Runs a command inside it to its end and returns its output and exit status. Waits for ever
    /// while the host is frozen.
    ///
    /// # Errors
    /// When it is down. A command that fails is no error.
    pub fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = self.command(argv)?;
        command.stdin(Stdio::null());
        command.output().during(|| format!("cannot run a command on {}", self.name))
    }

    /// The same with `input` as its standard input.
    ///
    /// # Errors
    /// When the host is down.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<Output> {
        let what = || format!("cannot run a command on {}", self.name);
        let mut command = self.command(argv)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().during(what)?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command that does not read all of its input is free to do so.
                stdin.map(|mut stdin| stdin.write_all(input))
            });
            child.wait_with_output().during(what)
        })
    }

    /// Starts a program that goes on by itself, as a child of the host's init.
    ///
    /// # Errors
    /// When the host is down, runs systemd (use `systemd-run` there) or cannot start it.
    pub fn spawn(&self, spec: SpawnSpec) -> Result<Process> {
        match self.spec()?.init {
            InitKind::Tiny => {}
            InitKind::Systemd => return Err(self.refuse("spawn", "run systemd-run on it")),
        }
        let init = self.init()?;
        match self.ask(&Request::Spawn(spec))? {
            Reply::Spawned { pid, log } => Ok(Process {
                pid,
                outside: proc::outside_pid(init, pid).and_then(ProcessId::of),
                log: self.dir().join(log),
                host: self.clone(),
            }),
            other => Err(self.odd(&other)),
        }
    }

    /// Unmounts one of its disks.
    ///
    /// # Errors
    /// When it is down or the disk is in use.
    pub fn unmount_disk(&self, disk: &str) -> Result<()> {
        self.ask(&Request::Unmount { disk: disk.to_owned() }).map(drop)
    }

    /// Mounts a disk that was unmounted.
    ///
    /// # Errors
    /// When it is down or the disk cannot be mounted.
    pub fn mount_disk(&self, disk: &str) -> Result<()> {
        self.ask(&Request::Mount { disk: disk.to_owned() }).map(drop)
    }

    /// Waits until a systemd host has started its units; a tiny one is ready when it is booted.
    ///
    /// # Errors
    /// When it is down or systemd reports that it is neither running nor degraded.
    pub fn wait_ready(&self) -> Result<()> {
        if self.spec()?.init == InitKind::Tiny {
            return self.init().map(drop);
        }
        let mut said = String::new();
        for _ in 0..SYSTEMD_TRIES {
            let output = self.run(["systemctl", "is-system-running", "--wait"])?;
            said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if output.status.success() || said == "degraded" {
                return Ok(());
            }
            if !self.is_up() {
                return Err(Error::Down(self.name.clone()));
            }
            // Before its socket exists, nothing tells when systemd can be asked.
            std::thread::sleep(SYSTEMD_PAUSE);
        }
        let message = format!("systemd says {said:?}; see journalctl on the host");
        Err(Error::Boot { host: self.name.clone(), message })
    }

    /// What the init and the programs of this host wrote to a log in its directory.
    ///
    /// # Errors
    /// When there is no such log.
    pub fn log(&self, file_name: &str) -> Result<String> {
        let path = self.dir().join(file_name);
        let bytes = fs::read(&path).during(|| cannot("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens a file inside it for reading.
    ///
    /// # Errors
    /// When it is down or the file cannot be opened.
    pub fn open(&self, inside: impl AsRef<Path>) -> Result<File> {
        let path = self.path(inside)?;
        File::open(&path).during(|| cannot("open", &path))
    }

    pub(crate) fn detach(&self) -> Result<()> {
        self.ask(&Request::Detach).map(drop)
    }

    fn ask(&self, request: &Request) -> Result<Reply> {
        self.init()?;
        protocol::call(&self.name, &self.dir(), request)
    }

    fn refuse(&self, what: &str, mend: &str) -> Error {
        let name = &self.name;
        Error::Invalid(format!("{name} runs systemd, which does not {what} for the lab; {mend}"))
    }

    fn odd(&self, reply: &Reply) -> Error {
        Error::Refused { host: self.name.clone(), message: format!("it answered {reply:?}") }
    }
}

impl Process {
    /// Sends a signal by number.
    ///
    /// # Errors
    /// When the host is down or the process has ended.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.host.ask(&Request::Kill { pid: self.pid, signal }).map(drop)
    }

    /// Sends a signal to it and everything in its process group.
    ///
    /// # Errors
    /// When the host is down or the group is empty.
    pub fn kill_group(&self, signal: i32) -> Result<()> {
        self.host.ask(&Request::Kill { pid: -self.pid, signal }).map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the host goes down first.
    pub fn wait(&self) -> Result<Exit> {
        match self.host.ask(&Request::Wait { pid: self.pid })? {
            Reply::Exited(exit) => Ok(exit),
            other => Err(self.host.odd(&other)),
        }
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.outside.is_some_and(ProcessId::is_alive)
    }
}
