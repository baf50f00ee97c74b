//! The cluster's configuration in a running daemon: what is in use, what is asked about it, and
//! which modules have to stay stopped while one is applied.
//!
//! A daemon takes a new configuration into use by starting anew in its own process; what it runs
//! goes on. All work on disks and with other nodes is done by threads, never by the main loop.

mod answer;
mod apply;
mod history;
mod watch;

pub(crate) use watch::Stands;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster::configuration::Version;
use cluster::input::Command;
use model::config::{self, Change, Files, Stand};
use model::{ModuleName, NodeName, Reason, Role, Severity, Time};
use serde_json::{Value, json};
use wire::control::{Configuring as Ask, Exit, Reply};

use crate::clock;
use crate::configuration;
use crate::configuration::store::Store;
use crate::daemon::Daemon;
use crate::daemon::event::{Event, Line};
use crate::daemon::membership::Membership;

/// Held by whoever changes the history of this node. The main loop never waits for it, as whoever
/// has it may be waiting for the main loop.
pub(super) static WRITING: Mutex<()> = Mutex::new(());
/// Held by whoever has all nodes change their configuration, from here.
pub(super) static DECIDING: Mutex<()> = Mutex::new(());

/// What the threads of a daemon share about its configuration.
pub(crate) struct Configuring {
    /// What this daemon runs with.
    version: Option<Version>,
    /// Modules that have to stay stopped, for what was agreed to relies on it.
    reserved: Mutex<BTreeSet<ModuleName>>,
    seen: Mutex<Seen>,
}

/// What is seen now and then.
#[derive(Default)]
struct Seen {
    /// What the files would change, or why they cannot be read.
    draft: Option<Result<Vec<Change>, String>>,
    /// What was agreed to, and by whom it was proposed.
    pending: Option<(u64, NodeName)>,
    /// Why this node stays behind a peer, and how far that is.
    behind: Option<(u64, String)>,
    /// The peer with which this node's configuration is in conflict.
    conflict: Option<NodeName>,
    /// What the peers have in use.
    peers: BTreeMap<NodeName, Stand>,
    since: BTreeMap<&'static str, Time>,
}

impl Configuring {
    pub(crate) fn new(
        version: Option<Version>,
        reserved: BTreeSet<ModuleName>,
    ) -> Arc<Configuring> {
        let (reserved, seen) = (Mutex::new(reserved), Mutex::default());
        Arc::new(Configuring { version, reserved, seen })
    }

    /// What this daemon runs with, as heartbeats tell it.
    pub(crate) fn stand(&self) -> Stand {
        self.version.as_ref().map(Version::stand).unwrap_or_default()
    }

    /// Whether a module has to stay stopped.
    pub(crate) fn is_reserved(&self, module: &ModuleName) -> bool {
        lock(&self.reserved).contains(module)
    }

    fn release(&self) {
        lock(&self.reserved).clear();
    }

    fn status(&self, own: &NodeName, now: Time) -> Value {
        let mut seen = lock(&self.seen);
        let reasons = seen.reasons(own, self.stand().number, now);
        let version = self.version.as_ref();
        json!({
            "number": version.map(|version| version.number),
            "digest": version.map(|version| version.files.digest().to_string()),
            "at_ms": version.map(|version| version.at_ms),
            "from": version.map(|version| &version.from),
            "origin": version.map(|version| version.origin),
            "pending": seen.pending,
            "peers": seen.peers.iter().map(|(node, stand)| (node, stand.number))
                .collect::<BTreeMap<_, _>>(),
            "reasons": reasons,
        })
    }
}

impl Seen {
    fn reasons(&mut self, own: &NodeName, number: u64, now: Time) -> Vec<Reason> {
        let mut found = Vec::new();
        if let Some((number, from)) = &self.pending {
            let sentence = format!(
                "{own} has agreed to configuration {number} of {from} and does not know whether it \
                 was decided: modules that it stops cannot be started meanwhile"
            );
            let next = format!(
                "bring {from} back, or without it: evenkeel apply --overwrite --without {from}"
            );
            found.push(("config-undecided", sentence, Vec::new(), vec![next]));
        }
        if let Some((number, why)) = &self.behind {
            let sentence = format!("{own} cannot take configuration {number} into use");
            let next = vec!["mend that: it is tried again by itself".to_owned()];
            found.push(("config-behind", sentence, vec![why.clone()], next));
        }
        if let Some(peer) = &self.conflict {
            let sentence =
                format!("{own} and {peer} were given different configurations without each other");
            let next =
                vec!["on the node that has the right one: evenkeel apply --overwrite".into()];
            found.push(("config-conflict", sentence, Vec::new(), next));
        }
        found.extend(self.edited(own, number));
        self.since.retain(|code, _| found.iter().any(|(known, ..)| known == code));
        let each = |(code, sentence, evidence, next)| {
            let since = *self.since.entry(code).or_insert(now);
            let (code, severity) = (String::from(code), Severity::Warning);
            Reason { code, sentence, severity, since, evidence, next }
        };
        found.into_iter().map(each).collect()
    }

    fn edited(&self, own: &NodeName, number: u64) -> Option<Told> {
        let mut next = vec!["evenkeel plan".to_owned(), "evenkeel apply".to_owned()];
        if number == 0 {
            next.push("or the same files on every node, and their daemons started anew".to_owned());
        }
        match self.draft.as_ref()? {
            Ok(changes) if changes.is_empty() => None,
            Ok(changes) => {
                let files: BTreeSet<&str> = changes.iter().map(|change| &*change.file).collect();
                let files: Vec<&str> = files.into_iter().collect();
                let sentence = format!("edited on {own}, and not in use: {}", files.join(", "));
                Some(("config-edited", sentence, Vec::new(), next))
            }
            Err(why) => {
                let sentence = format!("the files of {own} could not be applied as they are");
                Some(("config-edited", sentence, vec![why.clone()], next))
            }
        }
    }
}

/// A reason: code, sentence, facts, mend.
type Told = (&'static str, String, Vec<String>, Vec<String>);

/// What a thread needs that works on the configuration.
#[derive(Clone)]
struct Context {
    membership: Membership,
    configuring: Arc<Configuring>,
    events: Sender<Event>,
}

impl Context {
    fn store(&self) -> Store {
        Store::of(&self.membership.layout)
    }

    fn own(&self) -> &NodeName {
        &self.membership.own
    }

    /// Takes a configuration into use from the coming start on, and has that remembered.
    fn take(&self, before: &Files, version: &Version, overwrite: bool) -> io::Result<()> {
        configuration::take(&self.membership.layout, version, overwrite)?;
        let Version { number, from, .. } = version;
        let changes = config::changes(before, &version.files);
        let each = |change: Change| format!("{} {}", change.file, change.key).trim().to_owned();
        let _ = self.events.send(Event::Explain(cluster::effect::Event {
            module: None,
            code: "config-applied".to_owned(),
            severity: Severity::Info,
            sentence: format!("{} takes configuration {number} of {from} into use", self.own()),
            evidence: changes.into_iter().map(each).collect(),
        }));
        Ok(())
    }

    /// Has the main loop keep modules stopped that are so, or only say whether they are.
    fn reserve(&self, modules: BTreeSet<ModuleName>, dry_run: bool) -> Result<(), Running> {
        let (answer, answered) = channel();
        let asked = self.events.send(Event::Reserve(Reservation { modules, dry_run, answer }));
        match asked.ok().and_then(|()| answered.recv().ok()) {
            Some(running) if running.is_empty() => Ok(()),
            Some(running) => Err(Running(running)),
            None => Err(Running(BTreeSet::new())),
        }
    }
}

/// Modules that run although they would have to be stopped.
struct Running(BTreeSet<ModuleName>);

impl Running {
    fn sentence(&self, node: &NodeName) -> String {
        let names: Vec<&str> = self.0.iter().map(ModuleName::as_str).collect();
        match names.as_slice() {
            [] => "the daemon is just ending".to_owned(),
            [name] => format!("module {name} runs on {node}, and has to be stopped for this"),
            names => {
                format!(
                    "modules {} run on {node}, and have to be stopped for this",
                    names.join(", ")
                )
            }
        }
    }
}

/// Asks the main loop to keep modules stopped.
pub(crate) struct Reservation {
    modules: BTreeSet<ModuleName>,
    dry_run: bool,
    answer: Sender<BTreeSet<ModuleName>>,
}

impl Daemon {
    /// Answers which of the modules run; if none does, none can be started from now on.
    pub(super) fn reserve(&self, reservation: Reservation) {
        let status = self.node.status(clock::now());
        let Reservation { modules, dry_run, answer } = reservation;
        let runs = |name: &&ModuleName| {
            let runs = status.modules.get(*name).is_some_and(|module| module.role != Role::Stop);
            runs || self.modules.get(*name).is_some_and(|module| module.replicator.is_some())
        };
        let running: BTreeSet<ModuleName> = modules.iter().filter(runs).cloned().collect();
        if running.is_empty() && !dry_run {
            lock(&self.configuring.reserved).extend(modules);
        }
        let _ = answer.send(running);
    }

    /// Why a module cannot be started now.
    pub(super) fn reserved(&self, module: &ModuleName, command: Command) -> Option<Reply> {
        let starts = matches!(command, Command::Start | Command::ForcePrimary);
        let what = format!("a configuration is just being applied for which {module} is stopped");
        (starts && self.configuring.is_reserved(module)).then(|| Reply {
            next: vec!["evenkeel status".to_owned()],
            ..Reply::new(Exit::Refused, what)
        })
    }

    pub(super) fn configuration_status(&self, now: Time) -> Value {
        self.configuring.status(&self.name, now)
    }

    /// What concerns the configuration; on a thread of its own.
    pub(super) fn configure(&self, ask: Ask, lines: Sender<Line>) {
        let context = self.configuring_context();
        let working = move || {
            let line = match ask {
                Ask::Apply { how } => apply::apply(&context, &how, &lines),
                Ask::Prepare { proposal, dry_run } => {
                    Line::Reply(answer::prepare(&context, &proposal, dry_run))
                }
                Ask::Commit { id, stand } => answer::commit(&context, &id, &stand),
                Ask::Abandon { id } => Line::Reply(answer::abandon(&context, &id)),
                Ask::Testify { id, stand } => Line::Reply(answer::testify(&context, &id, &stand)),
                Ask::Fetch { own } => Line::Reply(answer::newest(&context, &own)),
                Ask::Show { which } => Line::Reply(history::show(&context, &which)),
                Ask::History => Line::Reply(history::list(&context)),
            };
            let _ = lines.send(line);
        };
        // Without a thread nobody answers, which the asker sees as the end of its connection.
        let _ = std::thread::Builder::new().name("configure".to_owned()).spawn(working);
    }

    /// Starts the thread that looks after the files and after the peers' configurations.
    pub(super) fn watch_configuration(&self) -> std::io::Result<()> {
        let (context, peers) = (self.configuring_context(), self.heartbeats.stands());
        let watching = move || watch::watch(&context, &peers);
        std::thread::Builder::new().name("configuration".to_owned()).spawn(watching).map(drop)
    }

    fn configuring_context(&self) -> Context {
        Context {
            membership: self.membership(),
            configuring: Arc::clone(&self.configuring),
            events: self.sender.clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
