//! Tests of what is done to a device and told of it, with a file in place of the device.

#![allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]

use std::fs::File;
use std::path::{Path, PathBuf};

use super::*;
use cluster::effect::ServiceAction;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A directory that is gone after a test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let name = format!("evenkeel-watchdog-{:x}", clock::random());
        let place = Place(std::env::temp_dir().join(name));
        std::fs::create_dir(&place.0).unwrap();
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node that serves, whose device is this file. No device of that name is there to be opened.
fn fed_by(file: &str, directory: &Place) -> Watchdog {
    let config = WatchdogConfig { device: "/dev/watchdog-none".into(), timeout: TIMEOUT };
    let note = directory.0.join("watchdog.json");
    let mut watchdog = Watchdog::take_over(Some(config.clone()), note);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(file);
    watchdog.device = Some(Device::of(file.unwrap(), TIMEOUT));
    watchdog.note.write(Some(config));
    let (module, action) = (ModuleName::new("shop").unwrap(), ServiceAction::Start);
    watchdog.order(watchdog.fed, &Effect::RunService { module, action });
    watchdog
}

fn codes(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.code.as_str()).collect()
}

fn sentence(watchdog: &Watchdog) -> String {
    watchdog.reason.as_ref().unwrap().sentence.clone()
}

#[test]
fn between_two_steps_the_device_is_fed_when_that_is_due_and_not_when_it_is_to_starve() {
    let directory = Place::new();
    let food = directory.0.join("food");
    let mut watchdog = fed_by(food.to_str().unwrap(), &directory);
    let eaten = || std::fs::read(&food).unwrap().len();
    let begin = watchdog.fed;
    watchdog.keep(begin);
    assert_eq!(eaten(), 0);
    watchdog.keep(begin + TIMEOUT / 5);
    assert_eq!((eaten(), watchdog.fed), (1, begin + TIMEOUT / 5));

    let (module, action) = (ModuleName::new("shop").unwrap(), ServiceAction::Kill);
    watchdog.order(begin, &Effect::RunService { module, action });
    watchdog.keep(begin + TIMEOUT * 3);
    assert_eq!(eaten(), 1, "what was killed has not ended for too long");
}

#[test]
fn a_device_that_takes_no_food_is_told_to_reset_the_machine_until_it_would_have() {
    let directory = Place::new();
    let mut watchdog = fed_by("/dev/full", &directory);
    let begin = watchdog.fed;
    let told = watchdog.tick(begin + TIMEOUT / 5);
    assert_eq!(codes(&told), ["watchdog-failed", "watchdog-missing"]);
    assert!(told.iter().all(|event| event.sentence.contains("may reset this machine")));
    assert!(sentence(&watchdog).contains("within 10 seconds"));
    assert_eq!(watchdog.fed, begin, "it has not been fed");
    assert_eq!(watchdog.status(begin)["state"], "unfed");
    // A daemon that follows knows that it runs.
    assert!(watchdog.note.file.exists());

    let tried = watchdog.tried;
    assert!(watchdog.tick(begin + TIMEOUT / 5 + Duration::from_millis(1)).is_empty());
    assert_eq!(watchdog.tried, tried, "it is not tried again before a second has passed");
    assert!(watchdog.tick(begin + TIMEOUT).is_empty(), "the same is told once");
    assert_eq!(watchdog.tried, Some(begin + TIMEOUT));

    let late = begin + TIMEOUT * 3;
    assert!(watchdog.tick(late).is_empty());
    assert!(sentence(&watchdog).contains("this machine is not reset"));
    assert_eq!(watchdog.status(late)["state"], "absent");
    assert!(!watchdog.note.file.exists());
}

#[test]
fn what_an_earlier_daemon_has_left_running_elsewhere_is_not_this_device() {
    let directory = Place::new();
    let note = directory.0.join("watchdog.json");
    let with = |device: &str| WatchdogConfig { device: device.into(), timeout: TIMEOUT };
    let watchdog = with("/dev/watchdog-former");
    let left = Noted { boot: this_boot(), watchdog, starting: false };
    durable::write(&note, &left).unwrap();
    let watchdog = Watchdog::take_over(Some(with("/dev/watchdog-none")), note);
    assert!(!watchdog.runs() && watchdog.note.noted.is_some());
    assert!(!Path::new("/dev/watchdog-former").exists());
}

#[test]
fn a_daemon_that_never_starts_feeds_what_was_left_running_once() {
    let place = Place::new();
    let note = place.0.join("watchdog.json");
    let config = WatchdogConfig { device: "/dev/watchdog-none".into(), timeout: TIMEOUT };
    let left = Noted { boot: this_boot(), watchdog: config.clone(), starting: false };
    durable::write(&note, &left).unwrap();
    let start = || Watchdog::take_over(Some(config.clone()), note.clone());
    assert!(start().tried.is_some(), "there is no such device, but it was tried");
    // That one came no further than this, nor does the next.
    assert!(start().tried.is_none());
    let mut third = start();
    assert!(third.tried.is_none());
    // Its main loop turns: it is tried at once, as it runs, and the next daemon has its time again.
    let _ = third.tick(clock::now());
    assert!(third.tried.is_some());
    assert!(!durable::read::<Noted>(&note).unwrap().unwrap().starting);
    assert!(start().tried.is_some());
}
