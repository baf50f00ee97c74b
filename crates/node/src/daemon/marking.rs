//! Markers that follow the record, over crashes in between: the record is written first, and what
//! is to be marked is noted before that, so that a daemon which finds the note can finish.
//!
//! Only directories that hold what the record says are marked: one on which a disk is not mounted
//! would be taken for it ever after. What a marker says is in `marker`; whether a node may use
//! what it finds is decided by the core.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use cluster::data_fault;
use cluster::input::DataState;
use cluster::record::Record;
use model::config::ModuleConfig;
use model::{EpochId, ModuleName};
use serde::{Deserialize, Serialize};

use crate::daemon::module::{Module, data_state, look_at, marked};
use crate::durable;
use crate::layout::Layout;
use crate::marker;

/// Identity and epoch of the data, as markers hold them.
type Marks = (u128, EpochId);

/// What markers are changed from and to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marking {
    /// None where there were no markers, or it was not known what they say.
    before: Option<Marks>,
    wanted: Marks,
    /// The directories without markers; none where they were not seen plain.
    places: Vec<Place>,
}

/// Tells a directory from the one that its disk is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    inode: u64,
    /// When it was made, since 1970, where the file system tells it.
    born: Option<Duration>,
}

/// Makes a record durable, and the markers that belong to it.
pub(super) fn persist(layout: &Layout, module: &mut Module, record: &Record) -> io::Result<()> {
    let name = module.config.name.clone();
    if forgets(record, &module.record) {
        if module.replicator.is_some() {
            // It was started over directories that have been found good since.
            return Err(io::Error::other("a replicator holds the directories: restart the daemon"));
        }
        forget(&module.config, &module.record, record)?;
        module.marked = None;
    }
    let wanted = marks(record).filter(|wanted| module.marked != Some(*wanted));
    let known = module.replicator.is_some()
        || wanted.is_none()
        || data_fault(&module.record, &data_state(&module.config)).is_none();
    let note = layout.marking_file(&name);
    if let (Some(wanted), true) = (wanted, known) {
        if module.replicator.is_none() {
            module.places = places(&module.config);
        }
        let places = module.places.clone();
        durable::write(&note, &Marking { before: module.marked, wanted, places })?;
    }
    durable::write(&layout.record_file(&name), record)?;
    module.record = record.clone();
    let Some(wanted) = wanted else { return Ok(()) };
    if !known {
        eprintln!("! {name} marker: the directories do not hold the module's data now");
        return Ok(());
    }
    match module.mark(wanted) {
        Ok(()) => end(&note),
        // The record is durable, so this is no failure of the record. A marker may lag: it is
        // written with the next record, or when a daemon finds the note.
        Err(error) => eprintln!("! {name} marker: {error}"),
    }
    Ok(())
}

/// Whether the record that is to be written knows nothing any more of what the node has held.
fn forgets(record: &Record, before: &Record) -> bool {
    record.root == 0 && (before.root != 0 || before.quarantine != record.quarantine)
}

/// Removes the markers before the record is written: a node that remembers its data and finds no
/// markers says so, while one that has forgotten them could not tell whose the markers are.
fn forget(config: &ModuleConfig, before: &Record, record: &Record) -> io::Result<()> {
    let found = data_state(config);
    if let DataState::Unusable { why, fillable: false } = found {
        return Err(io::Error::other(why));
    }
    if before.root != 0 && data_fault(before, &found).is_none() {
        let why = "the directories hold the module's data, which the daemon has not seen as it \
                   began; restart it";
        return Err(io::Error::other(why));
    }
    if record.quarantine.is_none() && found != DataState::Empty {
        // Nothing would be kept of what was put there since the daemon began.
        let why = "the directories were empty as the daemon began, and are not now; restart it";
        return Err(io::Error::other(why));
    }
    config.replicate.iter().try_for_each(|path| marker::remove(path))
}

/// A daemon begins: what do the markers say, once what the one before it could not finish is done?
/// Its directories are covered by a replicator or plain.
pub(super) fn begin(layout: &Layout, module: &mut Module) {
    if module.replicator.is_some() {
        module.marked = marks(&module.record);
    } else {
        module.marked = marked(&module.config);
        module.places = places(&module.config);
    }
    finish(layout, module);
}

fn finish(layout: &Layout, module: &mut Module) {
    let name = module.config.name.clone();
    let note = layout.marking_file(&name);
    let marking: Marking = match durable::read(&note) {
        Ok(Some(marking)) => marking,
        Ok(None) => return,
        Err(error) => return eprintln!("! {error}"),
    };
    if marks(&module.record) != Some(marking.wanted) {
        // The record was not written.
        return end(&note);
    }
    let plain = module.replicator.is_none();
    let mut paths = module.config.replicate.iter().enumerate();
    if plain && !paths.all(|(index, path)| is_due(path, index, &name, &marking)) {
        return;
    }
    match module.mark(marking.wanted) {
        Ok(()) => end(&note),
        Err(error) => eprintln!("! {name} marker: {error}"),
    }
}

impl Module {
    fn mark(&mut self, (root, epoch): Marks) -> io::Result<()> {
        match &mut self.replicator {
            Some(replicator) => replicator.mark(root, epoch),
            None => self.mark_plain(root, epoch),
        }?;
        self.marked = Some((root, epoch));
        Ok(())
    }
}

/// What the markers are to say; nothing as long as there is nothing to be told apart.
fn marks(record: &Record) -> Option<Marks> {
    let epoch = record.epoch.as_ref().filter(|_| record.root != 0)?;
    Some((record.root, epoch.id))
}

fn places(config: &ModuleConfig) -> Vec<Place> {
    config.replicate.iter().map_while(|path| place(path)).collect()
}

fn place(path: &Path) -> Option<Place> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Some(Place { inode: metadata.ino(), born })
}

/// Whether a directory is one that was to be marked. One without a marker may be where its disk is
/// to be mounted.
fn is_due(path: &Path, index: usize, name: &ModuleName, marking: &Marking) -> bool {
    match look_at(path) {
        Ok((Some(marker), _)) => {
            let found = (marker.root, marker.epoch);
            marker.module == *name && (found == marking.wanted || Some(found) == marking.before)
        }
        Ok((None, _)) => {
            let noted = marking.places.get(index).copied();
            marking.before.is_none() && noted.is_some() && noted == place(path)
        }
        Err(_) => false,
    }
}

fn end(note: &Path) {
    if let Err(error) = durable::remove(note) {
        eprintln!("! {}: {error}", note.display());
    }
}

#[cfg(test)]
#[path = "marking_tests.rs"]
mod tests;
