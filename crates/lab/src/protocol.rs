//! What is said between a lab and the tiny init of a host: one request and one reply, each one
//! line of JSON, on a connection of its own to the host's `init.sock`. No state lies here.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::options::HostSpec;
use crate::proc::ProcessId;

/// File name of the init's socket inside the host's directory.
pub(crate) const SOCKET: &str = "init.sock";
/// File name of what a host is booted with inside its directory.
pub(crate) const BOOT_FILE: &str = "init.json";
/// File name of the init's log inside the host's directory.
pub(crate) const LOG: &str = "init.log";

/// All that an init is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub spec: HostSpec,
    pub binary: PathBuf,
    /// With whom the host ends; `None` for a lab that is kept.
    pub owner: Option<ProcessId>,
    /// Directory of its cgroup, if the machine has cgroup version 2.
    pub cgroup: Option<PathBuf>,
    /// The text of `/etc/hosts` inside.
    pub hosts_file: String,
}

/// Said on the init's standard output while it boots.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BootReport {
    /// Pid 1 exists, with this pid as seen by the lab.
    Pid(i32),
    /// All mounts are made; requests are obeyed from now on.
    Ready,
    /// It will not become ready.
    Failed(String),
}

/// A program to start on a host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SpawnSpec {
    /// Program and arguments; the program is looked up in the host's `PATH`.
    pub argv: Vec<String>,
    /// Environment beyond `PATH`, `HOME` and `LANG`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if `None`.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Name or number of the user; root if `None`.
    #[serde(default)]
    pub user: Option<String>,
    /// File name of its output inside the host's directory of the lab; chosen if `None`.
    #[serde(default)]
    pub log: Option<String>,
    /// Cgroup below the host's `/sys/fs/cgroup`, made if missing; init's own if `None`.
    #[serde(default)]
    pub cgroup: Option<String>,
}

impl SpawnSpec {
    /// A program with its arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        SpawnSpec { argv: argv.into_iter().map(Into::into).collect(), ..SpawnSpec::default() }
    }

    /// Sets one variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs it as this user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn cwd(mut self, directory: &str) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Names the file that its output is appended to.
    #[must_use]
    pub fn log(mut self, file_name: &str) -> Self {
        self.log = Some(file_name.to_owned());
        self
    }

    /// Runs it in this cgroup of the host.
    #[must_use]
    pub fn cgroup(mut self, name: &str) -> Self {
        self.cgroup = Some(name.to_owned());
        self
    }
}

/// What an init can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Spawn(SpawnSpec),
    /// Sends a signal; a negative pid means the process group.
    Kill {
        pid: i32,
        signal: i32,
    },
    /// Answered when this spawned process has ended.
    Wait {
        pid: i32,
    },
    /// The host shall outlive its owner.
    Detach,
    /// Mounts a disk that was unmounted.
    Mount {
        disk: String,
    },
    /// Unmounts a disk.
    Unmount {
        disk: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What an init answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Spawned { pid: i32, log: String },
    Exited(Exit),
    Failed(String),
}

/// Asks the init of the host whose directory is `dir`.
pub(crate) fn call(host: &str, dir: &Path, request: &Request) -> Result<Reply> {
    let reply = exchange(dir, request).map_err(|source| Error::Io {
        what: format!("cannot reach the init of {host} at {}", dir.join(SOCKET).display()),
        source,
    })?;
    match reply {
        Reply::Failed(message) => Err(Error::Refused { host: host.to_owned(), message }),
        Reply::Done | Reply::Spawned { .. } | Reply::Exited(_) => Ok(reply),
    }
}

/// Opens the socket that requests come in at. Its path may be longer than a socket's name can be,
/// so it is reached through a descriptor of its directory.
pub(crate) fn listen(dir: &OwnedFd) -> io::Result<UnixListener> {
    match rustix::fs::unlinkat(dir, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    UnixListener::bind(short_path(dir))
}

fn exchange(dir: &Path, request: &Request) -> io::Result<Reply> {
    let dir = open_dir(dir)?;
    let mut stream = UnixStream::connect(short_path(&dir))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::Error::other("it ended before it answered"));
    }
    Ok(serde_json::from_str(&answer)?)
}

/// A descriptor of a directory, for use with the `*at` calls.
pub(crate) fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

fn short_path(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
