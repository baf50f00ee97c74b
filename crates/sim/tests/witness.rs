//! How often the witness is asked: now and then, whatever became of it, and never without end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

use std::time::Duration;

use sim::story::play;

/// Both nodes look at the register each five seconds; so many questions may be about a change.
const CHANGES: u64 = 8;

#[test]
fn the_witness_is_asked_now_and_then() {
    for trouble in [
        "run 1s",
        "witness forgets",
        "witness restart",
        "witness save\n> kill node2\n> run 8s\n> witness restore",
        "kill node2\n> run 8s\n> witness forgets",
        "cut\n> run 4s\n> kill node1\n> run 4s\n> force-primary node2\n> run 1s",
    ] {
        let story = format!("> given a protected pair\n> {trouble}\n> run 1s\n");
        let (_, mut world) = play(&story).unwrap_or_else(|wrong| panic!("{wrong}"));
        let (asked, length) = (world.asked, Duration::from_secs(60));
        world.run_for(length);
        let since = world.asked - asked;
        let usual = 2 * length.as_secs() / 5;
        assert!(since <= usual + CHANGES, "after `{trouble}` it is asked {since} times");
        assert!(since >= usual / 2 - 1, "after `{trouble}` nobody asks: {since}");
    }
}
