//! Looks through the directories for what was changed past replication, while no replicator
//! watched: what has a change time of then becomes a suspect of the activity log.
//!
//! It runs in the background of whatever the replicator does. A disk that was put back to an
//! earlier state does not show here, as the change times are old too; nor do changes under a clock
//! that was set back in between. `evenkeel verify` finds both.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use activity::{Entry, Part, Window};
use cluster::input::ReplicatorEvent;
use mount::backing::{self, DirReader, Handle, Kind};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::log::ActivityLog;
use crate::replicator::log::unwatched::{Past, parts_of};
use crate::replicator::walker::LOST_AND_FOUND;
use crate::replicator::{Directory, roots};

/// Suspects that are written to the log at once.
const SUSPECTS_AT_ONCE: usize = 512;

/// Paths that are told.
const TOLD_MAX: usize = 5;

/// The search, and what came of it.
pub(super) struct LookBack {
    past: Past,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    directories: Vec<Directory>,
    log: Arc<ActivityLog>,
    daemon: Arc<DaemonLink>,
    stop: AtomicBool,
    /// What was told of it.
    told: Mutex<Option<ReplicatorEvent>>,
}

/// Why a search ended before its end.
enum Ended {
    Stopped,
    /// More than the log may name, or all may differ anyway.
    TooMuch,
    Failed(PathBuf, Errno),
    NoHandles,
    Log(io::Error),
}

impl LookBack {
    pub(super) fn new(
        past: Past,
        directories: &[Directory],
        log: &Arc<ActivityLog>,
        daemon: &Arc<DaemonLink>,
    ) -> LookBack {
        let shared = Shared {
            directories: directories.to_vec(),
            log: Arc::clone(log),
            daemon: Arc::clone(daemon),
            stop: AtomicBool::new(false),
            told: Mutex::default(),
        };
        LookBack { past, shared: Arc::new(shared), thread: None }
    }

    /// The directories are out of everybody else's reach from here on. Only the first call counts.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.thread.is_some() || self.shared.told().is_some() {
            // Whoever has this told once more may have forgotten.
            self.introduce();
            return Ok(());
        }
        match &self.past {
            Past::Nothing => {
                self.shared.renew_seal()?;
                self.shared.tell(false, None);
            }
            Past::Restored => {
                self.shared.tell_restored();
                self.shared.tell(false, None);
            }
            Past::Doubtful(why) => {
                let sentence = format!(
                    "whether anything was changed past replication while the module was stopped \
                     cannot be told: {why}; everything is compared"
                );
                self.shared.renew_seal()?;
                self.shared.tell(false, Some(sentence));
            }
            Past::Shows => self.search()?,
        }
        Ok(())
    }

    fn search(&mut self) -> io::Result<()> {
        let Some(window) = self.shared.log.cover()? else {
            self.shared.renew_seal()?;
            self.shared.tell(!self.shared.log.is_strayed(), None);
            return Ok(());
        };
        let mut search = Search::new(Arc::clone(&self.shared), window);
        // Before anything of this node's own is done to them, such as setting a marker.
        let roots = search.look_at_roots();
        self.shared.renew_seal()?;
        let thread = std::thread::Builder::new().name("look-back".to_owned());
        self.thread = Some(thread.spawn(move || {
            let ended = roots.and_then(|()| search.run()).err();
            search.finish(ended);
        })?);
        Ok(())
    }

    /// Tells a new daemon what an earlier one may have heard.
    pub(super) fn introduce(&self) {
        if self.shared.log.is_broken() {
            self.shared.tell_restored();
        }
        if self.shared.log.is_shared() {
            self.shared.daemon.event(ReplicatorEvent::LookedBack { clean: true, found: None });
        } else if let Some(event) = self.shared.told() {
            self.shared.daemon.event(event);
        }
    }

    /// Ends the search; what it has not come to is looked for by the next one.
    pub(super) fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has noted nothing as looked at.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn told(&self) -> Option<ReplicatorEvent> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew_seal(&self) -> io::Result<()> {
        self.log.renew_seal(&roots(&self.directories))
    }

    fn tell_restored(&self) {
        let why = "the replicated directories and this node's activity log do not belong together: \
                   the disk of one of them was put back to an earlier state";
        eprintln!("{why}");
        self.daemon.event(ReplicatorEvent::Restored { why: why.to_owned() });
    }

    fn tell(&self, clean: bool, found: Option<String>) {
        if let Some(found) = &found {
            eprintln!("{found}");
        }
        let event = ReplicatorEvent::LookedBack { clean, found };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(event.clone());
        self.daemon.event(event);
    }
}

/// A search under way.
struct Search {
    shared: Arc<Shared>,
    window: Window,
    suspects: Vec<Box<[u8]>>,
    found: u64,
    told: Vec<String>,
}

impl Search {
    fn new(shared: Arc<Shared>, window: Window) -> Search {
        Search { shared, window, suspects: Vec::new(), found: 0, told: Vec::new() }
    }

    fn finish(&mut self, ended: Option<Ended>) {
        let why = match ended {
            None => None,
            Some(Ended::Stopped) => return,
            Some(Ended::TooMuch) => Some("more was changed than is remembered".to_owned()),
            Some(Ended::NoHandles) => Some("the file system has no file handles".to_owned()),
            Some(Ended::Failed(path, errno)) => Some(format!("{}: {errno}", path.display())),
            Some(Ended::Log(error)) => Some(format!("the activity log: {error}")),
        };
        if let Err(error) = self.shared.log.looked_back(why.is_none(), self.found > 0) {
            // It stays noted that there is something to look for.
            eprintln!("the activity log cannot be written: {error}");
            let sentence = format!("what was changed past replication cannot be noted: {error}");
            return self.shared.tell(false, Some(sentence));
        }
        let more = self.found.saturating_sub(self.told.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let among = format!("{}{more}", self.told.join(", "));
        let sentence = match (self.found, why) {
            (0, None) => None,
            (_, None) => Some(format!(
                "changed past replication while the module was stopped here: {among}; both \
                 copies are compared in that before the peer counts as up to date"
            )),
            (_, Some(why)) => Some(format!(
                "what was changed past replication while the module was stopped here is not known \
                 in full ({why}); everything is compared"
            )),
        };
        let clean = sentence.is_none() && !self.shared.log.is_strayed();
        self.shared.tell(clean, sentence);
    }

    fn look_at_roots(&mut self) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        for (tree, directory) in (0..).zip(&shared.directories) {
            let failed = |errno| Ended::Failed(directory.path.clone(), errno);
            let stat = backing::stat(&*directory.root).map_err(failed)?;
            if self.window.contains((stat.ctime.seconds, stat.ctime.nanoseconds)) {
                let object = backing::handle_of(&*directory.root, b"").map_err(failed)?;
                self.add(tree, Kind::Directory, &object, None)?;
                self.count(directory.path.display().to_string());
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        for (tree, directory) in (0..).zip(&shared.directories) {
            let failed = |errno| Ended::Failed(directory.path.clone(), errno);
            let root = backing::handle_of(&*directory.root, b"").map_err(failed)?;
            if !root.opens() {
                return Err(Ended::NoHandles);
            }
            // By handle, so that no depth is too deep and no rename leads astray.
            let mut waiting = vec![root.clone()];
            while let Some(handle) = waiting.pop() {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
                let opened = directory.root.open_handle(&handle, flags);
                let reader = match opened.and_then(backing::read_dir) {
                    Ok(reader) => reader,
                    // Removed by this node meanwhile, of which there are entries.
                    Err(Errno::STALE | Errno::NOENT) => continue,
                    Err(errno) => return Err(failed(errno)),
                };
                let is_root = handle == root;
                let mut place = Place { tree, directory, handle: &handle, is_root, below: None };
                place.find(&reader);
                self.look_through(&place, reader, &mut waiting)?;
            }
        }
        self.write()
    }

    fn look_through(
        &mut self,
        place: &Place<'_>,
        mut reader: DirReader,
        waiting: &mut Vec<Handle>,
    ) -> Result<(), Ended> {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            let chunk = match reader.next_chunk() {
                Err(Errno::NOENT) => return Ok(()),
                chunk => chunk.map_err(|errno| place.failed(&reader, errno))?,
            };
            if chunk.is_empty() {
                return Ok(());
            }
            for name in chunk.into_iter().map(|entry| entry.name) {
                let skip = name == b"." || name == b"..";
                let nobodys = place.is_root && name == LOST_AND_FOUND;
                if skip || nobodys || place.excludes(&name) {
                    continue;
                }
                match self.look_at(place, &reader, &name, waiting) {
                    Err(Ended::Failed(_, Errno::NOENT | Errno::STALE)) => {}
                    looked => looked?,
                }
            }
        }
    }

    fn look_at(
        &mut self,
        place: &Place<'_>,
        reader: &DirReader,
        name: &[u8],
        waiting: &mut Vec<Handle>,
    ) -> Result<(), Ended> {
        let failed = |errno| place.failed(reader, errno);
        let wanted = StatxFlags::CTIME | StatxFlags::TYPE;
        let seen = rustix::fs::statx(reader, name, AtFlags::SYMLINK_NOFOLLOW, wanted);
        let seen = seen.map_err(failed)?;
        let kind = Kind::of_mode(u32::from(seen.stx_mode));
        let changed = self.window.contains((seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec));
        if !changed && kind != Kind::Directory {
            return Ok(());
        }
        let handle = backing::handle_of(reader, name).map_err(failed)?;
        if !handle.opens() {
            return Err(Ended::NoHandles);
        }
        if changed {
            self.add(place.tree, kind, &handle, Some((place.handle, name)))?;
            let path = place.path(reader).join(std::ffi::OsStr::from_bytes(name));
            self.count(path.display().to_string());
        }
        if kind == Kind::Directory {
            waiting.push(handle);
        }
        Ok(())
    }

    fn count(&mut self, path: String) {
        self.found += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(path);
        }
    }

    fn add(
        &mut self,
        tree: u16,
        kind: Kind,
        object: &Handle,
        name: Option<(&Handle, &[u8])>,
    ) -> Result<(), Ended> {
        let (parent, name) = name
            .map_or((Vec::new(), Vec::new()), |(parent, name)| (parent.to_bytes(), name.to_vec()));
        // A directory that changed may be another one under its name, with all below it; but for
        // the root.
        let moved = (kind == Kind::Directory && !name.is_empty()).then_some(&Part::Moved);
        for part in parts_of(kind).iter().chain(moved) {
            let (object, parent, name) = (object.to_bytes(), parent.clone(), name.clone());
            let entry = Entry { tree, object, parent, name, part: *part, alone: false };
            let mut bytes = Vec::new();
            entry.put(&mut bytes);
            self.suspects.push(bytes.into());
        }
        if self.suspects.len() < SUSPECTS_AT_ONCE { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Ended> {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() {
            return Ok(());
        }
        match self.shared.log.suspect(suspects) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ended::TooMuch),
            Err(error) => Err(Ended::Log(error)),
        }
    }
}

/// A directory that is looked through.
struct Place<'a> {
    tree: u16,
    directory: &'a Directory,
    handle: &'a Handle,
    is_root: bool,
    /// Names from the root down to it, where that matters and could be found.
    below: Option<Vec<Vec<u8>>>,
}

impl Place<'_> {
    fn find(&mut self, reader: &DirReader) {
        if !self.directory.exclude.is_empty() {
            let path = self.path(reader);
            let below = path.strip_prefix(&self.directory.path).ok();
            let names = |below: &Path| below.iter().map(|name| name.as_bytes().to_vec()).collect();
            self.below = below.map(names);
        }
    }

    fn excludes(&self, name: &[u8]) -> bool {
        let path = |below: &Vec<Vec<u8>>| [below.as_slice(), &[name.to_vec()]].concat();
        self.below.as_ref().is_some_and(|below| self.directory.exclude.covers(&path(below)))
    }

    fn failed(&self, reader: &DirReader, errno: Errno) -> Ended {
        Ended::Failed(self.path(reader), errno)
    }

    /// Where it stands, as people know it.
    fn path(&self, reader: &DirReader) -> PathBuf {
        let path = |file: i32| std::fs::read_link(format!("/proc/self/fd/{file}"));
        let root = path(self.directory.root.as_fd().as_raw_fd());
        let full = path(reader.as_fd().as_raw_fd());
        let below = match (root, full) {
            (Ok(root), Ok(full)) => full.strip_prefix(root).map(Path::to_owned).ok(),
            _ => None,
        };
        below.map_or_else(|| self.directory.path.clone(), |below| self.directory.path.join(below))
    }
}
