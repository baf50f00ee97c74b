//! The gate at its limits: too much to name, a clock set back, and a checkpoint after either.

use std::path::PathBuf;

use super::*;

/// A log in a directory of its own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let directory = format!("evenkeel-gate-{}-{name}", std::process::id());
        Place(std::env::temp_dir().join(directory))
    }

    fn open(&self) -> Arc<ActivityLog> {
        ActivityLog::open(&self.0.join("activity.log"), 0).unwrap().0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever is left lies in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn meta(node: u64) -> Touch {
    Touch::Meta(FileId { tree: 0, node })
}

/// A change as the mount makes it.
fn change(log: &ActivityLog, touches: &[Touch], number: u64) {
    while !log.confirm(touches, number) {
        log.prepare(touches).unwrap();
    }
}

/// Makes the log name more than it may.
fn overflow(log: &ActivityLog) {
    let all: Vec<u64> = (2..2 + ENTRIES_MAX as u64).collect();
    for some in all.chunks(1 << 10) {
        change(log, &some.iter().map(|node| meta(*node)).collect::<Vec<_>>(), 1);
    }
}

fn shared(number: u64) -> Option<Point> {
    Some(Point { base: 7, cooled: number, begun: number, ..Point::default() })
}

#[test]
fn a_log_that_would_name_too_much_says_that_anything_may_differ() {
    let place = Place::new("overflow");
    let log = place.open();
    overflow(&log);
    assert_eq!(log.point(), None);
    drop(log);
    let log = place.open();
    assert_eq!(log.point(), None, "nor does a later process believe it");
    change(&log, &[meta(5)], 2);
    // What changes while a checkpoint is under way that puts an end to it is named.
    let since = log.stamp();
    change(&log, &[meta(9)], 3);
    log.checkpoint(2, since, shared(2)).unwrap();
    assert_eq!(log.point(), shared(2));
    assert_eq!(log.len(), 1, "only the change that came after operation 2");
    assert_eq!(place.open().point(), shared(2));
}

#[test]
fn a_checkpoint_during_which_too_much_changed_ends_nothing() {
    let place = Place::new("again");
    let log = place.open();
    log.give_up();
    let since = log.stamp();
    overflow(&log);
    log.checkpoint(0, since, shared(0)).unwrap();
    assert_eq!(log.point(), None);
}

#[test]
fn a_clock_that_was_set_back_lowers_the_stamp_before_anything_is_changed() {
    let place = Place::new("clock");
    let log = place.open();
    let later = (now().0 + 1000, 0);
    log.checkpoint(0, later, shared(0)).unwrap();
    assert!(!log.confirm(&[meta(5)], 1));
    change(&log, &[meta(5)], 1);
    assert!(log.since() <= now() && place.open().since() <= now());
    log.checkpoint(1, later, None).unwrap();
    log.watch_clock().unwrap();
    assert!(log.since() <= now(), "a target's too");
}

#[test]
fn a_target_that_holds_all_begins_anew() {
    let place = Place::new("target");
    let log = place.open();
    change(&log, &[meta(5)], 1);
    log.give_up();
    log.share(7, 3, 40, now()).unwrap();
    let point = Point { base: 7, previous: 3, as_target: true, cooled: 40, begun: 40 };
    assert_eq!((log.point(), log.len()), (Some(point), 0));
    let before = log.since();
    let (coming, next) = ((now().0 + 5, 0), (now().0 + 9, 0));
    log.share(7, 3, 41, coming).unwrap();
    log.share(7, 3, 42, next).unwrap();
    assert_eq!(log.since(), (coming.0 - 1, 0), "the one before is complete at the source");
    assert!(log.since() > before);
}
