//! How a resync is getting on: counted by the walk, told to the daemon now and then.
//!
//! What there is in all is counted by a thread of its own, so that time left can be told early.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mount::Tree;
use mount::backing::{self, DirEntry, Handle, Kind};
use replica::Task;
use rustix::fs::OFlags;
use rustix::io::Errno;
use wire::local::{FromReplicator, Progress};

use crate::replicator::source::Link;

/// Time between two reports.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Counts a resync.
pub(super) struct Meter {
    link: Arc<Link>,
    progress: Progress,
    began: Instant,
    told: Instant,
    told_bytes: u64,
    total: Arc<Total>,
}

/// What there is in all.
#[derive(Default)]
struct Total {
    entries: AtomicU64,
    bytes: AtomicU64,
    complete: AtomicBool,
}

impl Meter {
    pub(super) fn start(link: &Arc<Link>) -> Meter {
        let total = Arc::new(Total::default());
        let why = "the target is asked what it may lack";
        let progress = Progress { running: true, why: why.to_owned(), ..Progress::default() };
        link.primary.daemon().tell(FromReplicator::Progress(progress.clone()));
        let now = Instant::now();
        let link = Arc::clone(link);
        Meter { link, progress, began: now, told: now, told_bytes: 0, total }
    }

    /// Everything is compared, because of this.
    pub(super) fn compare_all(&mut self, why: &str) {
        self.state(why);
        let trees = Arc::clone(self.link.primary.trees());
        let (counting, counted) = (Arc::clone(&self.link), Arc::clone(&self.total));
        // Without the thread the total stays unknown, which is allowed.
        let _ = std::thread::Builder::new().name("count".to_owned()).spawn(move || {
            let is_ended = || counting.is_ended();
            let done = trees.iter().all(|tree| counted.count(tree, &is_ended).is_ok());
            counted.complete.store(done, Ordering::Relaxed);
        });
    }

    /// Only this work is done; what is in directories comes on top.
    pub(super) fn compare_suspects(&mut self, why: &str, levels: &[Vec<Task>]) {
        self.state(why);
        for task in levels.iter().flatten() {
            if let Task::Part { file, offset, end } = *task {
                let tree = self.link.primary.trees().get(usize::from(file.tree));
                let size = tree.and_then(|tree| tree.stat(file).ok()).map_or(0, |stat| stat.size);
                let bytes = end.min(size).saturating_sub(offset);
                self.total.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.total.entries.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.total.complete.store(true, Ordering::Relaxed);
    }

    fn state(&mut self, why: &str) {
        why.clone_into(&mut self.progress.why);
        self.link.primary.daemon().tell(FromReplicator::Progress(self.progress.clone()));
    }

    /// An entry was put right.
    pub(super) fn entry(&mut self, name: &[u8]) {
        self.progress.entries += 1;
        self.progress.current = String::from_utf8_lossy(name).into_owned();
        self.tell();
    }

    /// So many bytes were compared or sent.
    pub(super) fn bytes(&mut self, count: usize) {
        self.progress.bytes += count as u64;
        self.tell();
    }

    /// So many bytes were sent because they differed.
    pub(super) fn copied(&mut self, count: usize) {
        self.progress.copied += count as u64;
    }

    /// The resync is over.
    pub(super) fn finish(&mut self) {
        self.progress.running = false;
        self.progress.seconds = self.began.elapsed().as_secs_f64();
        self.link.primary.daemon().tell(FromReplicator::Progress(self.progress.clone()));
    }

    fn tell(&mut self) {
        let since = self.told.elapsed();
        if since < TELL_EVERY {
            return;
        }
        let fresh = self.progress.bytes - self.told_bytes;
        self.progress.rate = fresh as f64 / since.as_secs_f64();
        self.progress.seconds = self.began.elapsed().as_secs_f64();
        if self.total.complete.load(Ordering::Relaxed) {
            let entries = self.total.entries.load(Ordering::Relaxed);
            let bytes = self.total.bytes.load(Ordering::Relaxed);
            self.progress.entries_total = entries.max(self.progress.entries);
            self.progress.bytes_total = bytes.max(self.progress.bytes);
        }
        self.told = Instant::now();
        self.told_bytes = self.progress.bytes;
        self.link.primary.daemon().tell(FromReplicator::Progress(self.progress.clone()));
    }
}

impl Total {
    /// Counts what a tree holds; until it `is_ended`, which is asked now and then.
    ///
    /// By handle, for a descriptor of each directory that waits its turn would leave none for
    /// those who write.
    fn count(&self, tree: &Tree, is_ended: &dyn Fn() -> bool) -> Result<(), Errno> {
        let root = tree.root();
        let mut waiting = vec![backing::handle_of(&**root, b"")?];
        while let Some(handle) = waiting.pop() {
            let directory = match root.open_handle(&handle, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                // The root is there: its file system has no handles, and the total stays unknown.
                Err(errno) if !handle.opens() => return Err(errno),
                // What goes away meanwhile does not count.
                Err(_) => continue,
            };
            let mut reader = backing::read_dir(&directory)?;
            loop {
                let chunk = reader.next_chunk()?;
                if is_ended() {
                    return Err(Errno::CANCELED);
                }
                if chunk.is_empty() {
                    break;
                }
                for entry in chunk.iter().filter(|entry| entry.name != b"." && entry.name != b"..")
                {
                    self.entries.fetch_add(1, Ordering::Relaxed);
                    waiting.extend(self.count_entry(&directory, entry));
                }
            }
        }
        Ok(())
    }

    /// The handle of a directory, which is counted later; a file is counted at once.
    fn count_entry(&self, directory: impl AsFd, entry: &DirEntry) -> Option<Handle> {
        let object = backing::open_name(directory, &entry.name).ok()?;
        match entry.kind {
            Kind::Directory => backing::handle_of(&object, b"").ok(),
            Kind::File => {
                let size = backing::stat(&object).ok()?.size;
                self.bytes.fetch_add(size, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use super::*;

    fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn counting_holds_no_descriptor_of_a_directory_that_waits() {
        const DIRECTORIES: usize = 3000;
        let path = std::env::temp_dir().join(format!("progress-{}", std::process::id()));
        for directory in 0..DIRECTORIES {
            fs::create_dir_all(path.join(format!("d{directory}"))).unwrap();
        }
        fs::write(path.join("d7/file"), "seven b").unwrap();
        let (before, total) = (descriptors(), Total::default());
        let tree = Tree::open(0, &path).unwrap();
        // Other tests of this process have some open as well.
        let few = || {
            assert!(descriptors() < before + DIRECTORIES / 2);
            false
        };
        total.count(&tree, &few).unwrap();
        assert_eq!(total.entries.load(Ordering::Relaxed), DIRECTORIES as u64 + 1);
        assert_eq!(total.bytes.load(Ordering::Relaxed), 7);
        assert_eq!(total.count(&tree, &|| true), Err(Errno::CANCELED));
        fs::remove_dir_all(&path).unwrap();
    }
}
