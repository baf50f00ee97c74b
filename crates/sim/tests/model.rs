//! The model check at a small depth, and schedules that broke a promise without some rule.
//!
//! `cargo xtask model` looks deeper, and `cargo xtask model --mutant NAME` finds such schedules.
//! Each file of `tests/model` names a case and a rule, and lists the steps.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use sim::exhaust::{cases, follow, search, tell};

/// Far more than any case has at the depth of these tests.
const STATES_MAX: u64 = 1_000_000;

#[test]
fn promises_hold_in_every_order_of_a_few_events() {
    let mut states = 0;
    for case in cases() {
        // One thread, so that the same states are looked at each time.
        let outcome = search(&case, case.depth_in_tests, 1, STATES_MAX);
        if let Some(found) = outcome.found.first() {
            let story = tell(&case, &found.steps).join("\n");
            panic!("{}: {}: {}\n{story}", case.name, found.promise.sentence(), found.what);
        }
        assert_eq!(outcome.depth, case.depth_in_tests, "{} was not looked at", case.name);
        states += outcome.states;
    }
    eprintln!("{states} states");
    assert!(states > 10_000, "only {states} states are told apart");
}

/// Schedules that broke a promise while the rule that each file names was taken out: with the rule
/// nothing comes of them, and the pair is protected again once everything works.
#[test]
fn what_broke_a_promise_without_its_rule_breaks_none_with_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/model");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no schedules in {}", folder.display());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display();
        let named = text.lines().find_map(|line| line.strip_prefix("case "));
        let case = cases().into_iter().find(|case| Some(case.name) == named);
        let case = case.unwrap_or_else(|| panic!("{name} names no case"));
        let told = follow(&case, &text);
        assert_eq!(told.broken, None, "{name}");
        assert!(told.settled, "{name}: the pair is not protected again");
        assert!(told.taken > 1, "{name}: its steps cannot be taken any more");
    }
}
