//! How a daemon starts: checks, configuration, what an earlier daemon left, sockets, threads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cluster::Node;
use cluster::contact::Contact;
use cluster::input::{Boot, BootModule, DataState};
use cluster::record::Record;
use cluster::report::Heartbeat;
use model::config::{self, ClusterConfig, ModuleConfig, ModuleKind, Stand};
use model::{ModuleName, NodeName, Time};
use rustix::fs::FlockOperation;
use rustix::process::Pid;
use thiserror::Error;

use crate::belonging;
use crate::clock;
use crate::configuration;
use crate::configuration::store::Store;
use crate::daemon::admit::Door;
use crate::daemon::application::Application;
use crate::daemon::before_resync::BeforeResync;
use crate::daemon::checks::Checks;
use crate::daemon::configuring::Configuring;
use crate::daemon::event::Event;
use crate::daemon::farms::{self, Pulses};
use crate::daemon::guard::Guard;
use crate::daemon::health::Health;
use crate::daemon::heartbeat::Heartbeats;
use crate::daemon::hold_off::HoldOff;
use crate::daemon::inherited::Inherited;
use crate::daemon::journal::Journal;
use crate::daemon::left::{adopt, left_running};
use crate::daemon::marking;
use crate::daemon::membership::Membership;
use crate::daemon::module::{Module, data_state};
use crate::daemon::networks::Networks;
use crate::daemon::queue::Queue;
use crate::daemon::recorder::Recorder;
use crate::daemon::renewal::Renewal;
use crate::daemon::replicators::{Replicator, Start};
use crate::daemon::watchdog::Watchdog;
use crate::daemon::{
    Daemon, DaemonOptions, Ending, House, Unwritten, WitnessSeen, isolation, listen, requests,
};
use crate::durable;
use crate::files::{Configuration, ConfigurationError};
use crate::keys::{self, Keys};
use crate::layout::Layout;
use crate::room;
use crate::urgent;

/// A file that only the lab puts into a node.
const LAB_MARK: &str = "/run/lab/evenkeel";
/// What counts as the timeout of a node without modules.
const NO_TIMEOUT: Duration = Duration::from_secs(2);
/// Below here the lab has ways of its own to a node's disks, by which it compares and spoils them.
const LAB_DISKS: &str = "/run/lab/disk";

/// Why a daemon did not start. Nothing has been changed.
#[derive(Debug, Error)]
pub enum StartError {
    /// Mistakes in the configuration.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// This node is not part of the cluster.
    #[error(
        "{file}: there is no node called `{name}`, as this host is; the file names {known}",
        file = file.display()
    )]
    UnknownNode {
        /// The cluster's file.
        file: PathBuf,
        /// This node.
        name: String,
        /// The nodes of the file.
        known: String,
    },
    /// It is not known whether this machine belongs to a cluster.
    #[error("{0}")]
    Interrupted(String),
    /// Links between nodes would be open to everybody.
    #[error(
        "there are no keys in {}, and nodes without keys form a cluster only inside the lab",
        .0.display()
    )]
    NoKeys(PathBuf),
    /// The cluster's keys are of no use.
    #[error("{0}")]
    Keys(io::Error),
    /// Not root.
    #[error("run the daemon as root: it mounts, sets addresses and starts services")]
    NotPrivileged,
    /// No FUSE.
    #[error("replication needs FUSE, but /dev/fuse cannot be opened ({0}); try `modprobe fuse`")]
    NoFuse(io::Error),
    /// Another daemon runs.
    #[error("another daemon runs with this root: {0} is locked")]
    AlreadyRunning(String),
    /// Something the system refused.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// Cause.
        error: io::Error,
    },
}

/// Runs the daemon until it is told to end. What it started goes on.
pub fn run(options: &DaemonOptions) -> Result<(), StartError> {
    let layout = Layout::new(&options.root);
    complete(&layout)?;
    let (configuration, configuring, name, _lock) = configured(options, &layout)?;
    if let Err(error) = urgent::lock_memory() {
        eprintln!("! memory of the daemon may be swapped out: {error}");
    }
    let inherited = Inherited::find();
    let watchdog = configuration.cluster.watchdog.clone();
    let watchdog = Watchdog::take_over(watchdog, layout.watchdog_file());
    let (sender, events) = channel();
    let channel = (&sender, Queue::new(events));
    let daemon = build(layout, (configuration, configuring), name, (watchdog, inherited), channel)
        .and_then(|daemon| daemon.watch_configuration().map(|()| daemon))
        .map_err(|error| system("the daemon cannot start", error))?;
    match daemon.serve() {
        Ending::End => Ok(()),
        Ending::Again => Err(start_anew()),
    }
}

/// Makes up for the last step of an `init` or `join` that was interrupted.
fn complete(layout: &Layout) -> Result<(), StartError> {
    let what = "what an interrupted `evenkeel init` or `join` has left cannot be put in place";
    if belonging::finish(layout).map_err(|error| system(what, error))? {
        eprintln!("an `evenkeel init` or `join` that was interrupted is complete now");
    }
    belonging::interrupted(layout).map_or(Ok(()), |why| Err(StartError::Interrupted(why)))
}

/// What the daemon shall run with: the files, or once one was applied, the newest configuration.
fn configured(
    options: &DaemonOptions,
    layout: &Layout,
) -> Result<(Configuration, Arc<Configuring>, NodeName, File), StartError> {
    let history = |error| system("the history of the configuration", error);
    let newest = Store::of(layout).newest().map_err(history)?;
    let loaded = configuration::load(layout, newest.as_ref())?;
    let name = own_name(options, layout, &loaded.cluster)?;
    check_system(&loaded.modules)?;
    check_keys(layout, &name, &loaded.cluster)?;
    let lock = lock(layout)?;
    let version = configuration::recover(layout, &name).map_err(history)?;
    let pending = Store::of(layout).pending().map_err(history)?;
    let before = version.as_ref().map(|version| &version.files);
    let reserved = cluster::configuration::reserved_by(before, pending.as_ref());
    Ok((loaded, Configuring::new(version, reserved), name, lock))
}

/// Goes on as a new daemon in the same process; the lock and all sockets are let go by that.
fn start_anew() -> StartError {
    let error = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
    system("the daemon cannot start anew; start it by hand", error)
}

/// Whether this node can show who it is, and know the others, unless it is one of a lab.
pub(crate) fn check_keys(
    layout: &Layout,
    name: &NodeName,
    cluster: &ClusterConfig,
) -> Result<(), StartError> {
    let directory = layout.keys_directory();
    keys::check(&directory, name).map_err(StartError::Keys)?;
    let exist = Keys::new(&directory).exist();
    if !exist && cluster.nodes.len() > 1 && !fs::exists(LAB_MARK).unwrap_or(false) {
        return Err(StartError::NoKeys(directory));
    }
    let file = layout.cluster_file();
    let mend = match (exist, cluster.witness, cluster.witness_fingerprint) {
        (true, Some(_), None) => {
            "lacks `fingerprint`, by which nodes with keys know it; `evenkeel witness show` on its \
             machine prints it"
        }
        (false, Some(_), Some(_)) => {
            "has a `fingerprint`, but this node has no keys to show to the witness"
        }
        (true, Some(_), Some(_)) | (false, Some(_), None) | (_, None, _) => return Ok(()),
    };
    Err(StartError::Keys(io::Error::other(format!("{}: [witness] {mend}", file.display()))))
}

fn own_name(
    options: &DaemonOptions,
    layout: &Layout,
    cluster: &ClusterConfig,
) -> Result<NodeName, StartError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = options.node.as_ref().map_or(host, |name| name.as_str().to_owned());
    match cluster.nodes.iter().find(|node| node.name.as_str() == name) {
        Some(node) => Ok(node.name.clone()),
        None => {
            let known: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
            let known = known.join(", ");
            Err(StartError::UnknownNode { file: layout.cluster_file(), name, known })
        }
    }
}

/// Whether a place is one of the lab's own.
pub(super) fn is_the_labs(place: &Path) -> bool {
    place.starts_with(LAB_DISKS) && fs::exists(LAB_MARK).unwrap_or(false)
}

/// Whether this machine can do what the configuration wants.
pub(crate) fn check_system(modules: &[ModuleConfig]) -> Result<(), StartError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotPrivileged);
    }
    if !modules.iter().any(|module| module.kind == ModuleKind::Mirror) {
        return Ok(());
    }
    let device = File::options().read(true).write(true).open("/dev/fuse");
    device.map(drop).map_err(StartError::NoFuse)
}

fn lock(layout: &Layout) -> Result<File, StartError> {
    let directory = layout.run_directory();
    let path = directory.join("daemon.lock");
    let shown = path.display().to_string();
    let file = fs::create_dir_all(&directory)
        .and_then(|()| File::create(&path))
        .map_err(|error| system(&shown, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::AlreadyRunning(shown)),
        Err(errno) => Err(system(&shown, errno.into())),
    }
}

fn build(
    layout: Layout,
    (configuration, configuring): (Configuration, Arc<Configuring>),
    name: NodeName,
    (mut watchdog, inherited): (Watchdog, Inherited),
    (sender, queue): (&Sender<Event>, Queue),
) -> io::Result<Daemon> {
    let cluster = configuration.cluster;
    if let Err(error) = room::set_aside(&layout.state_directory()) {
        eprintln!("! no room can be set aside for a time when the disk is full: {error}");
    }
    let now = clock::now();
    let own = (&layout, &cluster.cluster, &name);
    let (modules, boots) = prepare_all(own, configuration.modules, &mut watchdog, sender)?;
    let boot = boot_of(&cluster, &name, boots)?;
    let heartbeat = first_heartbeat(&boot, configuring.stand(), now);
    watchdog.begin(clock::now(), &boot.modules, left_of(&modules));
    let recorder = Recorder::start(&layout.recording_directory(), now, &boot)?;
    let (node, effects) = Node::new(now, boot);
    let guard = Guard::new(Keys::new(&layout.keys_directory()), &cluster.cluster, &name);
    let guarded = (Contact::new(heartbeat.incarnation), guard, pulses_of(&modules, &name));
    let shortest = shortest_timeout(&modules);
    let heartbeats =
        Heartbeats::start(&cluster, heartbeat, guarded, wedged_after(&modules), sender)?;
    isolation::begin(&cluster, shortest, layout.gateways_file(), sender)?;
    let hold_off = HoldOff::new(cluster.fence.clone(), &name, modules.keys(), sender)?;
    let (door, health) = open_entrances(&layout, &cluster, &name, sender)?;
    let mut daemon = Daemon {
        inherited: inherited.except(&programs_of(&modules)),
        renewal: Renewal::new(&layout.keys_directory(), &name),
        journal: Journal::open(&layout.event_file(), &name)?,
        layout,
        cluster,
        name,
        node,
        next_generation: modules.len() as u64,
        modules,
        hold_off,
        heartbeats,
        health,
        door,
        configuring,
        recorder,
        sender: sender.clone(),
        queue,
        jobs: BTreeMap::new(),
        next_job: 0,
        waiting: Vec::new(),
        witness: WitnessSeen::default(),
        watchdog,
        house: House { kept: now, quarantines: None, room: now, networks: Networks::new(now) },
        // What is reported is said once the first records are written, and not before.
        unwritten: Unwritten { unannounced: true, ..Unwritten::default() },
    };
    daemon.record(now, &effects);
    daemon.perform(effects);
    Ok(daemon)
}

/// The modules of which something runs still that was to be ended.
fn left_of(modules: &BTreeMap<ModuleName, Module>) -> impl Iterator<Item = &ModuleName> {
    let left = modules.iter().filter(|(_, module)| module.application.is_left());
    left.map(|(name, _)| name)
}

/// The processes of all applications.
fn programs_of(modules: &BTreeMap<ModuleName, Module>) -> Vec<Pid> {
    modules.values().flat_map(|module| module.application.pids()).collect()
}

/// What the core begins with.
fn boot_of(cluster: &ClusterConfig, name: &NodeName, modules: Vec<BootModule>) -> io::Result<Boot> {
    Ok(Boot {
        name: name.clone(),
        boot: clock::boot_id()?,
        cluster: cluster.clone(),
        cluster_digest: config::cluster_digest(cluster),
        modules,
        wall: clock::wall(),
        seed: clock::random(),
    })
}

/// How long the main loop may stand still before the node must not look alive: as long as nobody
/// takes it for lost.
fn wedged_after(modules: &BTreeMap<ModuleName, Module>) -> Duration {
    shortest_timeout(modules).unwrap_or(NO_TIMEOUT) / 2
}

/// Of the mirrors; none where there is none.
fn shortest_timeout(modules: &BTreeMap<ModuleName, Module>) -> Option<Duration> {
    let mirrors = modules.values().filter(|module| module.config.kind == ModuleKind::Mirror);
    let timeouts = mirrors.map(|module| module.config.failover.timeout);
    timeouts.min()
}

/// The farms among the modules, for those who send and hear their pulses.
fn pulses_of(modules: &BTreeMap<ModuleName, Module>, name: &NodeName) -> Pulses {
    let mut pulses = Pulses::default();
    for module in modules.values() {
        if let Some(driver) = &module.farm {
            pulses.add(name, &module.config, driver.places());
        }
    }
    pulses
}

fn open_entrances(
    layout: &Layout,
    cluster: &ClusterConfig,
    name: &NodeName,
    sender: &Sender<Event>,
) -> io::Result<(Arc<Door>, Health)> {
    let (layout, own, cluster) = (layout.clone(), name.clone(), cluster.clone());
    let keys = Keys::new(&layout.keys_directory());
    let socket = layout.control_socket();
    let health = Health::start(cluster.health)?;
    let door = Arc::new(Door::new(Membership { layout, own, cluster, keys }));
    listen::at_peer_port(&door, sender)?;
    listen::at_control_socket(&socket, sender)?;
    requests::terminate_on_signal(sender.clone())?;
    Ok((door, health))
}

/// The coming heartbeat, but for its reports and stamps.
fn first_heartbeat(boot: &Boot, configuration: Stand, now: Time) -> Heartbeat {
    Heartbeat {
        from: boot.name.clone(),
        boot: boot.boot,
        incarnation: now.as_nanos(),
        sequence: 0,
        echo: 0,
        echo_incarnation: 0,
        cluster_digest: boot.cluster_digest,
        configuration,
        reports: BTreeMap::new(),
    }
}

/// Prepares all modules, each of which may take its time.
fn prepare_all(
    (layout, cluster, name): (&Layout, &ModuleName, &NodeName),
    configs: Vec<ModuleConfig>,
    watchdog: &mut Watchdog,
    sender: &Sender<Event>,
) -> io::Result<(BTreeMap<ModuleName, Module>, Vec<BootModule>)> {
    let mut modules = BTreeMap::new();
    let mut boots = Vec::new();
    for (generation, config) in (0..).zip(configs) {
        let (module, boot) = prepare(layout, cluster, name, config, generation, sender)?;
        modules.insert(module.config.name.clone(), module);
        boots.push(boot);
        watchdog.keep(clock::now());
    }
    Ok((modules, boots))
}

/// Reads what is known of a module, and finds what an earlier daemon of this boot left running.
fn prepare(
    layout: &Layout,
    cluster: &ModuleName,
    node: &NodeName,
    config: ModuleConfig,
    generation: u64,
    events: &Sender<Event>,
) -> io::Result<(Module, BootModule)> {
    let record: Record = durable::read(&layout.record_file(&config.name))?.unwrap_or_default();
    let log = layout.log_file(&config.name, "application");
    let programs = layout.programs_file(&config.name);
    let application = Application::new(&config, log, programs, events)?;
    let checks = Checks::new(application.shared(), events)?;
    let log = layout.log_file(&config.name, "before-resync");
    let before_resync = BeforeResync::new(&config, node, log, events)?;
    let number = record.number.unwrap_or(0);
    let adopted = Replicator::adopt(&Start {
        layout,
        cluster,
        node,
        config: &config,
        number,
        generation,
        events,
    })?;
    let mut module = Module {
        config: config.clone(),
        replicator: None,
        addresses: crate::daemon::addresses::Addresses::default(),
        application,
        checks,
        before_resync,
        farm: farms::driver(layout, node, &config, events)?,
        progress: wire::local::Progress::default(),
        resync_rate: config.replication.resync_rate,
        closing: None,
        closing_serial: None,
        number,
        verifying: None,
        record: record.clone(),
        places: Vec::new(),
        marked: None,
    };
    let (data, running) = match adopted {
        Some((replicator, found)) => {
            replicator.resync_rate(module.resync_rate)?;
            module.replicator = Some(replicator);
            module.number = found.number;
            marking::begin(layout, &mut module);
            (data_of(&record), Some(adopt(layout, &mut module, found.assignment)))
        }
        None => {
            let running = left_running(layout, node, &mut module)?;
            marking::begin(layout, &mut module);
            (data_state(&config), running)
        }
    };
    let digest = config::digest(&config);
    Ok((module, BootModule { config, digest, record, data, running }))
}

/// The directories cannot be looked at while a replicator covers them; it has checked them.
fn data_of(record: &Record) -> DataState {
    match &record.epoch {
        Some(epoch) => DataState::Marked { root: record.root, epoch: epoch.id },
        None => DataState::Empty,
    }
}

fn system(what: &str, error: io::Error) -> StartError {
    StartError::System { what: what.to_owned(), error }
}
