//! What must be left when both copies have lost what was not synced: per file, the content and
//! attributes of its last returned sync or of any later moment, under any name it had since.
//!
//! Beyond POSIX, a synced file's name is taken to be durable with it, as it is on ext4 and xfs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::judge::misfit;
use super::model::{Id, Inode, Model, Node, ROOT, SHARED_ID, Scope};
use super::op::{Op, SHARED};
use super::tree::{Entry, Kind, Tree};

/// A file as it may be found.
#[derive(Debug, Default)]
struct Track {
    /// A sync of it, or of the directory of its name, has returned.
    promised: bool,
    /// Its last name went away since.
    may_be_gone: bool,
    /// Every content since the last sync of its data; `None` as long as there was none.
    contents: Option<Vec<Arc<Vec<u8>>>>,
    /// All attributes since the last full sync.
    states: Option<Vec<Inode>>,
    /// Directories and names that it may be found under.
    locations: BTreeSet<(Id, String)>,
}

/// Compares what is found with what was synced.
pub(super) fn judge(ops: &[&Op], open: Option<&Op>, found: &Tree) -> Result<(), Vec<String>> {
    let mut model = Model::new();
    let mut tracks: BTreeMap<Id, Track> = BTreeMap::new();
    for (op, returned) in ops.iter().map(|op| (*op, true)).chain(open.map(|op| (op, false))) {
        let effect = model.apply(op).map_err(|_| misfit(op))?;
        if let Some(id) = effect.changed {
            tracks.entry(id).or_default().follow(model.get(id));
        }
        if effect.names {
            follow_names(&model, &mut tracks);
        }
        if let Some((id, scope)) = effect.synced.filter(|_| returned) {
            sync(&model, &mut tracks, id, scope);
        }
    }
    let mut findings = Vec::new();
    for (id, track) in tracks.iter().filter(|(_, track)| track.promised) {
        findings.extend(track.missed(*id, &tracks, found));
    }
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn follow_names(model: &Model, tracks: &mut BTreeMap<Id, Track>) {
    let mut here: BTreeMap<Id, Vec<(Id, String)>> = BTreeMap::new();
    for (path, id) in model.names() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(parent) = model.id(parent).filter(|_| !name.is_empty()) {
            here.entry(id).or_default().push((parent, name.to_owned()));
        }
    }
    for (id, track) in tracks.iter_mut() {
        match here.remove(id) {
            Some(names) => track.locations.extend(names),
            None => track.may_be_gone = true,
        }
    }
}

fn sync(model: &Model, tracks: &mut BTreeMap<Id, Track>, id: Id, scope: Scope) {
    let Some(inode) = model.get(id) else { return };
    if let Node::Directory(entries) = &inode.node {
        for id in entries.values() {
            // The shared directory is nobody's, and has none.
            let Some(track) = tracks.get_mut(id) else { continue };
            track.promised = true;
            track.may_be_gone = false;
        }
    }
    let Some(track) = tracks.get_mut(&id) else { return };
    track.promised = true;
    track.may_be_gone = false;
    if let Node::File(content) = &inode.node {
        track.contents = Some(vec![Arc::clone(content)]);
    }
    if scope == Scope::Whole {
        track.states = Some(vec![inode.clone()]);
        track.locations = model.locations(id).into_iter().collect();
    }
}

impl Track {
    fn follow(&mut self, inode: Option<&Inode>) {
        let Some(inode) = inode else { return };
        if let (Node::File(content), Some(contents)) = (&inode.node, &mut self.contents)
            && contents.last() != Some(content)
        {
            contents.push(Arc::clone(content));
        }
        if let Some(states) = &mut self.states {
            states.push(inode.clone());
        }
    }

    /// What is wrong with this file; nothing if it is found as it may be.
    fn missed(&self, id: Id, tracks: &BTreeMap<Id, Track>, found: &Tree) -> Option<String> {
        let mut wrong = None;
        for (path, entry) in found.iter().filter(|(path, _)| may_lie(id, path, tracks)) {
            match self.unlike(entry) {
                None => return None,
                Some(why) => wrong = Some(format!("{path:?}: {why}")),
            }
        }
        if self.may_be_gone {
            return None;
        }
        wrong.or_else(|| {
            let (_, name) = self.locations.first()?;
            Some(format!("{name:?}: was synced and is missing"))
        })
    }

    fn unlike(&self, entry: &Entry) -> Option<String> {
        if let Some(contents) = &self.contents {
            let Kind::File(found) = &entry.kind else {
                return Some(format!("{} instead of a synced file", entry.kind.word()));
            };
            if let Some(at) = strange(contents, found) {
                let sizes: Vec<usize> = contents.iter().map(|content| content.len()).collect();
                return Some(format!(
                    "byte {at} of {} is none that it had since its last sync (sizes {sizes:?})",
                    found.len()
                ));
            }
        }
        let states = self.states.as_ref()?;
        let any = |fits: &dyn Fn(&Inode) -> bool| states.iter().any(fits);
        if !any(&|state| state.mode == entry.mode || matches!(state.node, Node::Symlink(_))) {
            return Some(format!("mode {:o} is none since its last sync", entry.mode));
        }
        if !any(&|state| state.owner == entry.owner) {
            return Some(format!("owner {:?} is none since its last sync", entry.owner));
        }
        if !any(&|state| state.attributes == entry.attributes) {
            return Some("its extended attributes are none since its last sync".to_owned());
        }
        // A directory's time also changes with the names in it.
        let timeless = entry.kind == Kind::Directory;
        if !any(&|state| timeless || state.mtime.is_none() || state.mtime == entry.mtime) {
            return Some(format!("mtime {:?} is none since its last sync", entry.mtime));
        }
        None
    }
}

/// Whether a file may lie under a path, the directories above being wherever they may.
fn may_lie(id: Id, path: &str, tracks: &BTreeMap<Id, Track>) -> bool {
    // These two never move.
    if id <= SHARED_ID {
        return path == if id == ROOT { "" } else { SHARED };
    }
    let Some(track) = tracks.get(&id) else { return false };
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    let here = |(directory, name): &(Id, String)| {
        name == last && !last.is_empty() && may_lie(*directory, parent, tracks)
    };
    track.locations.iter().any(here)
}

/// The first byte that is none of what the file held since its sync.
fn strange(contents: &[Arc<Vec<u8>>], found: &[u8]) -> Option<usize> {
    let least = contents.iter().map(|content| content.len()).min().unwrap_or(0);
    let most = contents.iter().map(|content| content.len()).max().unwrap_or(0);
    if found.len() < least || found.len() > most {
        return Some(found.len());
    }
    (0..found.len()).find(|at| {
        let known = contents.iter().any(|content| content.get(*at) == Some(&found[*at]));
        // A file that grew may have got its size before its data.
        let grown = *at >= least && found[*at] == 0;
        !known && !grown
    })
}
