//! The model check at a small depth. `cargo xtask model` looks deeper.

use sim::exhaust::{cases, search, tell};

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
