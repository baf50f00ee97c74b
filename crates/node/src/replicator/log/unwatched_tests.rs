//! What is noted of the time in which no replicator watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activity::{Entry, Image, Point};
use mount::{Gate, Tree};

use super::*;
use crate::marker;
use crate::replicator::primary::Trees;

/// A log beside a replicated directory.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("evenkeel-unwatched-{}-{name}", std::process::id());
        let place = Place(std::env::temp_dir().join(name));
        fs::create_dir_all(place.data()).unwrap();
        fs::write(place.data().join("kept"), "kept").unwrap();
        fs::write(place.data().join("changed"), "as it was").unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.join("activity.log")
    }

    fn roots(&self) -> Vec<Arc<Root>> {
        vec![Arc::new(Root::open(&self.data()).unwrap())]
    }

    /// A new process, and what it can know.
    fn open(&self) -> (Arc<ActivityLog>, Past) {
        let (log, _) = ActivityLog::open(&self.log(), 0).unwrap();
        let past = log.begin(&self.roots(), None).unwrap();
        (log, past)
    }

    fn seal(&self) -> u128 {
        marker::read_seal(&*self.roots()[0]).unwrap().unwrap()
    }

    /// The module was in use and was stopped.
    fn stop(&self) {
        let (log, past) = self.open();
        assert!(matches!(past, Past::Nothing), "nothing is shared yet");
        log.cover().unwrap();
        log.uncover(&self.roots()).unwrap();
        wait_past(&header(&self.log()).unwatched.unwrap().from);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever is left lies in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn header(log: &Path) -> activity::Header {
    Image::read(&fs::read(log).unwrap()).unwrap().header
}

/// Until the clock that files are stamped by has moved on.
fn wait_past(time: &Clock) {
    while now() <= *time {
        std::thread::yield_now();
    }
}

fn write_to(file: FileId) -> Vec<Touch> {
    vec![Touch::Content { file, offset: 0, length: 10 }]
}

/// A change as the mount makes it, up to where it would be applied.
fn change(log: &ActivityLog, touches: &[Touch]) {
    while !log.confirm(touches, 1) {
        log.prepare(touches).unwrap();
    }
}

fn parts_logged(log: &ActivityLog, name: &[u8]) -> Vec<Part> {
    let named = |entry: &Entry| entry.name == name;
    log.entries().into_iter().filter(named).map(|entry| entry.part).collect()
}

#[test]
fn own_changes_do_not_hide_what_was_changed_before() {
    let place = Place::new("hidden");
    place.stop();
    fs::write(place.data().join("changed"), "by somebody").unwrap();
    let (log, past) = place.open();
    assert!(matches!(past, Past::Shows));
    let window = log.cover().unwrap().unwrap();
    let stamp = |name: &str| {
        let metadata = fs::metadata(place.data().join(name)).unwrap();
        (metadata.ctime(), u32::try_from(metadata.ctime_nsec()).unwrap())
    };
    assert!(window.contains(stamp("changed")) && !window.contains(stamp("kept")));
    let trees: Trees = Arc::new(vec![Arc::new(Tree::open(0, &place.data()).unwrap())]);
    log.serve(&trees, 0);
    let file = |name: &[u8]| trees[0].lookup(FileId::root(0), name).unwrap().0;
    change(&log, &write_to(file(b"changed")));
    change(&log, &write_to(file(b"kept")));
    assert_eq!(parts_logged(&log, b"changed"), [Part::Region(0), Part::From(0)]);
    assert_eq!(parts_logged(&log, b"kept"), [Part::Region(0)]);
    drop(log);
    // It ended without having looked through all: what is there counts from the stop on.
    assert_eq!(header(&place.log()).unwatched.unwrap().from, window.from);
    let (log, past) = place.open();
    assert!(matches!(past, Past::Shows));
    assert_eq!(log.cover().unwrap().unwrap().from, window.from);
    log.looked_back(true, false).unwrap();
    assert!(log.cover().unwrap().is_none(), "nothing is left to look for");
    assert_eq!(log.point().map(|point| point.begun), Some(0), "the entries name everything");
}

#[test]
fn a_search_that_came_to_no_end_leaves_nothing_certain() {
    let place = Place::new("incomplete");
    place.stop();
    let (log, _) = place.open();
    log.cover().unwrap();
    log.looked_back(false, false).unwrap();
    assert_eq!(log.point(), None);
    drop(log);
    assert!(matches!(place.open().1, Past::Doubtful(_)));
}

#[test]
fn a_clock_that_was_set_back_leaves_nothing_certain() {
    let place = Place::new("clock");
    place.stop();
    let (log, _) = place.open();
    let later = (now().0 + 3600, 0);
    log.note(|header| header.unwatched = Some(Window { from: later, until: None })).unwrap();
    drop(log);
    let (log, past) = place.open();
    assert!(matches!(past, Past::Doubtful(why) if why.contains("clock")));
    assert_eq!(log.point(), None);
}

#[test]
fn a_process_that_was_killed_watched_until_what_it_left_was_removed() {
    let place = Place::new("killed");
    place.stop();
    let (log, _) = place.open();
    log.cover().unwrap();
    log.looked_back(true, false).unwrap();
    drop(log);
    let (log, _) = ActivityLog::open(&place.log(), 0).unwrap();
    let covered = now();
    log.begin(&place.roots(), Some(covered)).unwrap();
    assert_eq!(header(&place.log()).unwatched.unwrap().from, covered);
    log.looked_back(true, false).unwrap();
    // Nobody knows since when the directories were open: since the newest checkpoint at worst.
    log.begin(&place.roots(), None).unwrap();
    let header = header(&place.log());
    assert_eq!(header.unwatched.unwrap().from, header.since);
}

#[test]
fn a_disk_or_a_log_that_was_put_back_shows() {
    let place = Place::new("restored");
    place.stop();
    let (data, log) = (place.seal(), fs::read(place.log()).unwrap());
    place.open().0.renew_seal(&place.roots()).unwrap();
    let current = place.seal();
    assert_ne!(data, current);
    // The log of now, and the disk of before; and the other way round.
    for (seal, image) in [(data, None), (current, Some(&log))] {
        marker::write_seal(&*place.roots()[0], seal).unwrap();
        if let Some(image) = image {
            fs::write(place.log(), image).unwrap();
        }
        for _ in 0..2 {
            let (log, past) = place.open();
            assert!(matches!(past, Past::Restored) && log.is_broken());
            assert_eq!(log.point(), None, "everything may differ");
            log.uncover(&place.roots()).unwrap();
            assert_eq!(place.seal(), seal, "a stop chooses nothing");
        }
        let (log, _) = place.open();
        log.choose(&place.roots()).unwrap();
        assert!(!log.is_broken() && place.seal() != seal);
        drop(log);
        assert!(!matches!(place.open().1, Past::Restored));
    }
}

#[test]
fn a_change_of_seals_may_end_anywhere() {
    let place = Place::new("seals");
    place.stop();
    let (log, _) = place.open();
    let before = place.seal();
    for carried in [None, Some(before)] {
        log.begin_seal(&place.roots()).unwrap();
        if let Some(seal) = carried {
            // What the file system had not made durable.
            marker::write_seal(&*place.roots()[0], seal).unwrap();
        }
        let (log, past) = place.open();
        assert!(matches!(past, Past::Shows));
        log.renew_seal(&place.roots()).unwrap();
    }
    // One that came to nothing, and the next one.
    let (log, _) = place.open();
    log.begin_seal(&place.roots()).unwrap();
    log.begin_seal(&place.roots()).unwrap();
    log.looked_back(true, false).unwrap();
    log.checkpoint(5, now(), shared()).unwrap();
    assert_eq!((header(&place.log()).seal, header(&place.log()).next_seal), (place.seal(), 0));
}

fn shared() -> Option<Point> {
    Some(Point { base: 7, ..Point::default() })
}

#[test]
fn a_machine_that_went_down_watched_until_then() {
    let place = Place::new("boot");
    place.stop();
    let (log, _) = place.open();
    log.looked_back(true, false).unwrap();
    log.note(|header| header.boot = 1).unwrap();
    log.begin(&place.roots(), None).unwrap();
    let from = header(&place.log()).unwatched.unwrap().from;
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: i64 = uptime.split('.').next().unwrap().parse().unwrap();
    let (seconds, _) = now();
    assert!((seconds - uptime - 2..=seconds).contains(&from.0), "{from:?}, up for {uptime} s");
}
