//! The replicator of one mirror module: a process of its own.
//!
//! ```text
//! daemon ──assignment──> main loop ─┬─ Held: read-only directories
//!        <──events─────             ├─ Receiving: a session's operations -> store
//!                                   └─ Serving: FUSE -> primary -> outbox -> peer
//! ```
//!
//! Main loop and serving know nothing of clusters: what to be is told by the daemon, and the
//! acknowledgement rule that it sets is enforced here alone.

mod checkpoint;
mod compare;
mod contents;
mod daemon_link;
mod delta;
mod excluded;
mod formerly;
mod greeter;
mod hearing;
mod keep;
mod keeper_link;
mod limit;
mod links;
mod log;
mod look_back;
mod moved;
mod options;
mod outbox;
mod packing;
mod ping;
mod place;
mod primary;
mod progress;
pub(crate) mod quarantine;
mod receiving;
mod released;
mod remove;
mod serving;
mod source;
mod store;
mod summarize;
mod tolerant;
mod verifier;
mod walker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cluster::effect::{Assignment, Ending, Serve};
use cluster::input::ReplicatorEvent;
use model::{NodeName, SessionId};
use mount::backing::Root;
use wire::local::{FromReplicator, Kept, ToReplicator, Verification};

use crate::durable;
use crate::keys::Keys;
use crate::layout;
use crate::marker;
use crate::replicator::daemon_link::{DaemonLink, Packet};
use crate::replicator::greeter::Greeter;
use crate::replicator::keep::{Keep, Notes};
use crate::replicator::keeper_link::{KeeperLink, Left};
use crate::replicator::log::ActivityLog;
use crate::replicator::log::unwatched::Past;
use crate::replicator::look_back::LookBack;
use crate::replicator::options::Directory;
pub use crate::replicator::options::ReplicatorOptions;
use crate::replicator::primary::Primary;
use crate::replicator::quarantine::Quarantine;
use crate::replicator::receiving::Receiving;
use crate::replicator::serving::Serving;

struct Replicator {
    options: ReplicatorOptions,
    directories: Vec<Directory>,
    daemon: Arc<DaemonLink>,
    keeper: Arc<KeeperLink>,
    log: Arc<ActivityLog>,
    look_back: LookBack,
    greeter: Greeter,
    mode: Mode,
    number: u64,
    serial: u64,
    assignment: Assignment,
}

enum Mode {
    /// Nothing is mounted yet.
    Plain,
    /// The directories are visible and read-only.
    Held,
    Receiving(Box<Receiving>),
    Serving(Box<Serving>),
}

/// Runs until it is told to close.
pub fn run(options: ReplicatorOptions) -> io::Result<()> {
    mount::prepare();
    let (keeper, mut left) = KeeperLink::open(options.keeper)?;
    let kept = left.kept.remove(&Kept::Memory).map(Keep::left).transpose()?;
    let kept = kept.and_then(|keep| Some((keep.notes()?, keep)));
    let directories = match &kept {
        None => open_directories(&options)?,
        Some(_) => left_directories(&options, &mut left)?,
    };
    let number = kept.as_ref().map_or(options.number, |(_, keep)| keep.counts().number());
    let (log, damage) = ActivityLog::open(&options.log, number)?;
    if let Some(damage) = damage {
        eprintln!("{damage}");
    }
    let past = match &kept {
        // Which goes on to watch.
        Some(_) => Past::Shows,
        None => begin(&log, &options, &roots(&directories))?,
    };
    let (serial, assignment) = match &kept {
        None => (0, Assignment::Hold { ending: Ending::Cut }),
        Some((notes, _)) => (notes.serial, Assignment::Serve(notes.serve.clone())),
    };
    let (sender, packets) = channel();
    let state = FromReplicator::State { serial, assignment: assignment.clone(), number };
    let daemon = DaemonLink::start(&options.module, &directories, state, sender)?;
    watch_keeper(&keeper, &daemon)?;
    let look_back = LookBack::new(past, &directories, &log, &daemon);
    let greeter = Greeter::new(Keys::new(&options.keys), &daemon);
    let mut replicator = Replicator {
        options,
        greeter,
        directories,
        daemon,
        keeper,
        log,
        look_back,
        mode: Mode::Plain,
        number,
        serial,
        assignment,
    };
    if let Some((notes, keep)) = kept {
        replicator.resume(&notes, keep, left)?;
    }
    replicator.serve_daemon(&packets);
    Ok(())
}

/// Begins a log anew, with what is known of the time since it was written last.
fn begin(log: &ActivityLog, options: &ReplicatorOptions, roots: &[Arc<Root>]) -> io::Result<Past> {
    let covered = durable::read(&options.covered)?;
    let doubtful = log.leave_out(options.excluded())?;
    let past = match (log.begin(roots, covered)?, doubtful) {
        (Past::Restored, _) => Past::Restored,
        (past, None) => past,
        (_, Some(doubtful)) => doubtful,
    };
    // The log knows it now.
    if covered.is_some() {
        durable::remove(&options.covered)?;
    }
    Ok(past)
}

fn open_directories(options: &ReplicatorOptions) -> io::Result<Vec<Directory>> {
    let mut directories = Vec::new();
    for path in &options.directories {
        let below = mount::below(path).map_err(io::Error::from)?;
        if let Some(first) = below.first() {
            let what = format!(
                "{} has the mount point {} below it; give that file system its own entry in \
                 `replicate`, or unmount it",
                path.display(),
                first.display()
            );
            return Err(io::Error::other(what));
        }
        let root = Root::open(path).map_err(io::Error::from)?;
        if let Some(why) = mount::unfit(path, &root) {
            return Err(io::Error::other(why));
        }
        directories.push(options.directory(path, Arc::new(root)));
    }
    Ok(directories)
}

fn roots(directories: &[Directory]) -> Vec<Arc<Root>> {
    directories.iter().map(|directory| Arc::clone(&directory.root)).collect()
}

/// The directories as a predecessor had opened them, below its mounts.
fn left_directories(options: &ReplicatorOptions, left: &mut Left) -> io::Result<Vec<Directory>> {
    let mut directories = Vec::new();
    for (index, path) in (0..).zip(&options.directories) {
        let root = left.kept.remove(&Kept::Root(index));
        let root = root.ok_or_else(|| io::Error::other("the keeper lacks a directory"))?;
        let root = Arc::new(Root::of(root).map_err(io::Error::from)?);
        directories.push(options.directory(path, root));
    }
    Ok(directories)
}

/// Tells the daemon when there is nobody any more who keeps what a successor needs.
fn watch_keeper(keeper: &Arc<KeeperLink>, daemon: &Arc<DaemonLink>) -> io::Result<()> {
    if !keeper.is_there() {
        return Ok(());
    }
    let (keeper, daemon) = (Arc::clone(keeper), Arc::clone(daemon));
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        keeper.wait_for_end();
        daemon.event(ReplicatorEvent::Unkept);
    })?;
    Ok(())
}

impl Replicator {
    fn serve_daemon(&mut self, packets: &Receiver<Packet>) {
        for (message, descriptor) in packets {
            match message {
                ToReplicator::Assign { serial, assignment, peer } => {
                    let closing = assignment == Assignment::Close;
                    self.assign(serial, assignment, peer);
                    if closing {
                        self.daemon.flush();
                        return;
                    }
                }
                ToReplicator::Connection(caller) => {
                    let entrance = match &self.mode {
                        Mode::Receiving(receiving) => Some(receiving.entrance()),
                        Mode::Plain | Mode::Held | Mode::Serving(_) => None,
                    };
                    // A caller that is not heard sees its connection closed.
                    let socket = descriptor.map(std::net::TcpStream::from);
                    if let Some(socket) = socket {
                        self.greeter.greet(caller, socket, entrance);
                    }
                }
                ToReplicator::Silent { addresses } => match &self.mode {
                    Mode::Serving(serving) => serving.leave(&addresses),
                    Mode::Receiving(receiving) => receiving.leave(&addresses),
                    Mode::Plain | Mode::Held => {}
                },
                ToReplicator::Query => self.introduce(),
                ToReplicator::Verify { serial, repair } => self.verify(serial, repair),
                // Taken by the link itself.
                ToReplicator::Mark { .. } | ToReplicator::ResyncRate { .. } => {}
            }
        }
    }

    /// Tells a new daemon what an earlier one may have missed. The assignment it has been told
    /// already.
    fn introduce(&self) {
        self.look_back.introduce();
        let (wanted, linked) = match (&self.mode, &self.assignment) {
            (Mode::Receiving(receiving), _) => (Some(receiving.session()), receiving.linked()),
            (Mode::Serving(serving), Assignment::Serve(serve)) => {
                if let Some(why) = serving.failed() {
                    self.daemon.event(ReplicatorEvent::CopyFailed { why });
                }
                (serve.session.as_ref().map(|session| session.id), serving.linked())
            }
            (Mode::Serving(_) | Mode::Plain | Mode::Held, _) => (None, None),
        };
        match (wanted, linked) {
            (_, Some(session)) => {
                self.daemon.event(ReplicatorEvent::LinkUp { session });
                if let Mode::Serving(serving) = &self.mode {
                    self.tell_reached(session, serving);
                }
            }
            (Some(session), None) => {
                let why = "the link was lost while no daemon listened".to_owned();
                self.daemon.event(ReplicatorEvent::LinkLost { session, why });
            }
            (None, None) => {}
        }
    }

    fn verify(&mut self, serial: u64, repair: bool) {
        let begun = match &mut self.mode {
            Mode::Serving(serving) => serving.verify(serial, repair),
            _ => Err("this node does not serve".to_owned()),
        };
        if let Err(why) = begun {
            let ended = Some(why);
            let report = Verification { serial, ended, ..Verification::default() };
            self.daemon.tell(FromReplicator::Verified(report));
        }
    }

    /// Tells once more what may not have been heard of a session.
    fn tell_reached(&self, session: SessionId, serving: &Serving) {
        let (settled, durable) = serving.reached();
        if settled {
            let number = serving.number();
            self.daemon.event(ReplicatorEvent::Synced { session, number });
        }
        if let Some(number) = durable {
            self.daemon.event(ReplicatorEvent::TargetDurable { session, number });
        }
    }

    /// Goes on serving where a predecessor died.
    fn resume(&mut self, notes: &Notes, keep: Keep, mut left: Left) -> io::Result<()> {
        // Its mounts still cover the directories, and nothing has been changed yet.
        self.look_back.begin()?;
        let (directories, log) = (&self.directories, &self.log);
        let with = (&self.keeper, &mut left);
        let primary = Primary::open(directories, keep, with, &self.daemon, log)?;
        let to = self.options.to(&notes.serve, &notes.peer);
        let with = (&self.keeper, &mut left);
        let serving = Serving::resume(primary, with, directories, notes, to)?;
        self.keeper.resumed();
        let how = left.ended.unwrap_or_default();
        eprintln!("goes on after operation {}: {how}", serving.number());
        self.daemon.event(ReplicatorEvent::Resumed { how });
        serving.ask_durable();
        let wanted = notes.serve.session.as_ref();
        if let (Some(session), false) = (wanted, serving.has_source()) {
            let why = "the replicator died while the target was being brought up to date";
            let (session, why) = (session.id, why.to_owned());
            self.daemon.event(ReplicatorEvent::LinkLost { session, why });
        }
        self.mode = Mode::Serving(Box::new(serving));
        Ok(())
    }

    fn assign(&mut self, serial: u64, assignment: Assignment, peer: Vec<SocketAddr>) {
        let result = match &assignment {
            Assignment::Close => self.close(),
            Assignment::Hold { ending } => self.hold(*ending),
            Assignment::Receive { session, source, quarantine } => {
                self.receive(*session, source, *quarantine)
            }
            Assignment::Serve(serve) => self.serve(serial, serve, peer),
        };
        self.serial = serial;
        let event = match result {
            Ok(drained) => {
                self.assignment = assignment;
                let number = match &self.mode {
                    Mode::Serving(serving) => serving.ruled_after(),
                    Mode::Plain | Mode::Held | Mode::Receiving(_) => self.number(),
                };
                ReplicatorEvent::Assigned { serial, number, drained }
            }
            Err(error) => {
                self.assignment = Assignment::Hold { ending: Ending::Cut };
                let held = self.hold(Ending::Cut).err();
                let also = held.map(|error| format!("; nor can it hold: {error}"));
                let why = format!("{error}{}", also.unwrap_or_default());
                ReplicatorEvent::Refused { serial, why }
            }
        };
        self.daemon.note(serial, &self.assignment, self.number());
        self.daemon.event(event);
        if let Mode::Serving(serving) = &self.mode {
            // Only now, so that the daemon hears of the rule before it hears of its fulfilment.
            serving.ask_durable();
        }
    }

    fn number(&self) -> u64 {
        match &self.mode {
            Mode::Plain | Mode::Held => self.number,
            Mode::Receiving(receiving) => receiving.number(),
            Mode::Serving(serving) => serving.number(),
        }
    }

    /// Ends any session and any serving; says whether everything is durable on both nodes.
    fn hold(&mut self, ending: Ending) -> io::Result<bool> {
        let drained = match std::mem::replace(&mut self.mode, Mode::Held) {
            Mode::Plain | Mode::Held => true,
            Mode::Receiving(receiving) => {
                self.number = receiving.end();
                true
            }
            Mode::Serving(serving) => {
                let (number, drained) = serving.end(ending);
                self.number = number;
                drained
            }
        };
        for directory in &self.directories {
            mount::read_only_bind(&directory.path, &directory.root).map_err(io::Error::from)?;
        }
        self.look_back.begin()?;
        Ok(drained)
    }

    fn close(&mut self) -> io::Result<bool> {
        let drained = self.hold(Ending::Cut)?;
        self.look_back.end();
        self.log.uncover(&roots(&self.directories))?;
        self.show_plain()?;
        serving::sync_all(&self.directories)?;
        Ok(drained)
    }

    fn show_plain(&mut self) -> io::Result<()> {
        for directory in &self.directories {
            mount::undo_read_only_bind(&directory.path, &directory.root)
                .map_err(io::Error::from)?;
        }
        self.mode = Mode::Plain;
        Ok(())
    }

    fn receive(
        &mut self,
        session: SessionId,
        source: &NodeName,
        quarantine: Option<Duration>,
    ) -> io::Result<bool> {
        if let Mode::Receiving(receiving) = &self.mode
            && receiving.session() == session
        {
            return Ok(true);
        }
        self.hold(Ending::Cut)?;
        for directory in &self.directories {
            if let Err(errno) = marker::probe(&*directory.root) {
                let why = format!("{} takes no changes: {errno}", directory.path.display());
                self.daemon.event(ReplicatorEvent::CopyFailed { why: why.clone() });
                return Err(io::Error::other(why));
            }
        }
        let folder = self.options.log.with_file_name(layout::QUARANTINE);
        let quarantine = quarantine
            .map(|begun| Quarantine::open(&folder, begun, &self.directories))
            .transpose()
            .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?;
        let receiving = Receiving::new(
            session,
            source,
            self.number,
            (&self.directories, quarantine),
            &self.daemon,
            &self.log,
        )?;
        self.mode = Mode::Receiving(Box::new(receiving));
        Ok(true)
    }

    fn serve(&mut self, serial: u64, serve: &Serve, peer: Vec<SocketAddr>) -> io::Result<bool> {
        let to = self.options.to(serve, &peer);
        if let Mode::Serving(serving) = &mut self.mode {
            serving.change(serve, to)?;
            serving.open(serve.epoch)?;
            serving.keep(serial, serve, peer)?;
            return Ok(true);
        }
        // The read-only view stays beneath the mount: whatever becomes of the mount, the plain
        // directories never show.
        self.hold(Ending::Cut)?;
        let (directories, log) = (&self.directories, &self.log);
        let keep = Keep::new(directories.len(), self.number)?;
        let with = (&self.keeper, &mut Left::default());
        log.choose(&roots(directories))?;
        let primary = Primary::open(directories, keep, with, &self.daemon, log)?;
        let serving = Serving::start(primary, &self.keeper, directories, serve, to)?;
        serving.keep(serial, serve, peer)?;
        self.mode = Mode::Serving(Box::new(serving));
        Ok(true)
    }
}

/// A channel whose sender never fails to matter: the main loop lives as long as the process.
type PacketSender = Sender<Packet>;
