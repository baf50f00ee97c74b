//! Configurations in files: what each host has of them, how one is applied to both, and how a
//! daemon takes it into use.
//!
//! Who agrees to what, what has to be stopped, what became of a proposal and who catches up with
//! whom is decided by the code that decides in production (`cluster::configuration`,
//! `model::config`). Here is what `node` does around it: a history on the disk, what was agreed to
//! beside it, questions between the nodes, and a daemon that ends and begins anew over what it has
//! left running.

mod apply;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::Input;
use cluster::configuration::{self, Origin, Own, Proposal, Version};
use cluster::input::Command;
use model::config::{self, Files, Stand};
use model::{Fingerprint, ModuleName, Role};

pub(crate) use apply::{Ask, Told, has_number};
pub(crate) use text::Parsed;

use crate::light::{Light, web};
use crate::promises::Promise;
use crate::story::node;
use crate::world::{Happening, World, shop};

/// How long a daemon is away that starts anew in its own process.
const ANEW: Duration = Duration::from_millis(15);
/// Time between two looks at the peer's configuration, and at what is pending.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// The configurations of one host.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// What was in use, newest last; on the disk.
    history: Vec<Arc<Version>>,
    /// What was agreed to, without knowing the outcome; on the disk.
    pending: Option<Proposal>,
    /// The files as they lie there.
    draft: Files,
    /// What the daemon runs with.
    pub(crate) in_use: Arc<Parsed>,
    /// Modules that have to stay stopped.
    reserved: BTreeSet<ModuleName>,
    work: apply::Work,
}

/// What the world knows of the configurations of both.
#[derive(Debug, Default, Clone)]
pub(crate) struct Decided {
    read: BTreeMap<Fingerprint, Arc<Parsed>>,
    stands: Vec<Stand>,
    /// The operator applied without a node, or over what it had.
    apart: bool,
    proposals: u64,
}

impl Held {
    /// The newest that was taken. There is always one.
    fn newest(&self) -> &Version {
        &self.history[self.history.len() - 1]
    }

    fn has(&self, stand: &Stand) -> bool {
        self.history.iter().any(|version| version.stand() == *stand)
    }

    /// Nothing of what an ended daemon kept in its memory is left.
    fn begin(&mut self, own: &model::NodeName) {
        let newest = self.newest().number;
        let stale =
            |pending: &Proposal| pending.version.number <= newest || pending.version.from == *own;
        if self.pending.as_ref().is_some_and(stale) {
            self.pending = None;
        }
        let before = Some(&self.newest().files);
        self.reserved = configuration::reserved_by(before, self.pending.as_ref());
        self.work = apply::Work::default();
    }

    /// The files follow the newest configuration, but for those that were edited.
    fn follow(&mut self, before: &Files, version: &Version, overwrite: bool) {
        let edited = configuration::edited(&self.draft, version, &before.digests());
        let stays = |path: &String| !overwrite && edited.contains(path);
        let kept = self.draft.0.iter().filter(|(path, _)| stays(path));
        let kept: Vec<_> = kept.map(|(path, text)| (path.clone(), text.clone())).collect();
        let gone: Vec<&String> = edited.iter().filter(|path| stays(path)).collect();
        let mut draft = version.files.clone();
        draft.0.retain(|path, _| !gone.contains(&path));
        draft.0.extend(kept);
        self.draft = draft;
    }
}

/// What a story does with the configuration.
///
/// # Errors
/// The words say nothing.
pub(crate) fn order(world: &mut World, words: &[&str]) -> Result<bool, String> {
    match words {
        ["files"] => world.begin_files()?,
        ["edit", n, rest @ ..] => world.edit(node(n)?, rest)?,
        ["apply", n] => world.apply(node(n)?, false, false),
        ["apply", n, "alone"] => world.apply(node(n)?, true, false),
        ["apply", n, "overwrite"] => world.apply(node(n)?, false, true),
        ["agree"] => apply::settle(world),
        _ => return Ok(false),
    }
    Ok(true)
}

impl World {
    /// From now on the configuration lies in files on both hosts: what was set so far.
    pub(crate) fn begin_files(&mut self) -> Result<(), String> {
        let files = text::of_world(self);
        let from = self.hosts[0].name.clone();
        let version =
            Version { number: 0, at_ms: 0, from, origin: Origin::Found, files: files.clone() };
        let in_use = self.parsed(&version)?;
        let version = Arc::new(version);
        for host in &mut self.hosts {
            host.files = Some(Box::new(Held {
                history: vec![Arc::clone(&version)],
                pending: None,
                draft: files.clone(),
                in_use: Arc::clone(&in_use),
                reserved: BTreeSet::new(),
                work: apply::Work::default(),
            }));
        }
        Ok(())
    }

    /// The operator edits the files on a host, if there are any.
    pub(crate) fn edit(&mut self, i: usize, words: &[&str]) -> Result<(), String> {
        let held = self.hosts[i].files.as_mut();
        held.map_or(Ok(()), |held| text::edit(&mut held.draft, words))
    }

    fn parsed(&mut self, version: &Version) -> Result<Arc<Parsed>, String> {
        let digest = version.files.digest();
        let known = self.decided.read.get(&digest);
        if let Some(known) = known.filter(|known| known.stand.number == version.number) {
            return Ok(Arc::clone(known));
        }
        let parsed = Arc::new(Parsed::of(version)?);
        self.decided.read.insert(digest, Arc::clone(&parsed));
        Ok(parsed)
    }

    /// What a host's daemon runs with, if the configuration lies in files.
    pub(crate) fn in_use(&self, i: usize) -> Option<&Arc<Parsed>> {
        self.hosts[i].files.as_ref().map(|held| &held.in_use)
    }

    /// A daemon begins: it makes whole what the one before it has left, and takes the newest
    /// configuration into use. What that stops must be stopped.
    pub(crate) fn begin_configured(&mut self, i: usize) {
        let name = self.hosts[i].name.clone();
        let Some(held) = &mut self.hosts[i].files else { return };
        held.begin(&name);
        let newest = held.newest().clone();
        let before = Arc::clone(&held.in_use);
        let Ok(parsed) = self.parsed(&newest) else { return };
        let host = &mut self.hosts[i];
        if parsed.modules.contains_key(&web()) && host.light.is_none() {
            host.light = Some(Light::default());
        }
        let new = before.stand != parsed.stand;
        if let Some(held) = &mut host.files {
            held.in_use = Arc::clone(&parsed);
        }
        if !new {
            return;
        }
        // With different timeouts one may take the address before the other has dropped it.
        let timeout = |i: usize| self.in_use(i)?.module(&shop()).map(|m| m.failover.timeout);
        if timeout(0) != timeout(1) {
            self.loosen();
        }
        let stop = config::to_stop(&config::changes(&before.files, &parsed.files));
        let runs = stop.iter().find(|module| self.runs_anything(i, module));
        if let Some(module) = runs {
            let number = parsed.stand.number;
            let what = format!("{name} takes configuration {number} into use while {module} runs");
            self.violate(Promise::StoppedForAChange, what);
        }
        self.note(&format!("{name} has configuration {}", parsed.stand.number));
    }

    fn runs_anything(&self, i: usize, module: &ModuleName) -> bool {
        let host = &self.hosts[i];
        if *module == shop() {
            return host.service || host.addresses || host.replicator.running;
        }
        host.light.as_ref().is_some_and(|light| light.service || light.addresses)
    }

    /// The modules among these that are not stopped on a host, as its daemon sees it.
    fn running_of(&self, i: usize, modules: &BTreeSet<ModuleName>) -> BTreeSet<ModuleName> {
        let host = &self.hosts[i];
        let Some(node) = &host.node else { return BTreeSet::new() };
        let status = node.status(self.own_time(i));
        let runs = |name: &&ModuleName| {
            let role = status.modules.get(*name).map(|module| module.role);
            let replicates = **name == shop() && host.replicator.running;
            role.is_some_and(|role| role != Role::Stop) || replicates
        };
        modules.iter().filter(runs).cloned().collect()
    }

    /// A session begins between the nodes.
    pub(crate) fn check_rules(&mut self) {
        if let (Some(one), Some(other)) = (self.in_use(0), self.in_use(1))
            && text::differ_in_rules(one, other)
        {
            let numbers = [one.stand.number, other.stand.number];
            let what = format!("their configurations are {numbers:?}");
            self.violate(Promise::OneRule, what);
        }
    }

    /// Keeps modules stopped that are so.
    fn reserve(&mut self, i: usize, modules: BTreeSet<ModuleName>) -> Result<(), String> {
        let running = self.running_of(i, &modules);
        if let Some(module) = running.first() {
            return Err(format!("module {module} runs on {}", self.hosts[i].name));
        }
        if let Some(held) = &mut self.hosts[i].files {
            held.reserved.extend(modules);
        }
        Ok(())
    }

    /// Whether a host is told to start a module that may not be started now.
    pub(crate) fn is_refused(&mut self, i: usize, input: &Input) -> bool {
        let Input::Operator { module, command, .. } = input else { return false };
        let starts = matches!(command, Command::Start | Command::ForcePrimary);
        let held = self.hosts[i].files.as_ref();
        let refused = starts && held.is_some_and(|held| held.reserved.contains(module));
        if refused {
            let name = self.hosts[i].name.clone();
            self.note(&format!("{name} refuses to start {module} for a configuration"));
        }
        refused
    }

    /// A host agrees to a proposal, durably, or says why not.
    fn agree(&mut self, i: usize, proposal: &Proposal) -> Result<(), String> {
        let host = &self.hosts[i];
        let Some(held) = &host.files else { return Err("there are no files".to_owned()) };
        let own = Own {
            node: &host.name,
            stand: held.newest().stand(),
            pending: held.pending.as_ref(),
            draft: &held.draft,
        };
        proposal.version.files.check()?;
        configuration::judge(&own, proposal)?;
        let changes = config::changes(&held.newest().files, &proposal.version.files);
        config::possible(&changes)?;
        self.parsed(&proposal.version)?;
        self.reserve(i, config::to_stop(&changes))?;
        if self.hosts[i].full {
            self.release(i);
            return Err("no space left".to_owned());
        }
        self.written(i, |held| held.pending = Some(proposal.clone()));
        Ok(())
    }

    fn release(&mut self, i: usize) {
        if let Some(held) = &mut self.hosts[i].files {
            held.reserved.clear();
        }
    }

    /// Writes something of the configuration to the disk, unless power is lost before.
    fn written(&mut self, i: usize, write: impl FnOnce(&mut Held)) {
        if self.hosts[i].node.is_some() && self.crashes_now(i) {
            self.power(i);
        }
        if self.hosts[i].up
            && let Some(held) = &mut self.hosts[i].files
        {
            write(held);
        }
    }

    /// Takes a version into use from the coming start on; whether that could be written.
    fn take(&mut self, i: usize, version: &Version, overwrite: bool) -> bool {
        if self.hosts[i].full {
            return false;
        }
        let taken = Arc::new(version.clone());
        self.written(i, |held| {
            let before = held.newest().files.clone();
            held.history.push(taken);
            held.follow(&before, version, overwrite);
        });
        self.hosts[i].up
    }

    /// Makes what was agreed to the newest; whether it is there.
    fn carry_out(&mut self, i: usize, id: &str, stand: &Stand) -> bool {
        let Some(held) = &self.hosts[i].files else { return false };
        if held.has(stand) {
            return true;
        }
        let Some(pending) = held.pending.clone().filter(|pending| pending.id == id) else {
            return false;
        };
        if !self.take(i, &pending.version, pending.overwrite) {
            return false;
        }
        self.written(i, |held| held.pending = None);
        self.hosts[i].files.as_ref().is_some_and(|held| held.has(stand))
    }

    /// What was agreed to comes to nothing.
    fn abandon(&mut self, i: usize, id: &str) {
        let held = self.hosts[i].files.as_ref();
        let mine = held.and_then(|held| held.pending.as_ref()).is_some_and(|own| own.id == id);
        if mine {
            self.written(i, |held| held.pending = None);
            self.release(i);
        }
    }

    /// The daemon goes on as a new one in the same process.
    fn start_anew(&mut self, i: usize) {
        if !self.hosts[i].up {
            return;
        }
        // It is away for so short a time that nothing it holds runs out, unless it was to run out
        // just now.
        if !self.is_calm() {
            self.loosen();
        }
        self.end_daemon(i);
        self.after(ANEW, Happening::Anew(i));
    }

    pub(crate) fn comes_anew(&mut self, i: usize) {
        if !self.hosts[i].up {
            self.boot(i);
        }
    }
}
