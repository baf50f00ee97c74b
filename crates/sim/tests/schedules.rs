//! A slice of the random schedules; `cargo xtask sim` runs as many as are wanted.

use sim::schedule::Schedule;

/// Seeds run here. In a build without optimization each takes some hundredths of a second.
const SEEDS: u64 = 300;

#[test]
fn promises_hold_whatever_happens() {
    for seed in 0..SEEDS {
        let run = Schedule::of(seed).run();
        if let Some(violation) = run.violation {
            panic!("seed {seed}: {violation}\n{}", run.log.join("\n"));
        }
    }
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [0, 17, 4711] {
        let [one, two] = [Schedule::of(seed).run(), Schedule::of(seed).run()];
        assert!(!one.log.is_empty() && one.acknowledged > 0);
        assert_eq!(one.log, two.log);
        assert_eq!(one.events, two.events);
    }
}
