//! The lab's directory and its `lab.json`: everything another process needs to work on the same
//! lab. Whoever owns a lab holds a lock that the kernel drops with the owner's death; changes of
//! `lab.json` are serialised by a second lock. Knows nothing of how hosts are made.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result, cannot};
use crate::options::HostSpec;
use crate::proc::ProcessId;

/// Where labs lie unless `EVENKEEL_LAB_DIR` says otherwise.
const BASE_DIR: &str = "/var/tmp/evenkeel-lab";

/// The file that the owner of a lab keeps locked, and the mark of a lab's directory.
const OWNER_LOCK: &str = "evenkeel-lab-owner.lock";

/// The contents of `lab.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LabState {
    pub name: String,
    pub binary: PathBuf,
    pub networks: Vec<String>,
    /// In the order of their addresses; the switch is not among them.
    pub hosts: Vec<HostSpec>,
    /// Whether the lab outlives whoever made it.
    pub kept: bool,
    /// Who made it, for messages and as the hosts' lifeline.
    pub owner: Option<ProcessId>,
    /// Pid 1 of every host that runs, the switch included.
    pub inits: BTreeMap<String, ProcessId>,
    /// Helpers that end a systemd host with its owner.
    #[serde(default)]
    pub watchers: BTreeMap<String, ProcessId>,
    /// Directed cuts: from host, to host.
    pub cuts: Vec<(String, String)>,
    /// The same for UDP alone.
    #[serde(default)]
    pub datagram_cuts: Vec<(String, String)>,
    /// Cables pulled: host, network.
    pub pulled: Vec<(String, String)>,
}

/// The directory of one lab.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub dir: PathBuf,
}

/// The directory that holds all labs, as the kernel names it once it exists.
pub fn base_dir() -> PathBuf {
    let wanted = std::env::var_os("EVENKEEL_LAB_DIR");
    let path = wanted.map_or_else(|| PathBuf::from(BASE_DIR), PathBuf::from);
    fs::canonicalize(&path).unwrap_or(path)
}

/// The names of all labs that have a directory, sorted. A directory that no lab has locked is none:
/// the base may be somebody's home.
pub(crate) fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(base_dir()) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(OWNER_LOCK).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Keeps others from making or sweeping labs while it lives.
pub(crate) fn lock_base() -> Result<File> {
    let base = base_dir();
    fs::create_dir_all(&base).during(|| cannot("create", &base))?;
    lock(&base.join(".lock"), FlockOperation::LockExclusive)
}

impl Store {
    pub(crate) fn of(name: &str) -> Store {
        Store { dir: base_dir().join(name) }
    }

    pub(crate) fn host_dir(&self, host: &str) -> PathBuf {
        self.dir.join(host)
    }

    /// The lock of the lab's owner, or `None` while somebody else holds it.
    pub(crate) fn try_own(&self) -> Result<Option<File>> {
        match lock(&self.dir.join(OWNER_LOCK), FlockOperation::NonBlockingLockExclusive) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn load(&self) -> Result<LabState> {
        let path = self.dir.join("lab.json");
        let text = fs::read(&path).during(|| cannot("read", &path))?;
        serde_json::from_slice(&text).map_err(io::Error::from).during(|| cannot("read", &path))
    }

    pub(crate) fn save(&self, state: &LabState) -> Result<()> {
        write_json(&self.dir.join("lab.json"), state)
    }

    /// Reads, changes and writes the state while no other process does.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut LabState) -> T) -> Result<T> {
        let _lock = lock(&self.dir.join("state.lock"), FlockOperation::LockExclusive)?;
        let mut state = self.load()?;
        let result = change(&mut state);
        self.save(&state)?;
        Ok(result)
    }
}

impl LabState {
    /// Position of a host in the address plan.
    pub(crate) fn position(&self, host: &str) -> Result<usize> {
        let position = self.hosts.iter().position(|spec| spec.name == host);
        position.ok_or_else(|| {
            let known: Vec<&str> = self.hosts.iter().map(|spec| spec.name.as_str()).collect();
            Error::Invalid(format!(
                "the lab {} has no host {host}; it has {}",
                self.name,
                known.join(", ")
            ))
        })
    }

    pub(crate) fn spec(&self, host: &str) -> Result<&HostSpec> {
        Ok(&self.hosts[self.position(host)?])
    }

    /// Position of a network in the address plan.
    pub(crate) fn network_position(&self, network: &str) -> Result<usize> {
        self.networks.iter().position(|name| name == network).ok_or_else(|| {
            let known = self.networks.join(", ");
            Error::Invalid(format!(
                "the lab {} has no network {network}; it has {known}",
                self.name
            ))
        })
    }

    /// Networks that a host is joined to.
    pub(crate) fn networks_of(&self, spec: &HostSpec) -> Vec<String> {
        spec.networks.clone().unwrap_or_else(|| self.networks.clone())
    }

    /// Pid 1 of a host, if it runs.
    pub(crate) fn init(&self, host: &str) -> Result<ProcessId> {
        let init = self.inits.get(host).copied().filter(|init| init.is_alive());
        init.ok_or_else(|| Error::Down(host.to_owned()))
    }
}

/// Writes a file so that readers see the old or the new text, never half of it.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::from);
    let text = text.during(|| cannot("write", path))?;
    let part = path.with_extension("part");
    fs::write(&part, text).during(|| cannot("write", &part))?;
    fs::rename(&part, path).during(|| cannot("rename", &part))
}

fn lock(path: &Path, how: FlockOperation) -> Result<File> {
    let open = File::options().create(true).append(true).open(path);
    let file = open.during(|| cannot("open", path))?;
    loop {
        match rustix::fs::flock(&file, how) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).during(|| cannot("lock", path)),
        }
    }
}
