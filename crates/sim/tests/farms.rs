//! A slice of the farms' plans; `cargo xtask sim --farms` runs as many as are wanted.

use sim::farm::{Plan, shrink};

/// Seeds run here. In a build without optimization each takes some tenths of a second.
const SEEDS: u64 = 24;

#[test]
fn a_farm_keeps_its_promises_whatever_happens() {
    for seed in 0..SEEDS {
        let plan = Plan::of(seed);
        if let Some(violation) = plan.run().violation {
            let shorter = shrink(&plan, violation.promise);
            let (delivery, weights) = (shorter.delivery, &shorter.weights);
            let log = shorter.run().log.join("\n");
            panic!("seed {seed}: {delivery:?} {weights:?}: {violation}\n{log}");
        }
    }
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [0, 17, 4711] {
        let [one, two] = [Plan::of(seed).run(), Plan::of(seed).run()];
        assert!(!one.log.is_empty());
        assert_eq!(one.log, two.log);
        assert_eq!(one.events, two.events);
    }
}
