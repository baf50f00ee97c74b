//! The walk's part for a resync that goes through suspects alone: what is suspect, the way to it,
//! and what of it is compared.
//!
//! The two logs must meet in a state that both copies shared; else, and whenever something that
//! they name is not found, everything is compared.

use std::collections::BTreeSet;

use activity::{Entry, Point};
use mount::backing::{self, Kind};
use replica::op::FileId;
use replica::{Names, Step, Theirs, Walk};
use rustix::io::Errno;
use wire::recall::{Recalled, Strayed};
use wire::replication::{Forward, put_forward};

use crate::replicator::compare;
use crate::replicator::log::suspects::Suspects;
use crate::replicator::moved::Moves;
use crate::replicator::primary::TreeNames;
use crate::replicator::source::{Heard, next};
use crate::replicator::walker::Walker;

/// Entries that may be looked up while changes are held up.
const HELD_UP_MAX: usize = 256;

/// Doubtful names on the way to one object.
const DOUBTS_MAX: usize = 1 << 14;

/// What the target said of its copy.
type TheirSuspects = Vec<(u16, Vec<u8>, Strayed)>;

impl Walker {
    /// Finds out what to compare; false when the session has ended.
    pub(super) fn plan(&mut self) -> bool {
        let Some((recalled, theirs)) = self.recall() else { return false };
        let why = match self.shared(&recalled) {
            Ok(()) => match self.plan_delta(&theirs) {
                Ok(why) => return self.begin(why),
                Err(why) => why,
            },
            Err(why) => why,
        };
        self.plan_all(&why);
        true
    }

    fn begin(&mut self, why: Option<String>) -> bool {
        if let Some(why) = &why {
            eprintln!("resync: {why}");
        }
        why.is_some()
    }

    fn recall(&mut self) -> Option<(Recalled, TheirSuspects)> {
        let mut recalled = Recalled::default();
        let mut theirs = Vec::new();
        loop {
            match next(&self.link, &self.heard)? {
                Heard::Recalled(heard) => recalled = heard,
                Heard::Suspects { last, suspects } => {
                    theirs.extend(suspects);
                    if last {
                        return Some((recalled, theirs));
                    }
                }
                Heard::Listed { .. }
                | Heard::Summarized { .. }
                | Heard::Differ { .. }
                | Heard::Absent(_)
                | Heard::Astray(..)
                | Heard::Checked(_) => {}
            }
        }
    }

    /// Whether the two logs together name every difference.
    fn shared(&self, recalled: &Recalled) -> Result<(), String> {
        let point = self.link.primary.log().point();
        let point = point.ok_or("the activity log of the source does not name everything")?;
        if !recalled.usable {
            return Err("the target's activity log does not name what it may lack".to_owned());
        }
        let target = Point {
            base: recalled.base,
            previous: recalled.previous,
            as_target: recalled.as_target,
            cooled: 0,
            begun: recalled.begun,
        };
        if point.suffices_for(&target) {
            Ok(())
        } else {
            Err("the two activity logs do not meet in a state that both copies shared".to_owned())
        }
    }

    /// Everything is compared.
    fn plan_all(&mut self, why: &str) {
        let trees = u16::try_from(self.link.primary.trees().len()).unwrap_or(u16::MAX);
        self.walk = Walk::new(0..trees);
        self.meter.compare_all(&format!("the trees are compared whole, by hash: {why}"));
        let order = self.link.order.lock();
        if let Some(live) = self.link.primary.lock().live_of(self.link.id) {
            live.known.compare_all();
        }
        drop(order);
    }

    /// Only suspects are compared. The sentence for people; none when the session has ended.
    fn plan_delta(&mut self, theirs: &TheirSuspects) -> Result<Option<String>, String> {
        let link = std::sync::Arc::clone(&self.link);
        let (log, trees) = (link.primary.log(), link.primary.trees());
        let mut suspects = Suspects::default();
        let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut fresh = || {
            let entries = log.entries().into_iter();
            let fresh = entries.filter(|entry| {
                let mut bytes = Vec::new();
                entry.put(&mut bytes);
                seen.insert(bytes)
            });
            fresh.collect::<Vec<Entry>>()
        };
        let mut ours = 0;
        let order = loop {
            let entries = fresh();
            ours += entries.len();
            suspects.add(trees, &entries);
            let order = link.order.lock();
            let late = fresh();
            ours += late.len();
            if late.len() <= HELD_UP_MAX {
                suspects.add(trees, &late);
                suspects.retry(trees);
                break order;
            }
            drop(order);
            suspects.add(trees, &late);
        };
        for (tree, path, strayed) in theirs {
            suspects.add_theirs(trees, *tree, path, *strayed);
        }
        let pinned = std::mem::take(&mut suspects.pinned);
        let mut inner = link.primary.lock();
        let Some(live) = inner.live_of(link.id) else { return Ok(None) };
        pinned.into_iter().for_each(|file| live.is_pinned(file));
        if let Some(why) = suspects.hopeless {
            return Err(why);
        }
        let directories = suspects.directories.keys().copied();
        let undressed = suspects.parts.iter().map(|(file, ..)| *file);
        live.known.compare_suspects(directories, suspects.doubted(), undressed);
        drop(inner);
        drop(order);
        self.moves = Moves::new(std::mem::take(&mut suspects.moved));
        let levels = suspects.levels();
        let why = format!(
            "only what changed since both copies were last equal is compared: {ours} entries of \
             this node's activity log and {} of the target's",
            theirs.len()
        );
        self.meter.compare_suspects(&why, &levels);
        self.walk = Walk::through(levels.into_iter());
        Ok(Some(why))
    }

    /// Whether a name in a suspect directory needs no second look: on both nodes stands something
    /// of one kind and size, and on neither did it come or change lately.
    pub(super) fn is_same(
        &self,
        directory: FileId,
        name: &[u8],
        theirs: Option<&Theirs>,
    ) -> Result<bool, Errno> {
        let place = self.tree(directory)?.path_descriptor(directory)?;
        let stat = match backing::open_name(&*place, name).and_then(backing::stat) {
            Ok(stat) => stat,
            // Gone meanwhile, which the target was or will be told.
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        let since = self.link.primary.log().since();
        let alike = theirs.is_some_and(|theirs| {
            theirs.kind == stat.kind().dirent()
                && !theirs.recent
                && (stat.kind() != Kind::File || theirs.size == stat.size)
        });
        Ok(alike && !compare::is_recent(&stat, since) && !self.is_doubtful(directory, name))
    }

    /// Puts the attributes of an object right, and has part of its content compared.
    pub(super) fn part(&mut self, file: FileId, offset: u64, end: u64) -> Result<(), Errno> {
        if !self.reach(file)? {
            return Ok(());
        }
        if file.node == 1 {
            self.attributes(file)?;
            if let Some(live) = self.link.primary.lock().live_of(self.link.id) {
                live.known.attributes_are_right(file);
            }
            return self.finish(file);
        }
        if !self.describe(file)? {
            return Ok(());
        }
        if offset < end {
            self.walk.found_part(file, offset, end);
            Ok(())
        } else {
            self.finish(file)
        }
    }

    /// Sends what an object is, without its content; false when it has no name any more.
    fn describe(&mut self, file: FileId) -> Result<bool, Errno> {
        let link = std::sync::Arc::clone(&self.link);
        let _order = link.order.lock();
        let trees = link.primary.trees();
        let mut inner = link.primary.lock();
        let Some(live) = inner.live_of(link.id) else { return Ok(false) };
        let names = TreeNames(trees).names_of(file);
        let known = &live.known;
        let trusted = names
            .into_iter()
            .find(|(parent, name)| known.is_bound(*parent) && known.is_trusted(*parent, name));
        let Some((parent, name)) = trusted else { return Ok(false) };
        let mut put = Ok(());
        live.outbox.put_quietly(|out| {
            put = compare::put_ensure(out, trees, file, (true, true), (parent, &name))
        });
        live.known.attributes_are_right(file);
        match put {
            Err(Errno::NOENT | Errno::STALE) => Ok(false),
            put => put.map(|()| true),
        }
    }

    /// Binds an object at the target with everything above it, putting names right where they are
    /// not trusted; false when it has no name any more.
    pub(super) fn reach(&mut self, file: FileId) -> Result<bool, Errno> {
        let link = std::sync::Arc::clone(&self.link);
        let trees = link.primary.trees();
        for _ in 0..DOUBTS_MAX {
            if link.is_ended() {
                return Ok(false);
            }
            let order = link.order.lock();
            let mut inner = link.primary.lock();
            let Some(live) = inner.live_of(link.id) else { return Ok(false) };
            if let Some(steps) = live.known.reach(file, &TreeNames(trees)) {
                live.outbox.put_quietly(|out| steps.iter().for_each(|step| put_bind(out, step)));
                live.pin_bound(trees, &steps);
                return Ok(true);
            }
            let blocked = topmost_doubt(&live.known, file, &TreeNames(trees));
            drop(inner);
            drop(order);
            let Some((parent, name)) = blocked else { return Ok(false) };
            // All above that name is trusted.
            if !self.reach(parent)? {
                return Ok(false);
            }
            self.entry(parent, &name, false)?;
        }
        Err(Errno::LOOP)
    }

    pub(super) fn is_delta(&self) -> bool {
        let mut inner = self.link.primary.lock();
        inner.live_of(self.link.id).is_some_and(|live| live.known.is_delta())
    }

    pub(super) fn names_are_right(&self, directory: FileId) {
        if let Some(live) = self.link.primary.lock().live_of(self.link.id) {
            live.known.names_are_right(directory);
        }
    }

    /// Notes that a name is right from here on; says whether the walk goes through suspects alone.
    pub(super) fn name_is_right(&self, parent: FileId, name: &[u8]) -> bool {
        let mut inner = self.link.primary.lock();
        let Some(live) = inner.live_of(self.link.id) else { return false };
        live.known.name_is_right(parent, name);
        live.known.is_delta()
    }

    pub(super) fn is_trusted(&self, parent: FileId, name: &[u8]) -> bool {
        let mut inner = self.link.primary.lock();
        let live = inner.live_of(self.link.id);
        live.is_some_and(|live| live.known.is_trusted(parent, name))
    }

    fn is_doubtful(&self, parent: FileId, name: &[u8]) -> bool {
        let mut inner = self.link.primary.lock();
        let live = inner.live_of(self.link.id);
        live.is_some_and(|live| live.known.is_doubtful(parent, name))
    }
}

pub(super) fn put_bind(out: &mut Vec<u8>, step: &Step) {
    if let Step::Bind { file, parent, name } = step {
        put_forward(out, &Forward::Bind { file: *file, parent: *parent, name });
    }
}

/// The name nearest to the root, on the way to an object, that is in the way.
fn topmost_doubt(
    known: &replica::Session,
    file: FileId,
    names: &dyn Names,
) -> Option<(FileId, Vec<u8>)> {
    let mut doubt = None;
    let mut at = file;
    while !known.is_bound(at) {
        let all = names.names_of(at);
        let trusted = all.iter().find(|(parent, name)| known.is_trusted(*parent, name));
        let (parent, name) = trusted.or(all.first())?.clone();
        if !known.is_trusted(parent, &name) {
            doubt = Some((parent, name));
        }
        at = parent;
    }
    doubt
}
