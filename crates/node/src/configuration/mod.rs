//! The configurations of a node: the files as they lie there, the history of what was applied, and
//! whether this node could use a configuration.
//!
//! As long as none was applied, a daemon uses the files as it finds them. From then on it uses the
//! newest one of the history, and the files are where the next one is drafted. Who may change what,
//! and when, is `cluster::configuration`'s.

pub(crate) mod accept;
pub(crate) mod draft;
pub(crate) mod store;

use std::io;

use cluster::configuration::{Origin, Proposal, Version};
use model::NodeName;
use model::config::{CLUSTER_FILE, Files};

use crate::clock;
use crate::configuration::store::{Kept, Store};
use crate::files::{self, Configuration, ConfigurationError};
use crate::layout::Layout;

/// Makes an earlier daemon's work whole and returns what is in use: nothing if that cannot
/// be kept in a history, as files are that no message could carry.
pub(crate) fn recover(layout: &Layout, node: &NodeName) -> io::Result<Option<Version>> {
    let store = Store::of(layout);
    let newest = store.newest()?.filter(|newest| newest.number > 0);
    let pending = store.pending()?;
    let Some(newest) = newest else {
        drop_undecided(&store, node, pending.as_ref())?;
        return found(layout, &store, node);
    };
    if store.written() != Some(newest.number) {
        let overwrite = pending
            .as_ref()
            .is_some_and(|pending| pending.version.number == newest.number && pending.overwrite);
        settle(layout, &store, &newest, overwrite);
    }
    match pending {
        Some(pending) if pending.version.number <= newest.number => store.drop_pending()?,
        pending => drop_undecided(&store, node, pending.as_ref())?,
    }
    Ok(Some(newest))
}

/// What this node has proposed itself and not decided before it ended comes to nothing.
fn drop_undecided(store: &Store, node: &NodeName, pending: Option<&Proposal>) -> io::Result<()> {
    match pending {
        Some(pending) if pending.version.from == *node => store.drop_pending(),
        Some(_) | None => Ok(()),
    }
}

/// The files as they are, before any were applied.
fn found(layout: &Layout, store: &Store, node: &NodeName) -> io::Result<Option<Version>> {
    let Ok(files) = draft::read(layout) else { return Ok(None) };
    let known = store.get(0)?;
    if let Some(known) = known.filter(|known| known.files == files) {
        return Ok(Some(known));
    }
    let version =
        Version { number: 0, at_ms: wall_ms(), from: node.clone(), origin: Origin::Found, files };
    // Without it the daemon starts all the same, as on a disk that is full.
    if let Err(error) = store.add(&version) {
        eprintln!("! the files cannot be remembered as they are: {error}");
    }
    Ok(Some(version))
}

/// What a daemon starts with.
pub(crate) fn load(
    layout: &Layout,
    version: Option<&Version>,
) -> Result<Configuration, ConfigurationError> {
    match version {
        Some(version) if version.number > 0 => files::parse(layout, &version.files),
        Some(_) | None => files::load(layout),
    }
}

/// Takes a configuration into use, from this node's next start on: the moment at which it becomes
/// the newest of the history is the one that counts. With `overwrite` edited files are set aside,
/// else they stay, and are still edited then.
pub(crate) fn take(layout: &Layout, version: &Version, overwrite: bool) -> io::Result<()> {
    let store = Store::of(layout);
    if overwrite && let Ok(draft) = draft::read(layout) {
        let before = before(&store, version.number)?;
        let edited = cluster::configuration::edited(&draft, version, &before.digests());
        let kept = |path: String| draft.0.get(&path).cloned().map(|content| (path, content));
        let files: Files = Files(edited.into_iter().filter_map(kept).collect());
        if !files.0.is_empty() {
            store.keep(&Kept { at_ms: wall_ms(), replaced_by: version.number, files })?;
        }
    }
    store.add(version)?;
    settle(layout, &store, version, overwrite);
    Ok(())
}

/// Has the files follow the newest configuration. What fails is no failure of the configuration,
/// which is in the history: the files then look edited, and are written at the next start.
fn settle(layout: &Layout, store: &Store, version: &Version, overwrite: bool) {
    let settled = before(store, version.number).and_then(|before| {
        draft::follow(layout, &before, version, overwrite)?;
        store.note_written(version.number)
    });
    if let Err(error) = settled {
        eprintln!("! the files do not follow configuration {}: {error}", version.number);
    }
}

/// What the files were written from last.
fn before(store: &Store, number: u64) -> io::Result<Files> {
    let earlier = |known: &u64| *known < number;
    let written = store.written().filter(earlier);
    let last = match written {
        Some(written) => Some(written),
        None => store.numbers()?.into_iter().rev().find(earlier),
    };
    let before = last.map(|number| store.get(number)).transpose()?.flatten();
    Ok(before.map(|version| version.files).unwrap_or_default())
}

/// A configuration like another one, with another `cluster.toml`, as membership changes it.
pub(crate) fn with_cluster_text(newest: &Version, node: &NodeName, text: &str) -> Version {
    let mut files = newest.files.clone();
    if let Some(file) = files.0.get_mut(CLUSTER_FILE) {
        text.clone_into(&mut file.text);
    }
    let (number, at_ms, from) = (newest.number + 1, wall_ms(), node.clone());
    Version { number, at_ms, from, origin: Origin::Membership, files }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
