//! Random sequences of faults of every kind, with clients that write on; a seed says which. After
//! each, everything is mended and judged: nothing acknowledged is lost, no two nodes acknowledged
//! at a time, the pair is protected, both replicas are identical.
//!
//! `EVENKEEL_SEEDS=100` runs more seeds, from `EVENKEEL_FIRST` on; `EVENKEEL_SEED=17` runs one.

#![allow(clippy::print_stdout, reason = "the soak reads the figures")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod brain_support;
mod support;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::brain_support::Trial;
use self::brain_support::sequence::generate;
use self::support::applications::ledger;
use self::support::random::Random;

/// Seeds in one run; more of them are a soak.
const SEEDS: u64 = 5;
/// What the module's file says, by turns.
const TIMEOUTS: [&str; 3] =
    ["", "[failover]\ntimeout = \"1s\"\n", "[failover]\ntimeout = \"500ms\"\n"];

#[test]
fn nothing_is_lost_and_one_node_serves_whatever_happens() {
    let (first, count) = match number("EVENKEEL_SEED") {
        Some(seed) => (seed, 1),
        None => (number("EVENKEEL_FIRST").unwrap_or(0), number("EVENKEEL_SEEDS").unwrap_or(SEEDS)),
    };
    let mut failed = Vec::new();
    for seed in first..first + count {
        // A cluster that a failure ends tells all about itself.
        if catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
            println!("SOAK {{\"kind\": \"sequence\", \"failed\": 1}}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let steps = generate(&mut random);
    let timeout = TIMEOUTS[usize::try_from(seed % 3).unwrap()];
    // Every fourth is made with encrypted links.
    let application = if seed % 4 == 3 { ledger(timeout).with_keys() } else { ledger(timeout) };
    let trial = Trial::over(application);
    println!("seed {seed}: {} faults", steps.len());
    trial.perform(&steps, &mut random);
    trial.say("everything is mended");
    let acknowledged = trial.finish();
    println!(
        "SOAK {{\"kind\": \"sequence\", \"rounds\": 1, \"failed\": 0, \"faults\": {}, \
         \"acknowledged\": {acknowledged}, \"lost\": 0}}",
        steps.len()
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
