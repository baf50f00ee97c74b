//! A whole lab: made, attached to, kept, removed, and the remains of dead ones swept away.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::error::{During, Error, Result, cannot};
use crate::host::Host;
use crate::options::{InitKind, LabOptions};
use crate::proc::{self, ProcessId};
use crate::state::{self, LabState, Store};
use crate::{boot, cgroup, disk, plan};

/// A lab. Whoever created it owns it: dropping it removes everything, unless it was kept. A lab
/// that was attached to is left alone by the drop.
#[derive(Debug)]
pub struct Lab {
    pub(crate) store: Store,
    /// The owner's lock; `None` when attached.
    owned: Option<File>,
}

/// One line of the list of labs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LabInfo {
    /// Its name.
    pub name: String,
    /// Whether it outlives the command that made it.
    pub kept: bool,
    /// The process that owns it, if that is alive.
    pub owner: Option<i32>,
    /// Its networks.
    pub networks: Vec<String>,
    /// Its hosts.
    pub hosts: Vec<HostInfo>,
    /// Directed cuts between hosts: from, to.
    pub cuts: Vec<(String, String)>,
    /// The same for datagrams alone.
    pub datagram_cuts: Vec<(String, String)>,
    /// Pulled cables: host, network.
    pub pulled: Vec<(String, String)>,
}

/// One host in the list of labs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HostInfo {
    /// Its name.
    pub name: String,
    /// Its addresses, network by network.
    pub addresses: Vec<String>,
    /// Pid of its init as seen from here; `None` while it is down.
    pub init: Option<i32>,
}

impl Lab {
    /// Builds a lab and boots its hosts. Before that it removes what labs left behind whose owner
    /// has died.
    ///
    /// # Errors
    /// Without root, loop devices or mkfs; when the options make no lab; when a lab of that name
    /// is alive; when a host does not boot. Nothing remains then.
    pub fn create(options: LabOptions) -> Result<Lab> {
        require_root()?;
        options.check()?;
        if options.hosts.iter().any(|host| !host.disks.is_empty()) {
            disk::check_loop()?;
        }
        let lab = Lab::claim(options)?;
        boot::switch(&lab.store)?;
        for host in lab.store.load()?.hosts {
            boot::furnish(&lab.store, &host)?;
            boot::host(&lab.store, &host.name)?;
        }
        Ok(lab)
    }

    /// The lab of that name, made by another process or kept.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(name: &str) -> Result<Lab> {
        require_root()?;
        let store = Store::of(name);
        if !names_a_lab(name, &store) {
            return Err(no_lab(name));
        }
        Ok(Lab { store, owned: None })
    }

    /// All labs, dead ones included.
    ///
    /// # Errors
    /// Without root.
    pub fn list() -> Result<Vec<LabInfo>> {
        require_root()?;
        let states = state::names().into_iter().filter_map(|name| Store::of(&name).load().ok());
        Ok(states.map(|state| info(&state)).collect())
    }

    /// Removes a lab that nobody owns: a kept one, or one whose owner has died.
    ///
    /// # Errors
    /// When there is none of that name or its owner is alive.
    pub fn remove(name: &str) -> Result<()> {
        require_root()?;
        let store = Store::of(name);
        if !names_a_lab(name, &store) {
            return Err(no_lab(name));
        }
        let _base = state::lock_base()?;
        match store.try_own()? {
            Some(_owned) => demolish(&store),
            None => Err(in_use(name, &store)),
        }
    }

    /// Removes what labs left behind whose owner has died.
    ///
    /// # Errors
    /// Without root, or when something of it cannot be removed.
    pub fn sweep() -> Result<()> {
        require_root()?;
        let _base = state::lock_base()?;
        sweep()
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.store.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.store.dir
    }

    /// One of its hosts.
    ///
    /// # Errors
    /// When it has none of that name.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.store.load()?.position(name)?;
        Ok(Host { store: self.store.clone(), name: name.to_owned() })
    }

    /// All its hosts, in the order of their addresses.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        let hosts = self.store.load()?.hosts.into_iter();
        Ok(hosts.map(|spec| Host { store: self.store.clone(), name: spec.name }).collect())
    }

    /// What the list of labs says of it.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn info(&self) -> Result<LabInfo> {
        Ok(info(&self.store.load()?))
    }

    /// Lets the lab outlive its owner, which from now on is only attached to it.
    ///
    /// # Errors
    /// When a host cannot be told; the lab is removed then.
    pub fn keep(mut self) -> Result<Lab> {
        let state = self.store.update(|state| {
            state.kept = true;
            state.clone()
        })?;
        for name in state.inits.keys().filter(|name| state.init(name).is_ok()) {
            let kind = state.spec(name).map_or(InitKind::Tiny, |spec| spec.init);
            match kind {
                InitKind::Tiny => {
                    Host { store: self.store.clone(), name: name.clone() }.detach()?;
                }
                InitKind::Systemd => {
                    let watcher: Vec<ProcessId> =
                        state.watchers.get(name).copied().into_iter().collect();
                    proc::kill_and_wait(&watcher).during(|| format!("cannot detach {name}"))?;
                }
            }
        }
        self.owned = None;
        Ok(Lab { store: self.store.clone(), owned: None })
    }

    /// Removes the lab, with the errors that a drop cannot return.
    ///
    /// # Errors
    /// When something of it cannot be removed, or it is only attached and its owner is alive.
    pub fn down(mut self) -> Result<()> {
        match self.owned.take() {
            Some(_owned) => demolish(&self.store),
            None => Lab::remove(&self.name()),
        }
    }

    /// Takes the name: sweeps, makes the directory, locks it, writes the first state.
    fn claim(options: LabOptions) -> Result<Lab> {
        let _base = state::lock_base()?;
        sweep()?;
        let store = Store::of(&options.name);
        match fs::create_dir(&store.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).during(|| cannot("create", &store.dir));
            }
            Err(_) if !is_empty(&store.dir) => return Err(in_use(&options.name, &store)),
            // An empty one is all that a lab leaves which dies between two steps here.
            Err(_) | Ok(()) => {}
        }
        let owned = store.try_own()?;
        let lab = Lab { store, owned };
        lab.store.save(&LabState {
            name: options.name,
            binary: options.binary,
            networks: options.networks,
            hosts: options.hosts,
            kept: false,
            owner: ProcessId::own(),
            inits: [].into(),
            watchers: [].into(),
            cuts: Vec::new(),
            datagram_cuts: Vec::new(),
            pulled: Vec::new(),
        })?;
        fs::create_dir(lab.store.host_dir(plan::SWITCH))
            .during(|| cannot("create", &lab.store.dir))?;
        Ok(lab)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(_owned) = self.owned.take()
            && let Err(error) = demolish(&self.store)
        {
            use std::io::Write;
            // The next lab sweeps what is left; here it can only be said.
            let _ = writeln!(std::io::stderr(), "lab {}: {error}", self.name());
        }
    }
}

fn sweep() -> Result<()> {
    for name in state::names() {
        let store = Store::of(&name);
        let Some(_owned) = store.try_own()? else {
            continue;
        };
        let kept = store.load().is_ok_and(|state| state.kept);
        if !kept {
            demolish(&store)?;
        }
    }
    Ok(())
}

/// Ends every process of a lab and removes all that it consists of. The caller holds its lock.
fn demolish(store: &Store) -> Result<()> {
    if let Ok(state) = store.load() {
        let lab = &state.name;
        let all = state.inits.values().chain(state.watchers.values());
        // A pid that was given to another process since has another start time; after a reboot
        // not even that is certain.
        let ours = |init: &ProcessId| init.is_alive() && is_of_a_lab(*init);
        let alive: Vec<ProcessId> = all.copied().filter(ours).collect();
        proc::kill_and_wait(&alive).during(|| format!("cannot end the hosts of {lab}"))?;
        if let Some(cgroup) = cgroup::of_lab(lab) {
            cgroup::remove(&cgroup)?;
            cgroup::remove_top_if_empty();
        }
    }
    let released = disk::wait_released(&store.dir);
    disk::detach_all(&store.dir);
    fs::remove_dir_all(&store.dir).during(|| cannot("remove", &store.dir))?;
    released
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Our inits say so; a systemd is known by a pid namespace that is not ours.
fn is_of_a_lab(process: ProcessId) -> bool {
    let namespace = |path: &Path| fs::read_link(path).ok();
    let own = namespace(Path::new("/proc/self/ns/pid"));
    proc::arguments(process.pid).iter().any(|word| word == crate::init::COMMAND)
        || namespace(&process.path("ns/pid")) != own
}

fn info(state: &LabState) -> LabInfo {
    let host = |(position, spec): (usize, &crate::options::HostSpec)| HostInfo {
        name: spec.name.clone(),
        addresses: state
            .networks_of(spec)
            .iter()
            .filter_map(|network| state.network_position(network).ok())
            .map(|network| plan::address(network, position).to_string())
            .collect(),
        init: state.init(&spec.name).ok().map(|init| init.pid),
    };
    LabInfo {
        name: state.name.clone(),
        kept: state.kept,
        owner: state.owner.filter(|owner| !state.kept && owner.is_alive()).map(|owner| owner.pid),
        networks: state.networks.clone(),
        hosts: state.hosts.iter().enumerate().map(host).collect(),
        cuts: state.cuts.clone(),
        datagram_cuts: state.datagram_cuts.clone(),
        pulled: state.pulled.clone(),
    }
}

fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// A name from a command line must not lead out of the directory of labs.
fn names_a_lab(name: &str, store: &Store) -> bool {
    !name.is_empty() && !name.contains(['/', '.']) && store.dir.join("lab.json").exists()
}

fn no_lab(name: &str) -> Error {
    Error::NoLab { name: name.to_owned(), base: state::base_dir().display().to_string() }
}

fn in_use(name: &str, store: &Store) -> Error {
    let owner = match store.load() {
        Ok(state) if state.kept => format!(" (kept; `evenkeel lab down {name}` removes it)"),
        Ok(state) => state.owner.map_or_else(String::new, |o| format!(" by process {}", o.pid)),
        Err(_) => String::new(),
    };
    Error::InUse { name: name.to_owned(), owner }
}
